"""Images: from a folder, a zip, arrays or Parquet; scikit-learn's digits when nothing is given."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ..core import CheckpointError, InputError, Rng, Stream
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
from ..evaluation import Findings, Sets, code_length, measure_images
from ..metrics import (
    Classifier,
    FeatureExtractor,
    RandomFeatures,
    Values,
    bits_per_dimension,
    dequantise,
    frechet_distance,
    frechet_name,
    load_inception,
    train_classifier,
)
from ..nn import MLP, DiT, UNet
from ..objectives import Matching
from ..objectives.times import Uniform
from ..solvers import AdamsBashforth, grids
from ..training import Training, checkpoint
from .recipe import Build, DataRef, Generate, Judge, Kind, Recipe, Splits

LARGE = 5_000
"""From so many images on, a tenth is held out instead of a fifth."""

MEASURED = 60_000
"""Images of each split that measuring looks at, at most."""

BUDGETS = (5, 100)
"""Network evaluations at which quality is measured besides the run's own."""

CODED = 64
"""Held-out images whose bits per dimension are estimated, at most: each costs some hundred backward passes."""

READABLE = 8
"""The smallest side that a classifier reads; random features take half of it."""

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Images(Kind):
    """Square images as states (B, C, H, W) in [-1, 1].

    Args:
        size: height and width.
        channels: 1 or 3.
        names: names of the classes.
        mirrored: whether training mirrors each image by chance.
        noisy: whether training adds the uniform noise that makes bytes continuous, which likelihoods need; then
            :meth:`measure` finds bits per dimension.
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
        states = _spread(values, rng) if self.noisy else to_unit(values)
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
        given = None if weights is None else load_inception(weights)
        training, labels = _states(splits.training, rng)
        held_out, held_labels = _states(splits.held_out, rng)
        classifier = self._classifier((training, labels), (held_out, held_labels), rng, folder)
        extractor: FeatureExtractor = given or classifier or self._plain(rng)
        asked = None
        if labels is not None:
            # The classes asked for are as frequent as in the data.
            asked = labels[(rng.fold(Stream.CONDITION).rows(torch.arange(count)).uniform() * len(labels)).long()]
        drawn, chosen = generate.curve(asked, count, BUDGETS)
        # As a user gets them, in bytes; so are the images they are held against.
        drawn = {budget: to_unit(to_uint8(states)) for budget, states in drawn.items()}
        findings = measure_images(drawn, chosen, Sets(training, held_out), extractor, classifier, asked, rng)
        if not self.noisy:
            return findings
        bits = self._bits(generate, splits.held_out, rng)
        return replace(findings, rows=(*findings.rows, code_length(bits, given_class=labels is not None)))

    def judge(self, splits: Splits, folder: Path) -> Judge:
        rng = Rng(0)
        training, held_out = _states(splits.training, rng), _states(splits.held_out, rng)
        extractor: FeatureExtractor = self._classifier(training, held_out, rng, folder) or self._plain(rng)
        features = extractor(training[0])

        def distance(states: Tensor) -> float:
            # As a user gets them, in bytes.
            return frechet_distance(features, extractor(to_unit(to_uint8(states))))

        return Judge(frechet_name(extractor), distance, frechet_distance(features, extractor(held_out[0])))

    def _classifier(
        self, training: tuple[Tensor, Tensor | None], held_out: tuple[Tensor, Tensor | None], rng: Rng, folder: Path
    ) -> Classifier | None:
        """What reads the classes, as ``folder`` keeps it or trained anew; none where there is nothing to read."""
        (x, labels), (_, held_labels) = training, held_out
        if labels is None or held_labels is None or len(self.names) < 2 or self.size < READABLE:
            return None
        found = _kept(folder)
        if found is None:
            found = train_classifier(x, labels, rng, held_out=(held_out[0], held_labels))
            _keep(folder, found)
        return found

    def _plain(self, rng: Rng) -> FeatureExtractor:
        """Features that need no labels."""
        return RandomFeatures(self.channels, rng) if 2 * self.size >= READABLE else Values()

    def _bits(self, generate: Generate, held_out: Dataset, rng: Rng) -> Tensor:
        """Bits per dimension of held-out images, made continuous as in training."""
        values, labels = held_out.take(_some(len(held_out), CODED, rng))
        log_prob = generate.log_prob(_spread(values, rng), labels if isinstance(labels, Tensor) else None, rng)
        return bits_per_dimension(log_prob, math.prod(self.shape))


def images(
    data: str | None = None,
    *,
    source: str | None = None,
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
        source: images to start from instead of noise, brought to the size of the data.
        size: height and width; what the images suggest when left out.
        channels: 1 or 3; likewise.
        network: ``nn.UNet``, ``nn.DiT`` or ``nn.MLP``.
        width: features of the network.
        mirrored: mirror training images by chance.
        noisy: add uniform noise to bytes, for likelihoods.

    Raises:
        InputError: if the numbers do not suit the images or the network.
        DataError: if the images cannot be used.
    """
    if data is None and (size not in (None, 8) or channels not in (None, 1)):
        raise InputError("scikit-learn's digits are grey, 8 x 8; give --data with images of your own for others.")
    found = digits() if data is None else open_images(data, size, channels)
    kind = Images(found.shape[1], found.shape[0], tuple(found.classes), mirrored, noisy)
    count = len(_split(found).training)
    origin = None if source is None else open_images(source, kind.size, kind.channels)
    return Recipe(
        name="images",
        kind=kind,
        data=_ref(data, found),
        network=Build(network, network_options(kind, network, width)),
        objective=Matching(times=Uniform(stratified=True)),
        order=Shuffled(count),
        solver=AdamsBashforth(2),
        grid=grids.Uniform(),
        evaluations=10,
        guidance=None,
        training=Training(
            steps=1_000 if kind.size <= 16 else 4_000,
            batch=128 if kind.size <= 16 else 64,
            channels_last=network is UNet,
        ),
        source=None if origin is None else _ref(source, origin),
    )


def _ref(path: str | None, found: ImageSet) -> DataRef:
    place = None if path is None else str(Path(path).expanduser().resolve())
    return DataRef(place, found.fingerprint, len(_split(found).training))


def network_options(kind: Images, network: type[nn.Module], width: int | None) -> dict[str, Any]:
    """Arguments that make a network fit images of this kind. Patches of pixels keep the work of larger images in
    bounds.

    Raises:
        InputError: if the size does not suit the network, or the network is none of the three.
    """
    if width is not None and width < 1:
        raise InputError(f"a network has a width of at least 1, got {width}.")
    patch = 2 ** max(0, math.ceil(math.log2(kind.size / 16)))
    if network is UNet and width is not None and width % 2:
        raise InputError(f"the width of a UNet is even, got {width}; give --width {width + 1}.")
    if network is not MLP and kind.size % (2 * patch):
        fitting = kind.size // (2 * patch) * 2 * patch
        raise InputError(
            f"a {network.__name__} wants a size that {2 * patch} divides, got {kind.size}; give --size {fitting}."
        )
    classes = {"classes": len(kind.names)}
    if network is UNet:
        levels = {"multipliers": (1, 2), "blocks": 1, "patch": patch}
        return {"channels": kind.channels, "width": width or 32, **levels, **classes}
    if network is DiT:
        width = width or 96
        tokens = {"size": kind.size, "patch": 2 * patch, "depth": 4, "heads": max(1, width // 32)}
        return {"channels": kind.channels, "width": width, **tokens, **classes}
    if network is MLP:
        return {"shape": kind.shape, "width": width or 256, "depth": 4, **classes}
    raise InputError(
        f"images know how to build a UNet, a DiT and an MLP, not {network.__name__}; put Build({network.__name__}, "
        "{...}) into a recipe of your own."
    )


def _split(found: ImageSet) -> Splits:
    training, held_out = split(len(found), 0.2 if len(found) < LARGE else 0.1, seed=0)
    report = str(found.report) if found.report.unreadable else ""
    return Splits(found.subset(training), found.subset(held_out), found.fingerprint, report)


def _states(dataset: Dataset, rng: Rng) -> tuple[Tensor, Tensor | None]:
    """At most ``MEASURED`` images of a set as states, and their labels."""
    values, labels = dataset.take(_some(len(dataset), MEASURED, rng))
    return to_unit(values), labels if isinstance(labels, Tensor) else None


def _spread(values: Tensor, rng: Rng) -> Tensor:
    """Bytes made continuous. Whether an image is mirrored is the first draw of the stream itself, so the noise folds it
    once more: the two must not share a number."""
    return dequantise(values, rng=rng.fold(Stream.AUGMENT).fold(1))


def _some(count: int, most: int, rng: Rng) -> Tensor:
    """The indices of at most ``most`` of ``count`` data, ascending."""
    return torch.arange(count) if count <= most else rng.permutation(count)[:most].sort()[0]


def _keep(folder: Path, classifier: Classifier) -> None:
    tensors, config = classifier.state()
    files = (("weights.safetensors", checkpoint.pack(tensors)), ("config.json", checkpoint.to_json(config)))
    checkpoint.write(folder / "classifier", files)


def _kept(folder: Path) -> Classifier | None:
    """The classifier of an earlier evaluation; none when there is none, or it is damaged."""
    place = folder / "classifier"
    checkpoint.recover(folder)
    if not place.is_dir():
        return None
    try:
        checkpoint.verify(place)
        return Classifier.from_state(checkpoint.read_tensors(place, "weights"), checkpoint.read_json(place, "config"))
    except CheckpointError as error:
        logger.warning("%s Another classifier is trained.", error)
        return None
