"""Classical solvers, each on the best of some grids: what a fitted rule has to be better than."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...core.loop import integrate
from ...paths import Affine
from ..adams_bashforth import AdamsBashforth
from ..base import FixedStep
from ..dpm_solver import DPMSolver
from ..euler import Euler
from ..heun import Heun
from ..midpoint import Midpoint
from ..rk4 import RK4
from ..unipc import UniPC
from .field import Field, Figures, Reference

CLASSICAL: Mapping[str, Callable[[Affine], FixedStep]] = {
    "Euler": lambda path: Euler(),
    "Midpoint": lambda path: Midpoint(),
    "Heun": lambda path: Heun(),
    "RK4": lambda path: RK4(),
    "Adams-Bashforth 2": lambda path: AdamsBashforth(2),
    "Adams-Bashforth 3": lambda path: AdamsBashforth(3),
    "Adams-Bashforth 4": lambda path: AdamsBashforth(4),
    "DPM-Solver++ (2M)": lambda path: DPMSolver(path),
    "UniPC": lambda path: UniPC(path),
}
"""By name; each made for a path."""


class Candidate(NamedTuple):
    """A classical solver on a grid."""

    name: str
    times: Tensor


FAR = 4.0
"""Solvers that are so many times worse than the best in every figure are not looked at again."""


def tuned(
    evaluations: int, field: Field, exact: Reference, path: Affine, grids: Callable[[int], list[Tensor]]
) -> list[Candidate]:
    """The classical solvers that can use the budget, each on that of the ``grids`` of its number of steps which is best
    for it on these draws, without those that are far behind in everything."""
    found = {}
    for name, make in CLASSICAL.items():
        solver = make(path)
        if evaluations < solver.stages:
            continue
        steps = solver.steps(evaluations)
        tried = [(Figures.of(solved(Candidate(name, grid), field, path), exact), grid) for grid in grids(steps)]
        figures, grid = min(tried, key=lambda pair: pair[0].together)
        found[name] = (figures, Candidate(name, grid))
    least = Figures.least(figures for figures, _ in found.values())
    return [candidate for figures, candidate in found.values() if not figures.behind(least, FAR)]


def solved(candidate: Candidate, field: Field, path: Affine) -> Tensor:
    """The ends (B, D) of a field's draws."""
    with torch.no_grad():
        return integrate(CLASSICAL[candidate.name](path), field.flow, field.x0, candidate.times).x
