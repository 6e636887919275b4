r"""Optimal transport between noise and a whole dataset: each noise finds its datum by itself.

Of all couplings of standard normal noise x0 and the uniform law of N data, the one with the least mean of
``|x0 - x1|**2`` maps each noise to one datum, ``argmin_j |x0 - x1_j|**2 - g_j`` (Aurenhammer, Hoffmann and Aronov
1998). The potentials g are what makes all data be met equally often. They are fitted once, and the coupling then knows
no batches, where :class:`~rheos.couplings.BatchOT` is optimal only among the rows of one (Mousavi-Hosseini et al. 2025,
"Flow matching with semidiscrete couplings").

How unequally data are met is told by ``chi**2 = N sum_j (p_j - 1/N)**2`` with the mass p_j of the cell of datum j: the
mean squared relative error of a frequency, whatever N is. The pairs of any batch are an optimal permutation of each
other, whatever the potentials are.

Limits: potentials of 0 give each noise its nearest datum; one datum takes all noise.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from ...core.condition import Cond
from ...core.errors import DataError, InputError, ShapeError
from ...core.protocols import Pairs, Source
from ...core.rng import Rng, Stream
from ..ignored import warn_ignored
from ..sides import rows_of
from .ascent import Ascent, Limits, Search
from .dense import Dense, Lookup
from .measure import Measured, measure, stream
from .points import Points
from .pruned import Pruned, prunes
from .tree import DIMENSIONS, Tree


@dataclass(frozen=True)
class _Fitted:
    points: Points
    potentials: Tensor
    measured: Measured
    look: Lookup


@final
@dataclass(frozen=True)
class Semidiscrete:
    """The optimal coupling of noise and a dataset. :meth:`fit` it first; ``x1`` of a call is that dataset.

    A fit draws about ``1.5*N/target`` noises, in two or three dimensions several times as many, and looks each up among
    all N data. On the CPU the search skips most of the data where few axes carry most of the variance, and then misses
    the datum of fewer than 1 noise in 10,000, for one that is nearly as good; elsewhere it is exact. Data that are
    equal share a cell, and each noise in it takes one of them by a hash of the noise. The data are held, not copied: do
    not change them in place.

    Args:
        target: the chi-squared to reach: 0.05 means that frequencies are wrong by 22 % (root mean square).
        steps: of the ascent, at most.
        batch: noises a step, at most.
        block: scores in memory at once, at most: 2 or 4 bytes each.
        source: what stands at t = 0; ``None`` is standard normal noise.

    Raises:
        InputError: if a number is out of range.
    """

    target: float = 0.05
    steps: int = 5_000
    batch: int = 8_192
    block: int = 1 << 24
    source: Source[Tensor] | None = None
    _fitted: _Fitted | None = field(default=None, init=False, repr=False, compare=False)

    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.target < math.inf:
            raise InputError(f"the target of chi-squared is a positive number, got {self.target}; 0.05 is usual.")
        for name, least in (("steps", 1), ("batch", 2), ("block", 1 << 12)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    @property
    def fitted(self) -> bool:
        """Whether :meth:`fit` or :meth:`restored` made it."""
        return self._fitted is not None

    @property
    def potentials(self) -> Tensor:
        """g of each datum, float64 (N,), with the mean 0."""
        return self._known().potentials

    @property
    def chi_squared(self) -> float:
        """How unequally data are met, estimated from noise that the fit had not seen; without bias, hence sometimes
        below 0. The standard error is about a tenth of the target."""
        return self._known().measured.chi_squared

    @property
    def converged(self) -> bool:
        """Whether the target was reached."""
        return self.chi_squared <= self.target

    @property
    def cost_ratio(self) -> float:
        """The mean squared distance of pairs, divided by that of independent pairs."""
        measured = self._known().measured
        return measured.cost / measured.independent_cost

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        """Join noise (B, ...) with data of the dataset x1 (N, ...) that was fitted. ``gap`` is ``None``: how far the
        whole coupling is from the optimum is what chi-squared tells.

        Raises:
            DataError: if ``x1`` is another dataset.
            InputError: what :meth:`assign` raises.
        """
        if not self._known().points.same(x1):
            raise DataError(_FOREIGN)
        if cond is not None:
            warn_ignored("semidiscrete transport", "Semidiscrete")
        j = self.assign(x0)
        return Pairs(x0, x1[j], torch.arange(len(x0), device=x0.device), j)

    def fit(self, data: Tensor, cond: Cond | None, rng: Rng) -> Self:
        """The same coupling fitted to data (N, ...), on their device. Warns where the target was not reached.

        Raises:
            ShapeError, InputError: if the data are none, or not finite.
            UndeterminedError: if the potentials diverge.
        """
        if cond is not None:
            warn_ignored("semidiscrete transport", "Semidiscrete")
        points, rng = Points.of(data), Rng.of(rng).joint().fold(Stream.COUPLING)
        search, streams = self._search(points.flat), itertools.count(1)

        def measured(h: Tensor) -> Measured:
            fresh = stream(self.source, points, rng.fold(next(streams)))
            return measure(points, search.at(h), fresh, self.target)

        limits, noise = Limits(self.target, self.steps, self.batch), stream(self.source, points, rng.fold(0))
        h, found = Ascent(points.flat, points.weights, search, noise, limits).run(measured)
        potentials = points.spread(2 * h + points.squares)
        out = self._with(points, potentials - potentials.mean(), found, search)
        if not out.converged:
            warnings.warn(
                f"the semidiscrete coupling was not fitted to its target: chi-squared is {found.chi_squared:.3g}, not "
                f"{self.target:g}, after {self.steps} steps. Data are met less equally than was asked for; give more "
                f"steps, Semidiscrete(steps={4 * self.steps}), or a larger target.",
                stacklevel=2,
            )
        return out

    def assign(self, x0: Tensor, cond: Cond | None = None) -> Tensor:
        """The datum of each noise (B, ...), int64 (B,): a function of the noise alone.

        Raises:
            ShapeError: if a noise is not shaped like a datum.
            InputError: if the coupling is not fitted, or the noise is not finite or not on the device of the data.
        """
        known = self._known()
        data = known.points.data
        if x0.shape[1:] != data.shape[1:] or x0.dim() == 0:
            raise ShapeError(f"noise is shaped like the data, (B, *{tuple(data.shape[1:])}), got {tuple(x0.shape)}.")
        if x0.device != data.device:
            raise InputError(f"the noise is on {x0.device} and the data on {data.device}; bring both to one device.")
        rows = rows_of(x0).to(known.points.flat.dtype)
        if not bool(torch.isfinite(rows).all()):
            raise InputError("the noise is not finite; look for NaN or infinity in it.")
        if not len(rows):
            return torch.empty(0, dtype=torch.int64, device=x0.device)
        return known.points.datum(known.look(rows), rows)

    def tensors(self) -> Mapping[str, Tensor]:
        """The potentials, float64 (N,); the mark of the data, int64; what was measured, float64 (3,)."""
        known = self._known()
        found = known.measured
        return {
            "potentials": known.potentials,
            "data": known.points.mark,
            "measured": torch.tensor([found.chi_squared, found.cost, found.independent_cost], dtype=torch.float64),
        }

    def restored(self, data: Tensor, cond: Cond | None, tensors: Mapping[str, Tensor]) -> Self:
        """The coupling that :meth:`tensors` described, of the same data, on their device.

        Raises:
            DataError: if the potentials are those of another dataset, or not finite.
            InputError: if a tensor is missing.
        """
        missing = {"potentials", "data", "measured"} - tensors.keys()
        if missing:
            raise InputError(f"what was fitted lacks {', '.join(sorted(missing))}; fit the coupling again.")
        points = Points.of(data)
        potentials = tensors["potentials"].to(data.device, torch.float64)
        if potentials.shape != (len(data),) or int(tensors["data"]) != int(points.mark):
            raise DataError(_FOREIGN)
        if not bool(torch.isfinite(potentials).all()):
            raise DataError("the stored potentials are not finite: the file is damaged. Fit the coupling again.")
        return self._with(points, potentials, Measured(*tensors["measured"].tolist()), self._search(points.flat))

    def _with(self, points: Points, potentials: Tensor, measured: Measured, search: Search) -> Self:
        h = (points.gathered(potentials) - points.squares) / 2
        out = replace(self)
        object.__setattr__(out, "_fitted", _Fitted(points, potentials, measured, search.at(h)))
        return out

    def _known(self) -> _Fitted:
        if self._fitted is None:
            raise InputError("this coupling knows no data yet; call fit(data, cond, rng), or restored, first.")
        return self._fitted

    def _search(self, points: Tensor) -> Search:
        """The fastest search among points (n, d). Margins to prune by are known for normal noise only."""
        if points.is_cpu and points.shape[1] <= DIMENSIONS:
            return Tree(points)
        if self.source is None and prunes(points):
            pruned = Pruned.of(points, self.block)
            if pruned.pays:
                return pruned
        return Dense(points, self.block)


_FOREIGN = (
    "the potentials are those of another dataset: its rows, their order or their number differ from what was fitted. "
    "Give the data that the coupling was fitted to, or fit it again."
)
