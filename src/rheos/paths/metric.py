r"""Metrics that data make: moving is cheap where there are data, and dear elsewhere.

A metric gives the diagonal of G(x), positive; a curve with derivative dx costs ``sum_a G_a(x)*dx_a**2`` a unit of time.
Paths of least cost stay near the data and go along them (Kapusniak et al. 2024, "Metric flow matching"). Two of them,
both ``G = 1/(h + floor)``:

- :class:`LAND` (Arvanitidis et al. 2016): ``h_a(x) = sum_i (x_ia - x_a)**2 * exp(-|x - x_i|**2/(2*width**2))`` over
  the data x_i: the local variance along each axis, so that also directions differ. For few dimensions.
- :class:`RBF` (Arvanitidis et al. 2021): ``h(x) = sum_k w_k * exp(-|x - c_k|**2/(2*s_k**2))`` over the centres of
  clusters, with ``s_k = spread`` times the mean distance of a cluster's data to its centre, and weights ``w >= 0`` such
  that h is 1 on the data, in least squares. It sees places alone, and holds in many dimensions.

What fitting finds is kept in buffers of a module, so that a run's checkpoints hold it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, final

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from ..core.errors import InputError, ShapeError
from ..core.rng import Rng

ROUNDS = 25
"""Rounds of Lloyd's algorithm; the centres need not be the best, only spread over the data."""

FITTED = 4_096
"""Data to which the weights of an RBF metric are fitted, at most."""


class Metric(Protocol):
    """A diagonal metric."""

    @property
    def held(self) -> nn.Module:
        """What fitting found."""
        ...

    def fit(self, data: Tensor, rng: Rng) -> Self:
        """The same metric of data (N, ...)."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """The diagonal of G at states (B, ...), of their shape, or (B, 1, ...) where all entries are alike."""
        ...


@final
class Held(nn.Module):
    """Tensors that fitting fills, of shapes that are known before."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.ready = False
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_load_state_dict_post_hook(_loaded)

    def fill(self, **tensors: Tensor) -> None:
        """Take over what was found."""
        for name, value in tensors.items():
            self.register_buffer(name, value.detach().to(torch.float32))
        self.ready = True

    def take(self, *names: str) -> list[Tensor]:
        """The tensors of these names.

        Raises:
            InputError: before they were found.
        """
        if not self.ready:
            raise InputError("a metric is made by data: call metric.fit(data, rng), and give the objective the result.")
        return [self.get_buffer(name) for name in names]


def _loaded(module: Any, keys: Any) -> None:
    module.ready = True


@final
@dataclass(frozen=True)
class LAND:
    """The metric of the local variance of the data.

    Args:
        shape: the shape of one state.
        width: how far a datum is felt, in the unit of the data. Where none is felt all directions cost alike, so it
            should reach from the straight lines to the data.
        floor: the variance below which nothing gets cheaper.
        points: data that are kept.

    Raises:
        InputError: if a number is not positive.
    """

    shape: tuple[int, ...]
    width: float
    floor: float = 1e-3
    points: int = 512
    held: Held = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = _size(self.shape, points=self.points, width=self.width, floor=self.floor)
        object.__setattr__(self, "held", Held(mean=(size,), data=(self.points, size)))

    def fit(self, data: Tensor, rng: Rng) -> LAND:
        """The metric of data (N, ...); of ``points`` of them where there are more."""
        mean, points = _centred(data, self.shape)
        kept = points[_shuffled(points, rng)[: self.points]]
        out = replace(self, points=len(kept))
        out.held.fill(mean=mean, data=kept)
        return out

    def __call__(self, x: Tensor) -> Tensor:
        """The diagonal of G at states (B, ...), of their shape."""
        mean, data = self.held.take("mean", "data")
        with torch.autocast(x.device.type, enabled=False):
            y = x.flatten(1).to(data.dtype) - mean
            near = _kernels(y, data, self.width)
            # The square multiplied out, so that no (B, N, d) is held.
            variance = near @ data.square() - 2 * y * (near @ data) + y.square() * near.sum(1, keepdim=True)
        return (1 / (variance.clamp(min=0.0) + self.floor)).reshape(x.shape).to(x.dtype)


@final
@dataclass(frozen=True)
class RBF:
    """The metric of the places where data are.

    Args:
        shape: the shape of one state.
        centres: clusters of the data.
        spread: width of each cluster's kernel, in units of the mean distance of its data to its centre.
        floor: what is far from all data costs ``1/floor``, what is among them about 1.

    Raises:
        InputError: if a number is not positive.
    """

    shape: tuple[int, ...]
    centres: int = 32
    spread: float = 3.0
    floor: float = 1e-2
    held: Held = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = _size(self.shape, centres=self.centres, spread=self.spread, floor=self.floor)
        many = (self.centres,)
        object.__setattr__(self, "held", Held(mean=(size,), centres=(*many, size), widths=many, weights=many))

    def fit(self, data: Tensor, rng: Rng) -> RBF:
        """The metric of data (N, ...); with a centre a datum where there are fewer than centres."""
        mean, points = _centred(data, self.shape)
        order = _shuffled(points, rng)
        centres, owner = _clusters(points, points[order[: self.centres]])
        distance = (points - centres[owner]).norm(dim=1)
        sums = torch.zeros_like(centres[:, 0]).index_add_(0, owner, distance)
        widths = sums / torch.bincount(owner, minlength=len(centres)).clamp(min=1)
        if not bool(distance.sum() > 0):
            raise InputError(f"{len(data)} data in {len(centres)} clusters have no width; take fewer centres.")
        # A cluster of one datum has no width of its own.
        widths = self.spread * torch.where(widths > 0, widths, distance.mean())
        seen = points[order[:FITTED]]
        kernels = _kernels(seen, centres, widths).double().cpu().numpy()
        weights = torch.from_numpy(nnls(kernels, np.ones(len(seen)))[0])
        out = replace(self, centres=len(centres))
        out.held.fill(mean=mean, centres=centres, widths=widths, weights=weights.to(centres.device))
        return out

    def __call__(self, x: Tensor) -> Tensor:
        """The entry of G at states (B, ...), that all share: (B, 1, ...)."""
        mean, centres, widths, weights = self.held.take("mean", "centres", "widths", "weights")
        with torch.autocast(x.device.type, enabled=False):
            kernels = _kernels(x.flatten(1).to(mean.dtype) - mean, centres, widths)
        height = (kernels * weights).sum(1)
        return (1 / (height + self.floor)).reshape(-1, *[1] * (x.dim() - 1)).to(x.dtype)


def _clusters(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: centres (K, d), and to which each point belongs. A centre that loses its points stays."""
    owner = torch.cdist(points, centres).argmin(1)
    for _ in range(ROUNDS):
        count = torch.bincount(owner, minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        centres = torch.where(count > 0, sums / count.clamp(min=1), centres)
        owner = torch.cdist(points, centres).argmin(1)
    return centres, owner


def _kernels(x: Tensor, centres: Tensor, widths: Tensor | float) -> Tensor:
    """``exp(-|x - c|^2/(2*width^2))``, (B, K). By products of matrices: both are to be near the origin."""
    squares = x.square().sum(1)[:, None] + centres.square().sum(1) - 2 * x @ centres.T
    return torch.exp(-squares.clamp(min=0.0) / (2 * widths**2))


def _centred(data: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The mean (d,) of data and their distances from it (N, d)."""
    if data.shape[1:] != shape or not len(data):
        raise ShapeError(f"this metric is made by data {('N', *shape)}, got {tuple(data.shape)}.")
    if not bool(data.isfinite().all()):
        raise InputError("a metric is made by finite data; drop the rows that are not.")
    points = data.flatten(1).to(torch.float64)
    mean = points.mean(0)
    return mean.to(torch.float32), (points - mean).to(torch.float32)


def _shuffled(points: Tensor, rng: Rng) -> Tensor:
    return rng.permutation(len(points)).to(points.device)


def _size(shape: tuple[int, ...], **numbers: float) -> int:
    """Numbers in a state of this shape."""
    if not shape or min(shape) < 1:
        raise InputError(f"a state has at least one number, got the shape {shape}.")
    for name, value in numbers.items():
        if isinstance(value, bool) or not value > 0:
            raise InputError(f"{name} must be positive, got {value!r}.")
    return math.prod(shape)
