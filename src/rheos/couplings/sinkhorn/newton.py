r"""Newton's step for the potential of entropic transport, by the large entries of its plan.

With g in units of epsilon the dual ``mean f + mean g`` is concave, its gradient ``target - column`` and its Hessian
``-(diag(column) - Q^T Q)``, where ``target = n/m`` is what the columns of Q should sum to. Sinkhorn's iteration is the
step with the Hessian ``-diag(column)``: it needs as many sweeps as it takes mass to wander across the plan. At low
entropy Q is a few entries a row and nothing, so that Newton's equations are sparse and conjugate gradients solve them
between two sweeps (Tang et al. 2024, "Accelerating Sinkhorn algorithm with sparse Newton iterations"). What is left out
of Q is not left out here but spread, row sum times column sum, so that the sums are right and Q of rank one is exact.

Where groups of data are apart, moving one group against the others hardly changes anything until noise between them
changes sides, and Newton's step is far too long. ``damping*diag(column)`` is added to the Hessian, more and more of it,
until no entry of the step exceeds a radius (Levenberg 1944; Marquardt 1963). The radius follows from how well the last
step kept what it had promised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Vector = NDArray[np.float64]

RESIDUAL = 1e-2
"""The L1 norm of the residual at which conjugate gradients stop, as a share of the gradient's."""

ITERATIONS = 500
"""Conjugate gradients at most."""

LEAST_DAMPING, MOST_DAMPING = 1e-4, 4.0

STRONGER = 3.0
"""The factor of the damping from one attempt to the next."""


@dataclass(frozen=True)
class Step:
    """A step of g, in units of epsilon; the damping it took, and the gain of the dual that it promises, a row."""

    move: Vector
    damping: float
    promise: float


class Equations:
    """Newton's equations at one plan.

    Args:
        entries: the large entries of Q (n, m).
        column: the sums of the columns of all of Q (m,).
    """

    def __init__(self, entries: sparse.csr_matrix, column: Vector) -> None:
        self._rows, self._columns = entries, entries.T.tocsr()
        self._count = entries.indptr.size - 1
        self._column = column
        self._gradient = self._count / len(column) - column
        self._lost_row = np.maximum(1.0 - np.asarray(entries.sum(1)).ravel(), 0.0)
        self._lost_column = np.maximum(column - np.asarray(entries.sum(0)).ravel(), 0.0)
        self._lost = max(float(self._lost_column.sum()), np.finfo(np.float64).tiny)

    def step(self, radius: float, damping: float) -> Step:
        """The step with the least damping from about ``damping`` on that stays within the radius."""
        damping = damping / STRONGER**2 if damping > LEAST_DAMPING / STRONGER else 0.0
        while True:
            move = self._solved(damping)
            move -= np.median(move)
            size = float(np.abs(move).max())
            if size <= radius or damping >= MOST_DAMPING:
                break
            damping = max(STRONGER * damping, LEAST_DAMPING)
        if size > radius:
            move *= radius / size
        promise = move @ self._gradient - 0.5 * move @ self._hessian(move, 0.0)
        return Step(move, damping, float(promise) / self._count)

    def _hessian(self, v: Vector, damping: float) -> Vector:
        """Minus the Hessian, and the damping, times a vector."""
        across = self._rows @ v + self._lost_row * ((self._lost_column @ v) / self._lost)
        back = self._columns @ across + self._lost_column * ((self._lost_row @ across) / self._lost)
        return (1.0 + damping) * self._column * v - back

    def _solved(self, damping: float) -> Vector:
        """By conjugate gradients, preconditioned by the diagonal."""
        diagonal = np.maximum(self._column, np.finfo(np.float64).tiny)
        found, residual = np.zeros_like(diagonal), self._gradient.copy()
        enough = RESIDUAL * float(np.abs(residual).sum())
        scaled = residual / diagonal
        direction, energy = scaled, float(residual @ scaled)
        for _ in range(ITERATIONS):
            if float(np.abs(residual).sum()) <= enough:
                break
            curved = self._hessian(direction, damping)
            curvature = float(direction @ curved)
            # Rounding can take the curvature of a group that nothing ties to others below 0.
            if not curvature > 0.0:
                break
            length = energy / curvature
            found += length * direction
            residual -= length * curved
            scaled = residual / diagonal
            before, energy = energy, float(residual @ scaled)
            direction = scaled + (energy / before) * direction
        return found
