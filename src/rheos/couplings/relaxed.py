r"""Couplings that may leave data out: partial and unbalanced transport, for data with outliers.

Every noise is joined, so that what stands at t = 0 keeps its law; the data need not be met equally often. That is a
choice to model other data than those given: fewer of them where transport is dear.

- Partial: n noises go to a share of the data's mass, wherever it costs least in all (Figalli 2010; Chapel, Alaya and
  Gasso 2020). No datum is met more than 1/share times as often as it should be.
- Unbalanced: any frequencies q of the data, at the price ``penalty * KL(q | uniform)`` (Chizat et al. 2018; Eyring et
  al. 2024, "Unbalancedness in neural Monge maps improves unpaired domain translation").

Both plans are POT's, and pairs are drawn from them.

Limits: share = 1 and penalty -> infinity are balanced; share -> 0 and penalty = 0 give each noise its nearest datum.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.condition import Cond
from ..core.errors import InputError, MissingExtraError, RheosError
from ..core.protocols import Pairs
from ..core.rng import Rng
from .assignment.installed import pot
from .ignored import warn_ignored
from .sides import sides

Matrix = NDArray[np.float64]

FARTHEST = 600.0
"""The cost of a datum above a noise's nearest one, in units of epsilon, at which it is lost in rounding."""

ITERATIONS = 10_000

CHANGE = 1e-9
"""Of a potential from one iteration to the next, at which they end."""

TOLERANCE = 1e-3
"""Of the noise's marginal, relative. Pairs are drawn from rows that are made whole."""


@final
@dataclass(frozen=True)
class Partial:
    """Pairs of a batch that leave out the data which are dearest to reach.

    Args:
        share: the share of the data's mass that is met, above 0 and at most 1.

    Raises:
        InputError: if the share is out of range.
    """

    share: float = 0.9

    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"the share of data that is met is above 0 and at most 1, got {self.share}.")

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        """Join noise (n, ...) and data (m, ...).

        Raises:
            MissingExtraError: if POT is not installed.
            ShapeError: if the shapes of a row differ, or there is none.
            InputError: if a distance is not finite, or there is no rng.
        """
        if cond is not None:
            warn_ignored("partial transport", "Partial")
        cost, solver = _costs(x0, x1), _solver(self)
        n, m = cost.shape
        with warnings.catch_warnings():
            # POT allows 100,000 pivots by default, and only warns when that was too few.
            warnings.simplefilter("error")
            noise, data = np.full(n, self.share / n), np.full(m, 1 / m)
            mass = min(noise.sum(), data.sum())
            plan = solver.partial.partial_wasserstein(noise, data, cost, m=mass, numItermax=2**31 - 1)
        return _drawn(plan, x0, x1, rng)


@final
@dataclass(frozen=True)
class Unbalanced:
    """Pairs of a batch in which dear data are met less often than others.

    Args:
        penalty: the price of unequal frequencies, in units of the batch's mean squared distance.
        epsilon: the weight of the plan's entropy, in the same units.

    Raises:
        InputError: if one of them is not positive and finite.
    """

    penalty: float = 1.0
    epsilon: float = 0.05

    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("penalty", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive and finite, got {getattr(self, name)}.")

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        """Join noise (n, ...) and data (m, ...).

        Raises:
            MissingExtraError: if POT is not installed.
            ShapeError: if the shapes of a row differ, or there is none.
            InputError: if a distance is not finite, or there is no rng.
            RheosError: if the plan did not converge.
        """
        if cond is not None:
            warn_ignored("unbalanced transport", "Unbalanced")
        cost, solver = _costs(x0, x1), _solver(self)
        scale = float(cost.mean()) or 1.0
        epsilon = self.epsilon * scale
        # A constant of a row changes nothing, since each noise is joined, and keeps its row from underflow.
        cost = cost - cost.min(1, keepdims=True)
        near = cost.min(0) < FARTHEST * epsilon
        n, m = cost.shape
        with warnings.catch_warnings():
            # What matters is checked below.
            warnings.simplefilter("ignore")
            found = solver.unbalanced.sinkhorn_unbalanced(
                np.full(n, 1 / n),
                np.full(m, 1 / m)[near],
                cost[:, near],
                epsilon,
                (math.inf, self.penalty * scale),
                method="sinkhorn_translation_invariant",
                reg_type="entropy",
                numItermax=ITERATIONS,
                stopThr=CHANGE,
            )
        error = float(np.abs(found.sum(1) * n - 1).max())
        if not error <= TOLERANCE:
            raise RheosError(
                f"unbalanced transport of {n} noises and {m} data did not converge: after {ITERATIONS} iterations the "
                f"marginal of the noise is wrong by {error:.2g}. Give a larger epsilon than {self.epsilon:g}, or use "
                "couplings.Partial()."
            )
        plan = np.zeros((n, m))
        plan[:, near] = found
        return _drawn(plan, x0, x1, rng)


def _solver(coupling: Partial | Unbalanced) -> ModuleType:
    found = pot()
    if found is None:
        raise MissingExtraError(
            f"couplings.{type(coupling).__name__} needs POT, which is not installed: pip install 'rheos[ot]'. "
            "BatchOT, Sinkhorn and Semidiscrete do without."
        )
    return found


def _costs(x0: Tensor, x1: Tensor) -> Matrix:
    """Squared distances (n, m)."""
    x, y = sides(x0, x1)
    cost = torch.cdist(x.double(), y.double()).square_()
    return cost.cpu().numpy()


def _drawn(plan: Matrix, x0: Tensor, x1: Tensor, rng: Rng | None) -> Pairs[Tensor]:
    """A datum for each noise, from the plan's law given that noise."""
    if rng is None:
        raise InputError("pairs are drawn from the plan, which takes an rng; give one.")
    cumulated = torch.from_numpy(plan).cumsum(1)
    level = Rng.of(rng).per_row(len(x0), x0.device).uniform(dtype=torch.float64).cpu()[:, None] * cumulated[:, -1:]
    j = torch.searchsorted(cumulated, level)[:, 0].to(x0.device)
    return Pairs(x0, x1[j], torch.arange(len(x0), device=x0.device), j)
