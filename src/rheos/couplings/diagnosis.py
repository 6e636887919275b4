r"""What a coupling does to the pairs, in numbers: what it saves, what it costs in spread, and what it gives away.

With n noises, N data, and ``p[i, j]`` the probability that noise i is joined with datum j:

- cost ratio: ``mean |x0 - x1|**2`` over the pairs, by its mean over all n*n combinations of the same rows;
- entropy: ``-log(sum_ij p[i, j]**2/n)/log N``, the number of partners that a noise has, as a power of N. It is of
  order 2 (Renyi 1961), hence no more than Shannon's ``H(P)/log N - 1``: a few draws tell it, by how often a noise meets
  one datum twice, where Shannon's takes many more than there are partners;
- chi-squared: ``N*sum_j p[j]**2 - 1`` with ``p[j]`` the frequency of a datum, from pairs of independent draws only, so
  that chance does not add to it;
- leakage: the share of the noise's variance that the condition of the joined datum explains, between classes or along
  the principal components of a vector, adjusted: ``(R**2 - e)/(1 - e)`` with e its mean when noise and conditions are
  joined at random. Its z-score takes mean and variance over all permutations, in closed form (Kazi-Aoual et al. 1995,
  "Refined approximations to permutation tests for multivariate inference").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import final

import torch
from torch import Tensor

from ..core.condition import Cond, take
from ..core.errors import InputError
from ..core.protocols import Coupling, Pairs, fits
from ..core.rng import Rng
from .conditional import classes, parted

DRAWS = 8
"""Times that a coupling which samples is asked for pairs; the frequencies come from all pairs of draws."""

ROWS_A_COMPONENT = 10
"""Rows for each principal component of a vector: fewer, and chance alone explains most of the noise."""


@final
@dataclass(frozen=True)
class Diagnosis:
    """What pairs of noise and data are like.

    Attributes:
        cost_ratio: the mean squared distance of the pairs, by that of independent ones. 1 saves nothing; in many
            dimensions even optimal transport of a batch stays near 1.
        gap: an upper bound of ``(cost - optimum)/cost``, or ``None`` where none is known.
        entropy: 0 when each noise has one partner, 1 when it has all data alike, and ``N**entropy`` partners between.
        chi_squared: of the frequencies of the data. 0 when all are joined equally often, to within about
            ``sqrt(2*N)/n`` from n noises of a coupling of a dataset of N; above 0.05 samples will show the unevenness.
        uniqueness: the share of rows whose datum is distinct: 1 for a permutation, 0.63 for n draws of n data.
        leakage: the share of the noise's variance that its condition explains, 0 when it explains none and 1 when it
            fixes the noise; ``None`` without conditions, or where all rows, or none, share theirs. A vector is seen
            through linear dependence only.
        leakage_z: that share in standard deviations from what chance gives. Between -3 and 3 nothing leaks; above 5
            something does, however small the share: conditional samples start from noise that training did not see.
            Far below -3 the classes' noise is more alike than chance makes it.
    """

    cost_ratio: float
    gap: float | None
    entropy: float
    chi_squared: float
    uniqueness: float
    leakage: float | None = None
    leakage_z: float | None = None

    def asdict(self) -> dict[str, float | None]:
        """The numbers by name."""
        return asdict(self)

    def __str__(self) -> str:
        gap = "unknown" if self.gap is None else f"{self.gap:.2%}"
        leakage = "" if self.leakage is None else f", leakage {self.leakage:.4f} (z = {self.leakage_z:.1f})"
        return (
            f"cost {self.cost_ratio:.3f} of independent, gap {gap}, entropy {self.entropy:.3f}, chi-squared "
            f"{self.chi_squared:.3f}, {self.uniqueness:.1%} of rows distinct{leakage}"
        )


def diagnose(
    coupling: Coupling[Tensor],
    x0: Tensor,
    x1: Tensor,
    cond: Cond | None = None,
    rng: Rng | torch.Generator | int | None = None,
) -> Diagnosis:
    """Join noise and data, twice or more, and describe the pairs.

    Args:
        coupling: the coupling; one of a dataset must be fitted to ``x1``.
        x0: noise (n, ...).
        x1: data (N, ...), N = n unless the coupling is one of a dataset.
        cond: the condition of each datum. For a coupling of a dataset each noise arrives with that of a random datum.
        rng: what a coupling that samples draws from; seed 0 when left out.

    Raises:
        InputError: if there is no noise; or what the coupling raises.
    """
    if len(x0) == 0:
        raise InputError("a coupling is diagnosed on noise, and there are no rows; give some thousand.")
    key = Rng.of(0 if rng is None else rng).joint()
    whole = fits(coupling)
    arrived = cond
    if whole and cond is not None:
        chosen = (key.fold(DRAWS).uniform(len(x0), dtype=torch.float64) * len(x1)).long().clamp_max(len(x1) - 1)
        arrived = take(cond, chosen.to(x1.device))

    def join(draw: int) -> Pairs[Tensor]:
        return coupling(x0, x1, arrived, key.fold(draw))

    pairs = join(0)
    partners = _partners(join, pairs)
    joined = take(cond, pairs.j)
    leakage, z = (None, None) if joined is None else _leakage(pairs.x0, joined)
    return Diagnosis(
        cost_ratio=_cost_ratio(pairs),
        gap=pairs.gap,
        entropy=_entropy(partners, len(x1)),
        chi_squared=_uneven_rows(pairs.j, len(x1)) if whole else _uneven_draws(partners, len(x1)),
        uniqueness=len(pairs.j.unique()) / len(pairs.j),
        leakage=leakage,
        leakage_z=z,
    )


def _partners(join: Callable[[int], Pairs[Tensor]], first: Pairs[Tensor]) -> list[Tensor]:
    """The datum of each noise in every draw; two draws where the rng does not matter."""
    partners = []
    for draw in range(DRAWS):
        pairs = join(draw) if draw else first
        partner = torch.empty_like(pairs.j)
        partner[pairs.i] = pairs.j
        partners.append(partner)
        if draw == 1 and torch.equal(partner, partners[0]):
            break
    return partners


def _cost_ratio(pairs: Pairs[Tensor]) -> float:
    x0, x1 = (x.detach().flatten(1).double() for x in (pairs.x0, pairs.x1))
    # Second moments about the means: those about 0 would cancel where the data lie far from it.
    spread = sum(float((x - x.mean(0)).square().sum(1).mean()) for x in (x0, x1))
    independent = spread + float((x0.mean(0) - x1.mean(0)).square().sum())
    return float((x0 - x1).square().sum(1).mean()) / independent if independent else 1.0


def _entropy(partners: list[Tensor], count: int) -> float:
    if count == 1:
        return 0.0
    met = [float((one == other).double().mean()) for one, other in combinations(partners, 2)]
    same = sum(met) / len(met)
    return min(1.0, max(0.0, -math.log(same) / math.log(count))) if same else 1.0


def _uneven_draws(partners: list[Tensor], count: int) -> float:
    """Chi-squared where the rows of a batch are joined together: rows of one draw depend on one another, rows of two
    draws do not."""
    drawn = [partner.bincount(minlength=count).double() / len(partner) for partner in partners]
    met = [float(one @ other) for one, other in combinations(drawn, 2)]
    return count * sum(met) / len(met) - 1


def _uneven_rows(j: Tensor, count: int) -> float:
    """Chi-squared where each noise finds its datum by itself: two rows are independent of one another."""
    drawn = j.bincount(minlength=count).double()
    return count * float((drawn * (drawn - 1)).sum()) / max(1, len(j) * (len(j) - 1)) - 1


def _leakage(noise: Tensor, cond: Cond) -> tuple[float | None, float | None]:
    """The adjusted share of the noise's variance that the condition explains, and its z-score."""
    x = noise.detach().flatten(1).double()
    n = len(x)
    x = x - x.mean(0)
    basis, leverage, rank = _explained(cond, noise)
    total = float(x.square().sum())
    if n < 4 or rank == 0 or rank >= n - 1 or total == 0:
        return None, None
    found, chance = float((basis.T @ x).square().sum()) / total, rank / (n - 1)
    gram = x.T @ x if x.shape[1] < n else x @ x.T
    variance = _permuted_variance(
        n,
        (rank, rank, float(leverage.square().sum())),
        (total, float(gram.square().sum()), float(x.square().sum(1).square().sum())),
    )
    z = (found - chance) * total / math.sqrt(variance) if variance > 0 else 0.0
    return (found - chance) / (1 - chance), z


def _explained(cond: Cond, rows: Tensor) -> tuple[Tensor, Tensor, int]:
    """Orthonormal columns (n, K) that span the constants and what the condition explains, the diagonal (n,) of the
    projection onto the latter, and its rank."""
    labels, near = parted(cond, rows)
    groups = list(classes(labels).values())
    n = len(rows)
    basis = torch.zeros(n, len(groups), dtype=torch.float64, device=rows.device)
    for column, members in enumerate(groups):
        basis[members, column] = 1 / math.sqrt(len(members))
    rank = len(groups) - 1
    if near is not None:
        residual = near - basis @ (basis.T @ near)
        left, scale, _ = torch.linalg.svd(residual, full_matrices=False)
        known = int((scale > 1e-9 * max(1.0, float(near.norm()))).sum())
        kept = min(known, max(1, n // ROWS_A_COMPONENT))
        basis, rank = torch.cat([basis, left[:, :kept]], 1), rank + kept
    return basis, basis.square().sum(1) - 1 / n, rank


def _permuted_variance(n: int, a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """The variance of tr(A P B P^T) over all permutations P of n rows, for symmetric A and B with rows that sum to 0,
    each given by the sums of its eigenvalues, of their squares, and of the squares of its diagonal."""
    (ta, ta2, da), (tb, tb2, db) = a, b
    spread = 2 * ((n - 1) * ta2 - ta**2) * ((n - 1) * tb2 - tb**2) / ((n - 1) ** 2 * (n + 1) * (n - 2))
    peaks = [n * (n + 1) * d - (n - 1) * (t**2 + 2 * t2) for t, t2, d in ((ta, ta2, da), (tb, tb2, db))]
    return spread + peaks[0] * peaks[1] / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
