"""Who takes part in a comparison: flows and diffusion models, each as its paper trains and samples it, and in few
dimensions the flow that is simulated to train.

All share the recipe's network, data, batch and steps. What differs is the objective, that is path, predicted quantity,
times and weight, and how samples are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from ..core import InputError, Solver, nearest
from ..couplings import BatchOT, Conditional
from ..dynamics import AncestralNoise, DiffusionNoise, Noise
from ..objectives import EDMWeight, Matching, SimulatedLikelihood
from ..objectives.times import LogNormal, Steps, Uniform
from ..paths import Affine
from ..recipes import Recipe
from ..schedules import EDM, Cosine, CosineBetas, Discrete, LinearBetas, VariancePreserving
from ..solvers import RK4, AdamsBashforth, DPMSolver, Euler, Heun, grids

Family = Literal["flow", "diffusion", "hybrid", "simulated"]

FEW = 16
"""Numbers in a state up to which a flow is simulated to train."""


@final
@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Args:
        name: what the command line calls it.
        title: what a reader sees.
        family: flow matching, diffusion, one that goes on as the other, or a flow that is simulated to train.
        recipe: everything it is made from; its sampler is the first of the ways.
        ways: how samples are drawn, by name: the recipe with each sampler. The first is the paper's own.
    """

    name: str
    title: str
    family: Family
    recipe: Recipe
    ways: Mapping[str, Recipe]

    @property
    def before(self) -> Recipe | None:
        """What the network is trained by in the first half of the steps, when that is something else."""
        objective = self.recipe.objective
        if not isinstance(objective, Matching) or objective.before is None:
            return None
        return replace(self.recipe, objective=objective.before)

    @property
    def accurate(self) -> Recipe:
        """The recipe with the sampler of the highest order, whose samples tell the most of the training."""
        return max(self.ways.values(), key=lambda recipe: recipe.solver.order)


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
    """What tells one side from another: the objective, and how it is sampled."""

    title: str
    family: Family
    ways: Mapping[str, _Way]
    objective: Callable[[Recipe], Matching | SimulatedLikelihood]


def _matching(path: Affine, **parts: Any) -> Callable[[Recipe], Matching]:
    return lambda recipe: Matching(**{"path": path, "times": Uniform(stratified=True), **parts})


def _transported(recipe: Recipe) -> Matching:
    coupling = Conditional(BatchOT()) if recipe.kind.classes else BatchOT()
    return Matching(times=Uniform(stratified=True), coupling=coupling)


def _simulated(recipe: Recipe) -> SimulatedLikelihood:
    size = math.prod(recipe.kind.shape)
    if size > FEW:
        raise InputError(
            f"a flow is simulated to train for states of at most {FEW} numbers, these have {size}: a step would take "
            "minutes. Leave this contender out."
        )
    return SimulatedLikelihood(RK4(), "hutchinson", grid=(1.0, 0.75, 0.5, 0.25, 0.0))


_AB2 = {"Adams-Bashforth 2": _Way(lambda path: AdamsBashforth(2))}
_SDE = {"Euler with noise": _Way(lambda path: Euler(), noise=DiffusionNoise())}
_DDIM = {"DDIM": _Way(lambda path: Euler(), noise=AncestralNoise(0.0))}
_DPM = {"DPM-Solver++ (2M)": _Way(lambda path: DPMSolver(path))}
_DISCRETE = {**_DDIM, **_DPM, **_AB2}
_HEUN = {"Heun": _Way(lambda path: Heun(), lambda path: grids.EDM(path.schedule))}

_STEPS = Steps(stratified=True)
_KARRAS = {"predict": "data", "data_std": 0.5, "weight": EDMWeight(0.5), "times": LogNormal(stratified=True)}
_DDPM = Matching(Affine(Discrete(LinearBetas())), predict="noise", times=_STEPS)
_V = Matching(Affine(Cosine()), predict="v", times=Uniform(stratified=True))

CONTENDERS: Mapping[str, _Side] = {
    "flow": _Side("flow matching", "flow", {**_AB2, **_SDE}, _matching(Affine())),
    "flow-ot": _Side("flow matching with transport", "flow", _AB2, _transported),
    "flow-cosine": _Side("flow matching (cosine path)", "flow", {**_AB2, **_SDE}, _matching(Affine(Cosine()))),
    "ddpm": _Side("DDPM", "diffusion", _DISCRETE, lambda recipe: _DDPM),
    "ddpm-cosine": _Side(
        "DDPM (cosine betas)",
        "diffusion",
        _DISCRETE,
        _matching(Affine(Discrete(CosineBetas())), predict="noise", times=_STEPS),
    ),
    "v": _Side("v-prediction", "diffusion", _DISCRETE, lambda recipe: _V),
    "vp": _Side(
        "VP score model",
        "diffusion",
        {**_DPM, **_DDIM, **_AB2},
        _matching(Affine(VariancePreserving()), predict="noise"),
    ),
    "edm": _Side("EDM", "diffusion", _HEUN, _matching(Affine(EDM()), **_KARRAS)),
    "ddpm-to-flow": _Side("DDPM, then flow", "hybrid", _AB2, _matching(Affine(), before=_DDPM)),
    "v-to-flow": _Side("v-prediction, then flow", "hybrid", _AB2, _matching(Affine(), before=_V)),
    "simulated": _Side("a flow that is simulated to train", "simulated", _AB2, _simulated),
}
"""Every side by name."""

USUAL = ("flow", "flow-ot", "ddpm", "v")
"""Those of a comparison that names none."""


def contender(name: str, recipe: Recipe) -> Contender:
    """A side, with all but its own parts from ``recipe``.

    Args:
        name: one of :data:`CONTENDERS`; ``NAME:QUANTITY`` has the network predict another quantity than its own.
        recipe: what all sides share.

    Raises:
        InputError: if there is no such side, or it cannot predict that, or the recipe's objective is not matching.
    """
    plain, _, quantity = name.partition(":")
    if plain not in CONTENDERS:
        raise InputError(f"there is no contender {plain!r}; {nearest(plain, CONTENDERS)}")
    if not isinstance(recipe.objective, Matching):
        raise InputError(f"a comparison is one of matching, and {recipe.name} has another objective.")
    side = CONTENDERS[plain]
    objective, title = side.objective(recipe), side.title
    if quantity:
        objective, title = replace(objective, predict=quantity), f"{title} ({quantity} predicted)"
    path = objective.path
    ways = {
        way: replace(recipe, objective=objective, solver=how.solver(path), grid=how.grid(path), noise=how.noise)
        for way, how in side.ways.items()
    }
    return Contender(name, title, side.family, next(iter(ways.values())), ways)
