r"""Optimal transport within a batch: the permutation of the noise that is nearest to the data.

The pairs minimise ``sum |x0[i] - x1[j]|**2`` over permutations (Tong et al. 2024; Pooladian et al. 2023). A permutation
uses every row once, where a sampled transport plan would lose a third of them. Noise and data are then dependent: there
is no score any more.

A constant for each row and each column changes no assignment, so that ``-2 <x1[j], x0[i]>`` stands for the distance,
of centred data and noise for the sake of rounding. How the assignment is found depends on dimension d and size n:

- d = 1: both sides in order, which is exact.
- n up to ``SMALL``, or ``SMALL_IN_FEW``: augmenting paths on all pairs, which are exact; lapx where it is installed,
  else SciPy.
- d up to 3 and n above ``LARGE``: binary space partitions, where POT is installed. They keep no matrix of all pairs.
- all else: an exact assignment of the few pairs with the smallest reduced costs, by potentials that are given or are
  estimated by annealed entropic transport, with a bound by duality. Where the bound does not come down, all pairs: by
  the network simplex of POT for d up to 3, else as for small n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.errors import InputError, RheosError, ShapeError
from ..core.protocols import Pairs
from ..core.rng import Rng
from .assignment.dense import dense
from .assignment.entropic import FEW, potentials
from .assignment.line import line
from .assignment.partition import partition
from .assignment.reduced import Enough, proved, reduced
from .assignment.simplex import simplex
from .ignored import warn_ignored
from .sides import require_finite, require_one_device

SMALL = 256
"""Rows up to which augmenting paths on all pairs are the quickest."""

SMALL_IN_FEW = 160
"""The same in three dimensions or fewer, where paths are long."""

LARGE = 8192
"""Rows beyond which no matrix of all pairs is made in three dimensions or fewer."""

ENOUGH = 5e-3
"""The gap that an assignment may have unless it is to be exact. What it has is a tenth of its bound, usually."""

PROOF = 1e-9
"""The gap that counts as none, in float64."""

FITTING = 0.25
"""How wrong known potentials may be, in units of the reduced costs that are looked at. Estimates for the batch itself
reach 0.03, those of a dataset of many dimensions 0.15; in few dimensions batches differ too much from one another."""


@final
@dataclass(frozen=True)
class BatchOT:
    """Pairs by assignment on the squared distance; the data keep their rows, so that conditions stay in place.

    Args:
        exact: compute in float64, and prove by duality that no permutation costs less: potentials f of the data and g
            of the noise with ``f[j] + g[i] <= c[j, i]`` for all pairs and a sum that is the cost of the assignment but
            for a relative ``1e-9``.
    """

    exact: bool = False

    independent: ClassVar[bool] = False

    def __call__(
        self,
        x0: Tensor,
        x1: Tensor,
        cond: Cond | None = None,
        rng: Rng | None = None,
        *,
        potentials: Tensor | None = None,
    ) -> Pairs[Tensor]:
        """Join noise (B, ...) and data (B, ...).

        ``gap`` is 0 where the solver is exact, and else what the bound by duality leaves open, some 0.2 % and at most
        0.5 %; with partitions some 5 %. It holds up to the rounding of the costs, which are of the states' own
        precision, float32 at least, and of float64 with ``exact``.

        Args:
            x0: noise (B, ...).
            x1: data (B, ...), on the same device.
            cond: the condition of each row, which is ignored with a warning, once for each place of calling.
            rng: chooses the planes of partitions; nothing else is random.
            potentials: where they are known, dual potentials g of the data (B,), such as those of a whole dataset, for
                the cost ``c[i, j] = |x0[i] - x1[j]|**2`` and ``f[i] = min_j c[i, j] - g[j]``. They take the place of
                the estimate where they are of use, and never with ``exact``.

        Raises:
            ShapeError: if the shapes differ or are empty.
            InputError: if a distance or a potential is not finite.
            RheosError: if ``exact``, and rounding leaves no proof.
        """
        _check(x0, x1, potentials)
        if cond is not None:
            warn_ignored("optimal transport within a batch", "BatchOT")
        batch = _Batch.of(x0, x1, self.exact)
        i, slack = _exactly(batch) if self.exact else _assigned(batch, potentials, rng)
        gap = slack and slack / (batch.cost(i) or 1.0)
        # Indexing by brackets takes five times as long.
        return Pairs(x0.index_select(0, i), x1, i, torch.arange(len(i), device=i.device), gap)


class _Batch(NamedTuple):
    """Noise and data as rows (n, d), as they came and centred."""

    noise: Tensor
    data: Tensor
    x0: Tensor
    x1: Tensor

    @staticmethod
    def of(x0: Tensor, x1: Tensor, wide: bool) -> _Batch:
        dtype = torch.float64 if wide or torch.float64 in (x0.dtype, x1.dtype) else torch.float32
        noise, data = (x.detach().reshape(x.shape[0], -1).to(dtype) for x in (x0, x1))
        require_finite(noise, data)
        return _Batch(noise, data, noise - noise.mean(0), data - data.mean(0))

    @property
    def few(self) -> bool:
        return self.data.shape[1] <= FEW

    @property
    def small(self) -> bool:
        return len(self.data) <= (SMALL_IN_FEW if self.few else SMALL)

    def products(self) -> Tensor:
        """The costs ``-2 <x1[j], x0[i]>`` of data (rows) and noise (columns), anew at each call."""
        return torch.addmm(self.x1.new_empty(()), self.x1, self.x0.T, beta=0, alpha=-2)

    def cost(self, i: Tensor) -> float:
        """What it costs that the data take the noise i."""
        return float(torch.linalg.vector_norm(self.noise.index_select(0, i).sub_(self.data))) ** 2

    def within(self, allowed: float, rounding: float = 0.0) -> Enough:
        def within(i: Tensor, slack: float) -> bool:
            cost = self.cost(i)
            return slack + rounding <= allowed * cost or cost == 0.0

        return within

    def rounding(self) -> float:
        """What rounding can change at most in the difference of two sums of n costs."""
        n, d = self.data.shape
        longest = [float(x.square().sum(1).max().sqrt()) for x in (self.x0, self.x1)]
        return 4 * n * (d + 2) * torch.finfo(self.data.dtype).eps * longest[0] * longest[1]


def _assigned(batch: _Batch, given: Tensor | None, rng: Rng | None) -> tuple[Tensor, float]:
    """The noise of each datum, and a bound of what it costs above the optimum."""
    n, d = batch.data.shape
    if d == 1:
        return line(batch.data, batch.noise), 0.0
    found = None
    if batch.few and n > LARGE:
        seed = 0 if rng is None else int(Rng.of(rng).joint().bits()) & 0x7FFFFFFF
        found = partition(batch.x1, batch.x0, seed)
    if found is None and not batch.small:
        found = _by_potentials(batch, given, batch.within(ENOUGH))
    return (_on_all(batch), 0.0) if found is None else found


def _exactly(batch: _Batch) -> tuple[Tensor, float]:
    """:func:`_assigned` with a proof."""
    n, d = batch.data.shape
    enough = batch.within(PROOF, batch.rounding())
    if d > 1 and not batch.small:
        found = _by_potentials(batch, None, enough)
        if found is not None:
            return found
    i = line(batch.data, batch.noise) if d == 1 else _on_all(batch)
    slack = proved(batch.products(), i, enough)
    if slack is None:
        raise RheosError(
            f"no proof that the assignment of {n} rows is optimal: rounding is coarser than {PROOF:.0e} of its cost, "
            f"{batch.cost(i):.3g}. Clusters far apart lose the digits within them. Use BatchOT()."
        )
    return i, slack


def _by_potentials(batch: _Batch, given: Tensor | None, enough: Enough) -> tuple[Tensor, float] | None:
    """By reduced costs: of the given potentials, and where these do not do, of estimates."""
    cost = batch.products()
    if given is not None:
        # Potentials of |x0 - x1|**2 become those of the products.
        cost.sub_((given.to(cost) - (batch.data - batch.noise.mean(0)).square().sum(1))[:, None])
        found = reduced(cost, cost.amin(0), enough, FITTING)
        if found is not None:
            return found
        # A start from cells is in terms of the products; any other may begin with what they were reduced to.
        cost = batch.products() if batch.few else cost
    g = potentials(batch.x1.float(), batch.x0.float(), cost.float())
    return reduced(cost, g.to(cost.dtype), enough) if bool(g.isfinite().all()) else None


def _on_all(batch: _Batch) -> Tensor:
    """By all pairs. Augmenting paths take half the time with distances in few dimensions, and else when every noise is
    a row whose least cost is 0."""
    cost = batch.products()
    if not batch.few:
        return dense((cost - cost.amin(0)).T).argsort()
    cost.add_(batch.x1.square().sum(1, keepdim=True)).add_(batch.x0.square().sum(1))
    found = None if batch.small else simplex(cost)
    return dense(cost) if found is None else found


def _check(x0: Tensor, x1: Tensor, given: Tensor | None) -> None:
    if x0.shape != x1.shape:
        raise ShapeError(f"noise and data must have one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}.")
    if x0.numel() == 0 or x0.dim() == 0:
        raise ShapeError(f"a batch has at least one row of at least one number, got the shape {tuple(x0.shape)}.")
    require_one_device(x0, x1)
    if given is None:
        return
    if given.shape != x0.shape[:1]:
        raise ShapeError(f"a potential a datum is expected, ({len(x0)},), got {tuple(given.shape)}.")
    if not bool(given.isfinite().all()):
        raise InputError("a potential is not finite; fit the potentials again, or leave them out.")
