"""The assignment of a sparse matrix, by shortest augmenting paths: lapx where it is installed, SciPy otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from .installed import lapx


def sparse(entries: NDArray[np.float64], places: NDArray[np.int64], n: int) -> NDArray[np.int64] | None:
    """Which of the entries each row takes, int64 (n,); ``None`` where no assignment exists.

    Args:
        entries: costs, not negative.
        places: ``row*n + column`` of each, rising.
        n: rows, and columns.
    """
    first, solver = np.arange(n + 1) * n, lapx()
    starts = np.searchsorted(places, first).astype(np.int32)
    columns = (places - np.repeat(first[:-1], np.diff(starts))).astype(np.int32)
    if solver is None:
        taken = _scipy(entries, columns, starts, n)
    else:
        # lapmod refuses costs of 1e6 and more.
        scale = 1e5 / max(float(entries.max()), np.finfo(np.float64).tiny * 1e6)
        taken = solver.lapmod(n, entries * scale, starts, columns, return_cost=False)[0]
    if taken is None:
        return None
    wanted = first[:-1] + taken
    found = np.searchsorted(places, wanted)
    # Where no assignment exists lapmod takes entries that are not there, and says nothing.
    return found if np.array_equal(places[np.minimum(found, len(places) - 1)], wanted) else None


def _scipy(
    entries: NDArray[np.float64], columns: NDArray[np.int32], starts: NDArray[np.int32], n: int
) -> NDArray[np.int32] | None:
    # SciPy takes a cost of 0 for a missing entry; a constant more everywhere changes no assignment.
    shifted = entries + (float(entries.max()) or 1.0)
    try:
        return min_weight_full_bipartite_matching(csr_array((shifted, columns, starts), shape=(n, n)))[1]
    except ValueError:
        return None
