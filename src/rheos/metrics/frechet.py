"""The Frechet distance between Gaussians with the moments of two clouds of features (Dowson and Landau 1982).

``d^2 = |m - n|^2 + tr A + tr B - 2 tr (A B)^(1/2)``, with means ``m, n`` and covariances ``A, B``: the squared
2-Wasserstein distance of the two Gaussians. On the features of the FID Inception network it is the FID (Heusel et al.
2017); on those of anything else it bears that extractor's name.

``tr (A B)^(1/2)`` is the sum of the singular values of ``A^(1/2) B^(1/2)``. With the symmetric decompositions
``A = U diag(a) U'`` and ``B = V diag(b) V'`` these are the singular values of ``diag(sqrt a) U' V diag(sqrt b)``. No
square root of a non-symmetric matrix is taken, and directions of zero variance are left out, so that fewer samples
than dimensions are no special case. (The eigenvalues of ``A^(1/2) B A^(1/2)`` are the same numbers squared: taking
their roots would turn rounding of 1e-16 into 1e-8.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core import ShapeError
from .pairwise import as_points


@final
@dataclass(frozen=True)
class Moments:
    """The count, mean and scatter of points seen so far, in float64. ``a + b`` are the moments of both clouds together.

    Attributes:
        count: N.
        mean: ``(D,)``.
        scatter: ``sum (x - mean)(x - mean)'``, ``(D, D)``.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def of(features: Tensor) -> Moments:
        """The moments of features ``(N, ...)``.

        Raises:
            ShapeError: if there is no point.
            InputError: if a number is not finite.
        """
        points = as_points(features, "features")
        mean = points.mean(0)
        centred = points - mean
        return Moments(len(points), mean, centred.T @ centred)

    @staticmethod
    def stream(batches: Iterable[Tensor]) -> Moments:
        """The moments of all batches together, held one batch at a time.

        Raises:
            ShapeError: if there is no batch, or their dimensions differ.
        """
        total: Moments | None = None
        for batch in batches:
            total = Moments.of(batch) if total is None else total + Moments.of(batch)
        if total is None:
            raise ShapeError("moments need at least one batch of features, got none.")
        return total

    def __add__(self, other: Moments) -> Moments:
        """Chan, Golub and LeVeque (1979): nothing is lost to cancellation, whatever the offset of the data."""
        self._check(other)
        count = self.count + other.count
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        between = torch.outer(gap, gap) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance ``scatter / (N - 1)``, ``(D, D)``.

        Raises:
            ShapeError: if there are fewer than two points.
        """
        if self.count < 2:
            raise ShapeError(f"a covariance needs at least two points, got {self.count}.")
        return self.scatter / (self.count - 1)

    def distance(self, other: Moments) -> float:
        """The (squared) Frechet distance to ``other``: never negative, symmetric, 0 for equal moments.

        Raises:
            ShapeError: if the dimensions differ or a side has fewer than two points.
        """
        self._check(other)
        root_a, basis_a = _root(self.covariance)
        root_b, basis_b = _root(other.covariance)
        core = root_a[:, None] * (basis_a.T @ basis_b) * root_b
        cross = float(torch.linalg.svdvals(core).sum()) if core.numel() else 0.0
        gap = float((self.mean - other.mean).square().sum())
        return max(0.0, gap + float(root_a.square().sum() + root_b.square().sum()) - 2.0 * cross)

    def to(self, device: torch.device) -> Moments:
        """The same moments on ``device``."""
        return Moments(self.count, self.mean.to(device), self.scatter.to(device))

    def _check(self, other: Moments) -> None:
        if self.mean.shape != other.mean.shape:
            raise ShapeError(
                f"features of one extractor have one dimension, got {len(self.mean)} and {len(other.mean)}; "
                "use the same extractor on both."
            )


def _root(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The positive standard deviations ``(R,)`` along the principal axes, and these axes ``(D, R)``."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1].clamp(min=0.0) * len(values) * torch.finfo(values.dtype).eps
    return values[kept].sqrt(), vectors[:, kept]


def frechet_distance(features_x: Tensor, features_y: Tensor) -> float:
    """The (squared) Frechet distance between the Gaussians of two clouds of features.

    Its value at equal distributions is not 0 but falls as 1/N: compare at equal sizes, beside its floor.

    Args:
        features_x: ``(N, ...)``, N at least 2.
        features_y: ``(M, ...)``, M at least 2.

    Raises:
        ShapeError: if the dimensions differ or a side has fewer than two points.
        InputError: if a number is not finite.
    """
    return Moments.of(features_x).distance(Moments.of(features_y).to(features_x.device))
