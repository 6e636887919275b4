"""Images: from a folder, a zip, arrays or Parquet; scikit-learn's digits when nothing is given."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core import InputError, Rng, Stream
from ..data import (
    Dataset,
    ImageSet,
    Shuffled,
    digits,
    flip,
    open_images,
    split,
    to_uint8,
    to_unit,
    write_folder,
    write_npz,
    write_png,
)
from ..evaluation import Findings, Sets, measure_images
from ..metrics import (
    Classifier,
    FeatureExtractor,
    RandomFeatures,
    dequantise,
    load_inception,
    train_classifier,
)
from ..nn import MLP, DiT, UNet
from ..objectives import Matching
from ..objectives.times import Uniform
from ..solvers import AdamsBashforth, grids
from ..training import Training
from .recipe import Build, DataRef, Generate, Kind, Recipe, Splits

LARGE = 5_000
"""From so many images on, a tenth is held out instead of a fifth."""

MEASURED = 20_000
"""Images of each split that measuring looks at, at most."""

BUDGETS = (5, 100)
"""Network evaluations at which quality is measured besides the run's own."""


@final
@dataclass(frozen=True)
class Images(Kind):
    """Square images as states (B, C, H, W) in [-1, 1].

    Args:
        size: height and width.
        channels: 1 or 3.
        names: names of the classes.
        mirrored: whether training mirrors each image by chance.
        noisy: whether training adds the uniform noise that makes bytes continuous, which likelihoods need.
    """

    size: int
    channels: int
    names: tuple[str, ...] = ()
    mirrored: bool = False
    noisy: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names

    @property
    def endings(self) -> tuple[str, ...]:
        return (".png", ".npz", "")

    def open(self, path: str | None) -> Splits:
        return _split(digits() if path is None else open_images(path, self.size, self.channels))

    def read(self, values: Tensor, rng: Rng) -> Tensor:
        states = dequantise(values, rng=rng.fold(Stream.AUGMENT)) if self.noisy else to_unit(values)
        return flip(states, rng) if self.mirrored else states

    def write(self, states: Tensor, labels: Tensor | None, file: Path) -> None:
        if file.suffix == ".png":
            write_png(file, to_uint8(states), len(self.names) if 1 < len(self.names) <= 20 else None)
        elif file.suffix == ".npz":
            write_npz(file, to_uint8(states), labels)
        else:
            write_folder(file, to_uint8(states), labels, self.names or None)

    def measure(
        self, generate: Generate, splits: Splits, count: int, folder: Path, weights: Path | None = None
    ) -> Findings:
        rng = Rng(0)
        training, labels = _states(splits.training, rng)
        held_out, held_labels = _states(splits.held_out, rng)
        classifier = None
        if labels is not None and held_labels is not None and len(self.names) > 1:
            classifier = _kept(folder) or train_classifier(training, labels, rng, held_out=(held_out, held_labels))
            _keep(folder, classifier)
        extractor: FeatureExtractor = classifier or RandomFeatures(self.channels, rng)
        if weights is not None:
            extractor = load_inception(weights)
        asked = None
        if labels is not None:
            # The classes asked for are as frequent as in the data.
            asked = labels[(rng.fold(Stream.CONDITION).rows(torch.arange(count)).uniform() * len(labels)).long()]
        budgets = {*BUDGETS, generate.evaluations}
        drawn = {budget: generate(asked, count, budget).clamp(-1, 1) for budget in sorted(budgets)}
        sets = Sets(training, held_out)
        return measure_images(drawn, generate.evaluations, sets, extractor, classifier, asked, rng)


def images(
    data: str | None = None,
    *,
    size: int | None = None,
    channels: int | None = None,
    network: type[nn.Module] = UNet,
    width: int | None = None,
    mirrored: bool = False,
    noisy: bool = False,
) -> Recipe:
    """The recipe for images.

    Args:
        data: what :func:`rheos.data.open_images` opens; scikit-learn's digits when left out.
        size: height and width; what the images suggest when left out.
        channels: 1 or 3; likewise.
        network: ``nn.UNet``, ``nn.DiT`` or ``nn.MLP``.
        width: features of the network.
        mirrored: mirror training images by chance.
        noisy: add uniform noise to bytes, for likelihoods.
    """
    found = digits() if data is None else open_images(data, size, channels)
    kind = Images(found.shape[1], found.shape[0], tuple(found.classes), mirrored, noisy)
    count = len(_split(found).training)
    return Recipe(
        name="images",
        kind=kind,
        data=DataRef(None if data is None else str(Path(data).resolve()), found.fingerprint, count),
        network=Build(network, network_options(kind, network, width)),
        objective=Matching(times=Uniform(stratified=True)),
        order=Shuffled(count),
        solver=AdamsBashforth(2),
        grid=grids.Uniform(),
        evaluations=10,
        guidance=None,
        training=Training(steps=500, batch=128) if kind.size <= 16 else Training(steps=4_000, batch=64),
    )


def network_options(kind: Images, network: type[nn.Module], width: int | None) -> dict[str, Any]:
    """Arguments that make a network fit images of this kind. Patches of pixels keep the work of larger images in
    bounds.

    Raises:
        InputError: if the size does not suit the network, or the network is none of the three.
    """
    patch = 2 ** max(0, math.ceil(math.log2(kind.size / 16)))
    if network is not MLP and kind.size % (2 * patch):
        fitting = kind.size // (2 * patch) * 2 * patch
        raise InputError(
            f"a {network.__name__} wants a size that {2 * patch} divides, got {kind.size}; give --size {fitting}."
        )
    classes = {"classes": len(kind.names)}
    if network is UNet:
        levels = {"multipliers": [1, 2], "blocks": 1, "patch": patch}
        return {"channels": kind.channels, "width": width or 32, **levels, **classes}
    if network is DiT:
        width = width or 96
        tokens = {"size": kind.size, "patch": 2 * patch, "depth": 4, "heads": max(1, width // 32)}
        return {"channels": kind.channels, "width": width, **tokens, **classes}
    if network is MLP:
        return {"shape": list(kind.shape), "width": width or 256, "depth": 4, **classes}
    raise InputError(
        f"images know how to build a UNet, a DiT and an MLP, not {network.__name__}; put Build({network.__name__}, "
        "{...}) into a recipe of your own."
    )


def _split(found: ImageSet) -> Splits:
    training, held_out = split(len(found), 0.2 if len(found) < LARGE else 0.1, seed=0)
    return Splits(found.subset(training), found.subset(held_out), found.fingerprint)


def _states(dataset: Dataset, rng: Rng) -> tuple[Tensor, Tensor | None]:
    """At most ``MEASURED`` images of a set as states, and their labels."""
    count = len(dataset)
    index = torch.arange(count) if count <= MEASURED else rng.permutation(count)[:MEASURED].sort()[0]
    values, labels = dataset.take(index)
    return to_unit(values), labels if isinstance(labels, Tensor) else None


def _keep(folder: Path, classifier: Classifier) -> None:
    tensors, config = classifier.state()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "classifier.safetensors")
    (folder / "classifier.json").write_text(json.dumps(config))


def _kept(folder: Path) -> Classifier | None:
    config = folder / "classifier.json"
    if not config.exists():
        return None
    return Classifier.from_state(load_file(folder / "classifier.safetensors"), json.loads(config.read_text()))
