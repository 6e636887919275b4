"""A small classifier, trained on the spot, that reads classes and lends its features.

The network is a stem and stages of two 3x3 convolutions with batch norm; a stage halves the sides, and there are as
many as bring the shorter side to about 4. Global average pooling gives the features ``(N, D)``, a linear layer the
classes. Training is AdamW on a one-cycle rate with small random shifts and label smoothing; the whole of it is a
function of ``rng`` and the data (bit by bit on one machine with one number of threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from ..core import CheckpointError, InputError, Rng, ShapeError, Stream
from .features import batched, check_images, digest

SMALLEST = 8
"""The shortest side of an image that a classifier takes."""

MOST_HELD_OUT = 5_000
"""Images at most that are set aside to measure the accuracy when none are given."""


@final
class Convolutions(nn.Module):
    """The classifier's network: images ``(N, C, H, W)`` to logits ``(N, K)``."""

    def __init__(self, channels: int, classes: int, width: int, stages: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(channels, width)]
        for stage in range(stages):
            into, out = width << min(stage, 2), width << min(stage + 1, 2)
            layers += [*_convolution(into, out), nn.MaxPool2d(2, ceil_mode=True)]
        last = width << min(stages, 2)
        self.trunk = nn.Sequential(*layers, *_convolution(last, last))
        self.head = nn.Linear(last, classes)

    def features(self, images: Tensor) -> Tensor:
        """The pooled features ``(N, D)``."""
        return self.trunk(images.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _convolution(into: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)


@final
@dataclass(frozen=True)
class Architecture:
    """The four numbers from which the network is rebuilt."""

    channels: int
    classes: int
    width: int
    stages: int


@final
@dataclass(frozen=True)
class Classifier:
    """A trained classifier; a :class:`FeatureExtractor`, and the measure of class agreement.

    Attributes:
        network: in evaluation mode.
        architecture: what it was built from.
        name: ``cnn-<data>-<hash of the weights>``.
        accuracy: the share of held-out images that it reads right.
    """

    network: Convolutions
    architecture: Architecture
    name: str
    accuracy: float

    def __call__(self, images: Tensor) -> Tensor:
        return self.features(images)

    def features(self, images: Tensor) -> Tensor:
        """Features ``(N, D)`` of images ``(N, C, H, W)`` in [-1, 1].

        Raises:
            ShapeError: if the images have other channels than the training images, or a side below 8.
        """
        return self._apply(self.network.features, images)

    def logits(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)``; errors as :meth:`features`."""
        return self._apply(self.network, images)

    def predict(self, images: Tensor) -> Tensor:
        """The most likely class, int64 ``(N,)``; errors as :meth:`features`."""
        return self.logits(images).argmax(1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors for safetensors, and a dictionary for JSON, from which :meth:`from_state` rebuilds it."""
        tensors = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        return tensors, {"name": self.name, "accuracy": self.accuracy, **asdict(self.architecture)}

    @staticmethod
    def from_state(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Classifier:
        """The classifier that :meth:`state` described.

        Raises:
            CheckpointError: if the configuration lacks an entry, or the weights are not those that it names.
        """
        try:
            architecture = Architecture(*(int(config[key]) for key in ("channels", "classes", "width", "stages")))
            name, accuracy = str(config["name"]), float(config["accuracy"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"a classifier's configuration is damaged: {error!r}; train it again.") from error
        network = _build(architecture, 0)
        try:
            network.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit classifier {name}; train it again. ({error})") from error
        if not name.endswith(digest(network.state_dict())):
            raise CheckpointError(f"the weights are not those of {name}: their hash differs; train it again.")
        return Classifier(network.eval(), architecture, name, accuracy)

    def _apply(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        check_images(images, self.architecture.channels, SMALLEST)
        device = self.network.head.weight.device
        return batched(function, images.to(device)).to(images.device)


def class_agreement(classifier: Classifier, samples: Tensor, labels: Tensor) -> float:
    """The share of samples that the classifier reads as the class they were asked for; at best about its accuracy.

    Args:
        samples: ``(N, C, H, W)`` in [-1, 1].
        labels: ``(N,)`` integers; samples of unknown class (-1) are left out.

    Raises:
        ShapeError: if there is not one label a sample.
        InputError: if no class is known.
    """
    _check_labels(samples, labels)
    known = labels >= 0
    if not bool(known.any()):
        raise InputError("class agreement needs samples that were asked for by class; all labels are -1 (unknown).")
    return float((classifier.predict(samples[known]) == labels[known]).double().mean())


def train_classifier(
    images: Tensor,
    labels: Tensor,
    rng: Rng | torch.Generator | int,
    *,
    held_out: tuple[Tensor, Tensor] | None = None,
    data: str = "images",
    epochs: int | None = None,
    limit: int | None = None,
    width: int | None = None,
    batch: int = 128,
    rate: float = 5e-3,
) -> Classifier:
    """Train a classifier on labelled images.

    Args:
        images: ``(N, C, H, W)`` in [-1, 1], sides at least 8; on the device to train on.
        labels: ``(N,)`` integers 0 .. K-1; rows of unknown class (-1) are left out.
        rng: weights, order and shifts.
        held_out: images and labels on which the accuracy is measured. Left out, a tenth of the data (at most
            :data:`MOST_HELD_OUT`) is drawn by ``rng`` and not trained on.
        data: what the data are called, for the name.
        epochs: passes over the data. Left out, as many as make about 700 steps, and at least 2.
        limit: images at most to train on, drawn by ``rng``.
        width: channels of the stem; the features have up to four times as many. Left out, 32 for sides
            below 16, else 16.
        batch: images a step.
        rate: the highest learning rate.

    Raises:
        ShapeError: if the images are not as stated, or there is not one label an image.
        InputError: if there are fewer than two classes, or too few images.
    """
    rng = Rng.of(rng)
    images, labels = _known(images, labels)
    if held_out is None:
        order = rng.fold(Stream.CONDITION).permutation(len(images)).to(images.device)
        count = min(MOST_HELD_OUT, max(1, len(images) // 10))
        held_out = images[order[:count]], labels[order[:count]]
        images, labels = images[order[count:]], labels[order[count:]]
    if limit is not None and limit < len(images):
        order = rng.fold(Stream.PROBE).permutation(len(images))[:limit].to(images.device)
        images, labels = images[order], labels[order]
    if len(images) < 2:
        raise InputError(f"a classifier needs at least two images to train on, got {len(images)}.")
    side = min(images.shape[2:])
    classes = 1 + int(torch.cat([labels, held_out[1].to(labels.device)]).max())
    stages = max(1, round(math.log2(side / 4)))
    architecture = Architecture(images.shape[1], classes, width or (32 if side < 16 else 16), stages)
    network = _build(architecture, int(rng.fold(Stream.WEIGHTS).key)).to(images.device)
    batch = min(batch, len(images))
    epochs = epochs or max(2, round(700 * batch / len(images)))
    _fit(network, images.to(torch.float32), labels, rng, epochs, batch, rate)
    classifier = Classifier(network.eval(), architecture, f"cnn-{data}-{digest(network.state_dict())}", math.nan)
    accuracy = class_agreement(classifier, *held_out)
    return Classifier(network, architecture, classifier.name, accuracy)


def _fit(network: Convolutions, images: Tensor, labels: Tensor, rng: Rng, epochs: int, batch: int, rate: float) -> None:
    """One cycle of AdamW; an epoch's last incomplete batch is left to the next shuffle."""
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.2)
    network.train()
    with torch.enable_grad():
        for epoch in range(epochs):
            keys = rng.fold(Stream.ORDER).fold(epoch)
            order = keys.permutation(len(images)).to(images.device)
            for step, rows in enumerate(order.split(batch)):
                if len(rows) < batch:
                    break
                shifted = shift(images[rows], keys.fold(Stream.AUGMENT).fold(step))
                loss = nn.functional.cross_entropy(network(shifted), labels[rows], label_smoothing=0.05)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                cycle.step()


def shift(images: Tensor, rng: Rng) -> Tensor:
    """Move each image ``(N, C, H, W)`` by up to a 14th of its side, at least a pixel, repeating its border."""
    count, _, height, width = images.shape
    reach = max(1, min(height, width) // 14)
    moves = (rng.uniform(2, count).to(images.device) * (2 * reach + 1)).long() - reach
    rows = (torch.arange(height, device=images.device) + moves[0, :, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + moves[1, :, None]).clamp(0, width - 1)
    each = torch.arange(count, device=images.device)[:, None, None]
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _build(architecture: Architecture, seed: int) -> Convolutions:
    """The network with weights that are a function of ``seed``; the global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Convolutions(**asdict(architecture))


def _known(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The images of known class and their classes."""
    check_images(images, images.shape[1] if images.dim() == 4 else 1, SMALLEST)
    _check_labels(images, labels)
    labels = labels.to(images.device, torch.int64)
    known = labels >= 0
    found = labels[known].unique()
    if len(found) < 2:
        raise InputError(
            f"a classifier needs at least two classes, got {len(found)}; use metrics.RandomFeatures on such data."
        )
    return images[known], labels[known]


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ShapeError(
            f"expected one integer label an image, ({len(images)},), got {labels.dtype} of shape {tuple(labels.shape)}."
        )
