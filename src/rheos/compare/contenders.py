"""Who takes part in a comparison: flows and diffusion models, each as its paper trains and samples it.

All share the recipe's network, data, batch and steps. What differs is the objective, that is path, predicted quantity,
times and weight, and how samples are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from ..core import InputError, Solver, nearest
from ..couplings import BatchOT, Conditional
from ..dynamics import AncestralNoise, Noise
from ..objectives import EDMWeight, Matching
from ..objectives.times import LogNormal, Steps, Uniform
from ..paths import Affine
from ..recipes import Recipe
from ..schedules import EDM, Cosine, CosineBetas, Discrete, LinearBetas, VariancePreserving
from ..solvers import AdamsBashforth, DPMSolver, Euler, Heun, grids

Family = Literal["flow", "diffusion"]


@final
@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Args:
        name: what the command line calls it.
        title: what a reader sees.
        family: flow matching or diffusion.
        recipe: everything it is made from; its sampler is the first of the ways.
        ways: how samples are drawn, by name: the recipe with each sampler. The first is the paper's own.
    """

    name: str
    title: str
    family: Family
    recipe: Recipe
    ways: Mapping[str, Recipe]


@final
@dataclass(frozen=True)
class _Way:
    """How samples are drawn on a path."""

    solver: Callable[[Affine], Solver]
    grid: Callable[[Affine], grids.Grid] = lambda path: grids.Uniform()
    noise: Noise | None = None


@final
@dataclass(frozen=True)
class _Side:
    """What tells one side from another: parts of the objective, and how it is sampled."""

    title: str
    family: Family
    ways: Mapping[str, _Way]
    parts: Callable[[Recipe], Mapping[str, Any]]


def _parts(path: Affine, **parts: Any) -> Callable[[Recipe], Mapping[str, Any]]:
    return lambda recipe: {"path": path, "times": Uniform(stratified=True), **parts}


def _transported(recipe: Recipe) -> Mapping[str, Any]:
    coupling = Conditional(BatchOT()) if recipe.kind.classes else BatchOT()
    return {"times": Uniform(stratified=True), "coupling": coupling}


_AB2 = {"Adams-Bashforth 2": _Way(lambda path: AdamsBashforth(2))}
_DDIM = {"DDIM": _Way(lambda path: Euler(), noise=AncestralNoise(0.0))}
_DPM = {"DPM-Solver++ (2M)": _Way(lambda path: DPMSolver(path))}
_HEUN = {"Heun": _Way(lambda path: Heun(), lambda path: grids.EDM(path.schedule))}

_STEPS = Steps(stratified=True)
_NOISE = {"predict": "noise", "times": _STEPS}
_KARRAS = {"predict": "data", "data_std": 0.5, "weight": EDMWeight(0.5), "times": LogNormal(stratified=True)}

CONTENDERS: Mapping[str, _Side] = {
    "flow": _Side("flow matching on straight lines", "flow", _AB2, _parts(Affine())),
    "flow-ot": _Side("flow matching with optimal transport", "flow", _AB2, _transported),
    "flow-cosine": _Side("flow matching on the cosine path", "flow", _AB2, _parts(Affine(Cosine()))),
    "ddpm": _Side(
        "DDPM (linear betas)", "diffusion", {**_DDIM, **_DPM}, _parts(Affine(Discrete(LinearBetas())), **_NOISE)
    ),
    "ddpm-cosine": _Side(
        "DDPM (cosine betas)", "diffusion", {**_DDIM, **_DPM}, _parts(Affine(Discrete(CosineBetas())), **_NOISE)
    ),
    "v": _Side("v-prediction", "diffusion", {**_DDIM, **_DPM}, _parts(Affine(Cosine()), predict="v")),
    "vp": _Side(
        "VP score model", "diffusion", {**_DPM, **_DDIM}, _parts(Affine(VariancePreserving()), predict="noise")
    ),
    "edm": _Side("EDM", "diffusion", _HEUN, _parts(Affine(EDM()), **_KARRAS)),
}
"""Every side by name."""

USUAL = ("flow", "flow-ot", "ddpm", "v")
"""Those of a comparison that names none."""


def contender(name: str, recipe: Recipe) -> Contender:
    """A side, with all but its own parts from ``recipe``.

    Raises:
        InputError: if there is no such side, or the recipe's objective is not matching.
    """
    if name not in CONTENDERS:
        raise InputError(f"there is no contender {name!r}; {nearest(name, CONTENDERS)}")
    if not isinstance(recipe.objective, Matching):
        raise InputError(f"a comparison is one of matching, and {recipe.name} has another objective.")
    side = CONTENDERS[name]
    objective = Matching(**side.parts(recipe))
    path = objective.path
    ways = {
        way: replace(recipe, objective=objective, solver=how.solver(path), grid=how.grid(path), noise=how.noise)
        for way, how in side.ways.items()
    }
    return Contender(name, side.title, side.family, next(iter(ways.values())), ways)
