"""What turns images into features, in which distances between distributions are then measured.

A figure is only as comparable as its features, so every extractor has a name that says which one it is, with a hash of
its weights, and the figure carries it: ``Frechet distance (cnn-digits-1f3a09bc)``. It is called FID only on the FID
Inception network. In order of preference: a user's Inception weights; a classifier trained on the labels at hand; and
with no labels a fixed network of random weights, which knows nothing of the classes but sees local structure (Naeem
et al. 2020 recommend it for images far from ImageNet). For vectors, the values themselves.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from typing import Protocol, final

import torch
from torch import Tensor, nn

from ..core import Rng, ShapeError

BATCH = 500
"""Images that go through a network at once."""


class FeatureExtractor(Protocol):
    """Images ``(N, C, H, W)`` in [-1, 1] to features ``(N, D)``; each row depends on its own image alone."""

    @property
    def name(self) -> str:
        """Which extractor this is; equal names give equal features."""
        ...

    def __call__(self, images: Tensor) -> Tensor: ...


@final
class Values:
    """The numbers themselves, flattened: features of vectors, or of pixels where nothing better is at hand."""

    name = "values"

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@final
class RandomFeatures:
    """A fixed convolutional network with random weights, for images without labels. Named ``random-cnn-<hash>``.

    Three 3x3 convolutions (He initialisation, ReLU, each but the last followed by 2x2 average pooling); the features
    are the mean and the standard deviation of each channel of the last one over the image, ``(N, 2 * width)``. The
    Frechet distance on them ranks models of one data set; its size means nothing beyond its floor.

    Args:
        channels: of the images.
        rng: draws the weights; figures that are compared must share it.
        width: channels of the last convolution.

    Raises:
        ShapeError: on a call, if the images have other channels or a side below 4.
    """

    def __init__(self, channels: int, rng: Rng | torch.Generator | int, width: int = 128) -> None:
        rng = Rng.of(rng)
        sizes = (channels, width // 4, width // 2, width)
        self._weights = [
            rng.fold(layer).normal(out, into, 3, 3) * (2.0 / (9 * into)) ** 0.5
            for layer, (into, out) in enumerate(itertools.pairwise(sizes))
        ]
        self.name = f"random-cnn-{digest({str(i): weight for i, weight in enumerate(self._weights)})}"

    def __call__(self, images: Tensor) -> Tensor:
        check_images(images, self._weights[0].shape[1], 4)
        return batched(self._features, images)

    def _features(self, images: Tensor) -> Tensor:
        x = images
        for layer, weight in enumerate(self._weights):
            x = x if layer == 0 else nn.functional.avg_pool2d(x, 2)
            x = nn.functional.conv2d(x, weight.to(x.device), padding=1).relu()
        return torch.cat([x.mean((2, 3)), x.flatten(2).std(2, correction=0)], 1)


def batched(function: Callable[[Tensor], Tensor], images: Tensor, size: int = BATCH) -> Tensor:
    """``function`` of the images, ``size`` at a time, as float32 and without gradients."""
    with torch.no_grad():
        return torch.cat([function(part.to(torch.float32)) for part in images.split(size)])


def check_images(images: Tensor, channels: int, side: int) -> None:
    """Refuse what is not at least one image ``(N, channels, H, W)`` with sides of at least ``side``."""
    if images.dim() != 4 or len(images) == 0 or images.shape[1] != channels or min(images.shape[2:]) < side:
        raise ShapeError(
            f"expected images (N, {channels}, H, W) with H and W at least {side}, got shape {tuple(images.shape)}."
        )


def digest(state: Mapping[str, Tensor]) -> str:
    """Eight hexadecimal digits of the SHA-256 of tensors and their names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:8]
