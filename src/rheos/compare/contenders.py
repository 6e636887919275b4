"""Who takes part in a comparison: flows, diffusion models and models of few steps, each as its paper trains and samples
it, and in few dimensions the flow that is simulated to train.

All share the recipe's network, data, batch and steps. What differs is the objective, that is path, predicted quantity,
times and weight, and how samples are drawn. The network of a flow map is told a second time, and is otherwise the same.

A side whose network comes from another training takes half of the steps for that one: a hybrid goes on from a
diffusion model, a student learns from a flow. So no side has been given more steps than another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, final

from ..core import InputError, Solver, nearest
from ..couplings import BatchOT, Conditional
from ..dynamics import AncestralNoise, DiffusionNoise, Noise
from ..objectives import EDMWeight, FlowMapMatching, Matching, SimulatedLikelihood, lagrangian
from ..objectives.times import LogNormal, Steps, Uniform
from ..paths import Affine
from ..recipes import DIAGONAL, FLOW_MAPS, Recipe, as_flow_map, as_rectified
from ..schedules import EDM, Cosine, CosineBetas, Discrete, LinearBetas, VariancePreserving
from ..solvers import RK4, AdamsBashforth, DPMSolver, Euler, Heun, grids

Family = Literal["flow", "diffusion", "hybrid", "few steps", "simulated"]

FEW = 16
"""Numbers in a state up to which a flow is simulated to train."""

MOST_PAIRS, SEEN = 20_000, 10
"""Pairs that a reflow makes, at most, and how often it learns from each, at least: a pair takes 32 passes forward to
make, and a row three to learn from, forward and back, so that pairs cost about as much as the steps that follow."""


@final
@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Args:
        name: what the command line calls it.
        title: what a reader sees.
        family: flow matching, diffusion, one that goes on as the other, models that are made for one to four steps, or
            a flow that is simulated to train.
        recipe: everything it is made from; its sampler is the first of the ways.
        ways: how samples are drawn, by name: the recipe with each sampler. The first is the paper's own.
        before: what the network is trained by in the first half of the steps, when that is something else.
    """

    name: str
    title: str
    family: Family
    recipe: Recipe
    ways: Mapping[str, Recipe]
    before: Recipe | None = None

    @property
    def learns(self) -> bool:
        """Whether the second half learns from what the first made of the network, and does not only go on from it."""
        return self.before is not None and not isinstance(self.recipe.objective, Matching)

    @property
    def budget(self) -> int | None:
        """The evaluations that it is made for, where it is made for some."""
        return self.recipe.evaluations if self.family == "few steps" else None

    @property
    def accurate(self) -> Recipe:
        """The recipe with the sampler whose samples tell the most of the training: of a flow that of the highest order,
        of a map the map."""
        if isinstance(self.recipe.objective, FlowMapMatching):
            return self.recipe
        return max(self.ways.values(), key=lambda recipe: recipe.solver.order)


_Changes = Callable[[Recipe], Recipe]
"""A recipe in place of another."""


@final
@dataclass(frozen=True)
class _Way:
    """How samples are drawn on a path."""

    solver: Callable[[Affine], Solver]
    grid: Callable[[Affine], grids.Grid] = lambda path: grids.Uniform()
    noise: Noise | None = None

    def __call__(self, recipe: Recipe) -> Recipe:
        path = getattr(recipe.objective, "path", Affine())
        return replace(recipe, solver=self.solver(path), grid=self.grid(path), noise=self.noise)


@final
@dataclass(frozen=True)
class _Side:
    """What tells one side from another: what it learns, how it is sampled, and what its network learned before."""

    title: str
    family: Family
    ways: Mapping[str, _Changes]
    learning: _Changes
    before: Matching | None = None


def _by(objective: Matching | SimulatedLikelihood) -> _Changes:
    return lambda recipe: replace(recipe, objective=objective)


def _matching(path: Affine, **parts: Any) -> _Changes:
    return _by(Matching(**{"path": path, "times": Uniform(stratified=True), **parts}))


def _transported(recipe: Recipe) -> Recipe:
    coupling = Conditional(BatchOT()) if recipe.kind.classes else BatchOT()
    return _by(Matching(times=Uniform(stratified=True), coupling=coupling))(recipe)


def _map(make: Callable[..., FlowMapMatching]) -> _Changes:
    return lambda recipe: as_flow_map(_by(_FLOW)(recipe), make)


def _rectified(recipe: Recipe) -> Recipe:
    training = recipe.training
    rows = (training.steps - training.steps // 2) * training.batch
    return as_rectified(recipe, _FLOW, max(training.batch, min(MOST_PAIRS, rows // SEEN)))


def _simulated(recipe: Recipe) -> Recipe:
    size = math.prod(recipe.kind.shape)
    if size > FEW:
        raise InputError(
            f"a flow is simulated to train for states of at most {FEW} numbers, these have {size}: a step would take "
            "minutes. Leave this contender out."
        )
    return replace(recipe, objective=SimulatedLikelihood(RK4(), "hutchinson", grid=(1.0, 0.75, 0.5, 0.25, 0.0)))


_MULTISTEP = _Way(lambda path: AdamsBashforth(2))
_AB2 = {"Adams-Bashforth 2": _MULTISTEP}
_SDE = {"Euler with noise": _Way(lambda path: Euler(), noise=DiffusionNoise())}
_DDIM = {"DDIM": _Way(lambda path: Euler(), noise=AncestralNoise(0.0))}
_DPM = {"DPM-Solver++ (2M)": _Way(lambda path: DPMSolver(path))}
_DISCRETE = {**_DDIM, **_DPM, **_AB2}
_HEUN = {"Heun": _Way(lambda path: Heun(), lambda path: grids.EDM(path.schedule))}
_EULER = {"Euler": _Way(lambda path: Euler()), **_AB2}
_MAP = {"its map": lambda recipe: recipe, **_AB2}
_RESTARTS = {"its map, with restarts": lambda recipe: recipe, **_AB2}

_STEPS = Steps(stratified=True)
_KARRAS = {"predict": "data", "data_std": 0.5, "weight": EDMWeight(0.5), "times": LogNormal(stratified=True)}
_MAPS = {
    "mean-flow": ("mean flow", _MAP),
    "improved-mean-flow": ("improved mean flow", _MAP),
    "lagrangian": ("Lagrangian map", _MAP),
    "shortcut": ("shortcut model", _MAP),
    "consistency": ("consistency model", _RESTARTS),
    "consistency-flow-matching": ("consistency flow matching", _MAP),
    "continuous-consistency": ("continuous consistency model", _RESTARTS),
}

_STUDENT = partial(lagrangian, diagonal=DIAGONAL)
_FLOW = Matching(times=Uniform(stratified=True))
_DDPM = Matching(Affine(Discrete(LinearBetas())), predict="noise", times=_STEPS)
_V = Matching(Affine(Cosine()), predict="v", times=Uniform(stratified=True))

CONTENDERS: Mapping[str, _Side] = {
    "flow": _Side("flow matching", "flow", {**_AB2, **_SDE}, _matching(Affine())),
    "flow-ot": _Side("flow matching with transport", "flow", _AB2, _transported),
    "flow-cosine": _Side("flow matching (cosine path)", "flow", {**_AB2, **_SDE}, _matching(Affine(Cosine()))),
    "ddpm": _Side("DDPM", "diffusion", _DISCRETE, _by(_DDPM)),
    "ddpm-cosine": _Side(
        "DDPM (cosine betas)",
        "diffusion",
        _DISCRETE,
        _matching(Affine(Discrete(CosineBetas())), predict="noise", times=_STEPS),
    ),
    "v": _Side("v-prediction", "diffusion", _DISCRETE, _by(_V)),
    "vp": _Side(
        "VP score model",
        "diffusion",
        {**_DPM, **_DDIM, **_AB2},
        _matching(Affine(VariancePreserving()), predict="noise"),
    ),
    "edm": _Side("EDM", "diffusion", _HEUN, _matching(Affine(EDM()), **_KARRAS)),
    "ddpm-to-flow": _Side("DDPM, then flow", "hybrid", _AB2, _matching(Affine(), before=_DDPM), _DDPM),
    "v-to-flow": _Side("v-prediction, then flow", "hybrid", _AB2, _matching(Affine(), before=_V), _V),
    **{name: _Side(title, "few steps", ways, _map(FLOW_MAPS[name])) for name, (title, ways) in _MAPS.items()},
    "flow-to-lagrangian": _Side("flow, then Lagrangian map", "few steps", _MAP, _map(_STUDENT), _FLOW),
    "reflow": _Side("flow, then reflow", "few steps", _EULER, _rectified, _FLOW),
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
        InputError: if there is no such side, or it cannot predict that, or the recipe's objective is not matching, or
            its flow does not start from noise, or its network cannot be told a second time.
    """
    plain, _, quantity = name.partition(":")
    if plain not in CONTENDERS:
        raise InputError(f"there is no contender {plain!r}; {nearest(plain, CONTENDERS)}")
    if not isinstance(recipe.objective, Matching):
        raise InputError(f"a comparison is one of matching, and {recipe.name} has another objective.")
    if recipe.source is not None:
        raise InputError(f"a comparison is one of ways from noise to data, and {recipe.name} has a source of its own.")
    side = CONTENDERS[plain]
    made, title = side.learning(recipe), side.title
    if quantity:
        made, title = _predicting(made, plain, quantity), f"{title} ({quantity} predicted)"
    ways = {way: change(made) for way, change in side.ways.items()}
    before = None if side.before is None else _MULTISTEP(_by(side.before)(recipe))
    return Contender(name, title, side.family, next(iter(ways.values())), ways, before)


def _predicting(recipe: Recipe, name: str, quantity: str) -> Recipe:
    """The recipe with another quantity predicted.

    Raises:
        InputError: if the objective is not that of one network at one time, between noise and data.
    """
    if not isinstance(recipe.objective, Matching):
        raise InputError(
            f"another quantity is predicted by flows and diffusion models, and {name!r} learns velocities as "
            f"{type(recipe.objective).__name__} asks for them; leave ':{quantity}' out."
        )
    return replace(recipe, objective=replace(recipe.objective, predict=quantity))
