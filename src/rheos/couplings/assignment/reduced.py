r"""The assignment of a dense matrix by that of a sparse one.

With potentials f, g near the optimal ones the reduced costs ``r[j, i] = c[j, i] - f[j] - g[i]`` of the pairs of the
optimum are nearly 0, so that the smallest entries hold it. Their assignment is found exactly; shortest paths in its
residual graph give potentials h of its own, which are completed over all entries by ``min_i r[j, i] - h[i]``. These are
feasible, whence the pairs cost no more above the optimum than their slack, ``sum_j r[j, i(j)] - h[i(j)] - min_i (r[j,
i] - h[i])``. An entry that makes it positive is one that the sparse matrix lacks: it is added, and all is solved again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .sparse import sparse

KEPT = 16
"""Entries kept a row, in the mean."""

ROUNDS = 8
"""Times that entries are added."""

Enough = Callable[[Tensor, float], bool]
"""Whether the noise of each datum is good enough, by a bound of what it costs above the optimum."""


def reduced(cost: Tensor, g: Tensor, enough: Enough, fitting: float = math.inf) -> tuple[Tensor, float] | None:
    """The noise of each datum and a bound of what it costs above the optimum; ``None`` if it never is enough.

    Args:
        cost: of data (rows) and noise (columns), (n, n); overwritten by reduced costs.
        g: potentials of the noise, (n,).
        enough: says whether an assignment will do.
        fitting: where potentials of the data were subtracted from the cost, of how much of the threshold of the kept
            entries they may be wrong in the mean; more, and they are of no use.
    """
    n = len(cost)
    least = cost.sub_(g).amin(1)
    cost.sub_(least[:, None]).sub_(cost.amin(0))
    threshold = _threshold(cost)
    if float(least.mean()) > fitting * threshold:
        return None
    places = _below(cost, threshold)
    for _ in range(ROUNDS):
        entries, at = _on_host(cost, places)
        found = sparse(entries, at, n)
        if found is None:
            return None
        noise, slack = torch.from_numpy(at[found] % n).to(cost.device), float(entries[found].sum())
        if enough(noise, slack):
            return noise, slack
        slack, lacking = _checked(cost, entries, at, found)
        if enough(noise, slack):
            return noise, slack
        places = torch.cat([places, lacking]).unique()
    return None


def proved(cost: Tensor, noise: Tensor, enough: Enough) -> float | None:
    """A bound of what the noise of each datum costs above the optimum; ``None`` if it never is enough.

    Args:
        cost: of data (rows) and noise (columns), (n, n); overwritten by reduced costs.
        noise: what each datum takes, a permutation, int64 (n,).
        enough: says whether a bound will do.
    """
    n = len(cost)
    cost.sub_(cost.amin(0)).sub_(cost.amin(1, keepdim=True))
    taken = torch.arange(n, device=noise.device) * n + noise
    places = torch.cat([_below(cost, _threshold(cost)), taken]).unique()
    for _ in range(ROUNDS):
        entries, at = _on_host(cost, places)
        slack, lacking = _checked(cost, entries, at, np.searchsorted(at, taken.cpu().numpy()))
        if enough(noise, slack):
            return slack
        places = torch.cat([places, lacking]).unique()
    return None


def _threshold(cost: Tensor) -> float:
    """What KEPT entries a row are not above, in the mean, by a sample of the rows."""
    n = len(cost)
    sample = cost[:: max(1, n // 32)].cpu().numpy()
    last = min(sample.size - 1, KEPT * len(sample))
    return float(np.partition(sample, last, axis=None)[last])


def _below(cost: Tensor, threshold: float) -> Tensor:
    """Places of the entries that are not above the threshold, thinned evenly where equal ones are many, and of the
    diagonal, so that an assignment exists; int64, rising."""
    n = len(cost)
    if cost.is_cuda:
        places = (cost <= threshold).fill_diagonal_(True).view(-1).nonzero()[:, 0]
    else:
        # NumPy compares and finds in a third of the time.
        kept = cost.numpy() <= threshold
        np.fill_diagonal(kept, True)
        places = torch.from_numpy(np.flatnonzero(kept))
    if len(places) <= 4 * KEPT * n:
        return places
    diagonal = torch.arange(n, device=places.device) * (n + 1)
    return torch.cat([places[:: len(places) // (2 * KEPT * n)], diagonal]).unique()


def _on_host(cost: Tensor, places: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return cost.view(-1)[places].double().cpu().numpy(), places.cpu().numpy()


def _checked(
    cost: Tensor, entries: NDArray[np.float64], places: NDArray[np.int64], found: NDArray[np.int64]
) -> tuple[float, Tensor]:
    """The slack of the assignment of sparse entries, and places of entries that are lacking, the worst of them where
    there are many."""
    n = len(cost)
    h = torch.from_numpy(_potentials(entries, places, found, n)).to(cost)
    rest = cost - h
    rest.sub_(rest.gather(1, torch.from_numpy(places[found] % n).to(cost.device)[:, None]))
    slack = float(rest.amin(1).double().sum().abs())
    lacking = (rest < 0).view(-1).nonzero()[:, 0]
    if len(lacking) > KEPT * n:
        lacking = lacking[rest.view(-1)[lacking].topk(KEPT * n, largest=False, sorted=False).indices]
    return slack, lacking


def _potentials(
    entries: NDArray[np.float64], places: NDArray[np.int64], found: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Potentials of the columns of a sparse assignment (n,): the shortest paths to them in its residual graph, where
    the step from the column of row j to another is what that costs j more than its own (Bellman and Ford)."""
    rows, columns = np.divmod(places, n)
    # NumPy sorts short integers in linear time.
    order = np.argsort(columns.astype(np.uint16) if n <= 1 << 16 else columns, kind="stable")
    rows, columns = rows[order], columns[order]
    step, before = entries[order] - entries[found][rows], (places[found] % n)[rows]
    starts = np.searchsorted(columns, np.arange(n))
    h = np.zeros(n)
    for _ in range(n):
        nearer = np.minimum.reduceat(h[before] + step, starts)
        moved = float((h - nearer).max())
        h = nearer
        if moved <= 4 * np.finfo(np.float64).eps * -h.min():
            break
    return h
