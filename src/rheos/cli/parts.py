"""The one place where names become parts. What stands first in a table is the default."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..core import Guidance, InputError, Objective, Solver, nearest
from ..couplings import BatchOT, Conditional, Independent, PairStore, Partial, Semidiscrete, Sinkhorn, Unbalanced
from ..dynamics import AncestralNoise, DiffusionNoise, RestartNoise
from ..guidance import ClassifierFree, Told, ZeroStar
from ..nn import MLP, DiT, UNet
from ..objectives import (
    EDMWeight,
    FlowMapMatching,
    LearnedMatching,
    Matching,
    MinSNR,
    PseudoHuber,
    Rectified,
    SimulatedLikelihood,
    Squared,
    VelocityWeight,
    times,
)
from ..paths import QUANTITIES, Affine, Correction, LearnedInterpolant
from ..recipes import FLOW_MAPS, Recipe, as_flow_map, images, toy
from ..schedules import (
    EDM,
    Cosine,
    CosineBetas,
    Discrete,
    Learned,
    Linear,
    LinearBetas,
    Polynomial,
    VarianceExploding,
    VariancePreserving,
)
from ..solvers import (
    RK4,
    AdamsBashforth,
    Churn,
    Dopri5,
    DPMSolver,
    Euler,
    Heun,
    MeanCache,
    Midpoint,
    Stabilised,
    Stork,
    TeaCache,
    UniPC,
    grids,
)

RECIPES: Mapping[str, Callable[..., Recipe]] = {"images": images, "toy": toy}

PATHS = {
    "linear": Affine(Linear()),
    "cosine": Affine(Cosine()),
    "polynomial": Affine(Polynomial()),
    "vp": Affine(VariancePreserving()),
    "ve": Affine(VarianceExploding()),
    "ddpm": Affine(Discrete(LinearBetas())),
    "ddpm-cosine": Affine(Discrete(CosineBetas())),
    "edm": Affine(EDM()),
}
COUPLINGS = {
    "independent": Independent(),
    "ot": BatchOT(),
    "ot-by-class": Conditional(BatchOT()),
    "stored-ot": PairStore(BatchOT()),
    "stored-ot-by-class": PairStore(Conditional(BatchOT())),
    "semidiscrete": Semidiscrete(),
    "semidiscrete-by-class": Conditional(Semidiscrete()),
    "sinkhorn": Sinkhorn(),
    "sinkhorn-by-class": Conditional(Sinkhorn()),
    "partial": Partial(),
    "partial-by-class": Conditional(Partial()),
    "unbalanced": Unbalanced(),
    "unbalanced-by-class": Conditional(Unbalanced()),
}
PREDICTIONS = {name: name for name in QUANTITIES}
TIMES = {
    "stratified": times.Uniform(stratified=True),
    "uniform": times.Uniform(),
    "logit-normal": times.LogitNormal(),
    "log-normal": times.LogNormal(),
    "mode": times.Mode(),
    "shifted": times.Shifted(),
    "steps": times.Steps(),
}
WEIGHTS = {"none": None, "min-snr": MinSNR(), "velocity": VelocityWeight(), "edm": EDMWeight()}
LOSSES = {"squared": Squared(), "pseudo-huber": PseudoHuber()}
NETWORKS: Mapping[str, type[nn.Module]] = {"unet": UNet, "dit": DiT, "mlp": MLP}
SOLVERS: Mapping[str, Callable[[Affine], Solver]] = {
    "ab2": lambda path: AdamsBashforth(2),
    "euler": lambda path: Euler(),
    "midpoint": lambda path: Midpoint(),
    "heun": lambda path: Heun(),
    "rk4": lambda path: RK4(),
    "dopri5": lambda path: Dopri5(),
    "ab1": lambda path: AdamsBashforth(1),
    "ab3": lambda path: AdamsBashforth(3),
    "ab4": lambda path: AdamsBashforth(4),
    "dpm": lambda path: DPMSolver(path),
    "unipc": lambda path: UniPC(path),
    "churn": lambda path: Churn(path),
    "stabilised": lambda path: Stabilised(),
    "stork": lambda path: Stork(2, 2),
    "mean-cache": lambda path: MeanCache(),
    "tea-cache": lambda path: TeaCache(),
}
NOISES = {
    "none": None,
    "ddim": AncestralNoise(0.0),
    "ddpm": AncestralNoise(),
    "ddpm-wide": AncestralNoise(wide=True),
    "sde": DiffusionNoise(),
    "restarts": RestartNoise(),
}
GRIDS: Mapping[str, Callable[[Affine], grids.Grid]] = {
    "uniform": lambda path: grids.Uniform(),
    "shifted": lambda path: grids.Shifted(),
    "cosine": lambda path: grids.Cosine(),
    "edm": lambda path: grids.EDM(path.schedule),
}

REFLOW = "reflow"
METHODS = (REFLOW, *FLOW_MAPS)
"""Of distilling."""

OBJECTIVES: Mapping[str, Callable[[Recipe], Recipe]] = {
    "matching": lambda recipe: recipe,
    "learned-schedule": lambda recipe: _learning(recipe, LearnedMatching(Affine(Learned()), **_shared(recipe))),
    "learned-path": lambda recipe: _learning(recipe, LearnedMatching(_interpolant(recipe), **_shared(recipe))),
    "likelihood": lambda recipe: _learning(recipe, SimulatedLikelihood(RK4())),
    **{name: partial(as_flow_map, make=make) for name, make in FLOW_MAPS.items()},
}

TABLES: Mapping[str, Mapping[str, Any]] = {
    "objective": OBJECTIVES,
    "path": PATHS,
    "coupling": COUPLINGS,
    "predict": PREDICTIONS,
    "times": TIMES,
    "weight": WEIGHTS,
    "loss": LOSSES,
    "net": NETWORKS,
    "solver": SOLVERS,
    "grid": GRIDS,
    "noise": NOISES,
}
"""Every part that can be named, and its names."""

LARGEST = 1024
"""Numbers in a state that a learned path bends: its matrices have eight times the square of them."""

OBJECTIVE = ("path", "coupling", "predict", "times", "weight", "loss")
"""Parts of the objective."""

CHANGEABLE: Mapping[type, Sequence[str]] = {
    Matching: OBJECTIVE,
    LearnedMatching: ("coupling", "times"),
    FlowMapMatching: ("path", "coupling", "times", "loss", "backward"),
}
"""Those that an objective has."""

KNOBS = ("data", "source", "size", "width", "net", "channels", "mirrored", "noisy")
"""Options that a recipe resolves itself, where it knows them."""


def part(table: str, name: str) -> Any:
    """The part of this name.

    Raises:
        InputError: if there is none; the nearest name is suggested.
    """
    names = TABLES[table]
    # Presets have the names of the library's functions, too.
    name = name.replace("_", "-")
    if name not in names:
        raise InputError(f"there is no {table} {name!r}; {nearest(name, names)}")
    return names[name]


def names_table() -> str:
    """Options, their names, and the default, as lines of text."""
    lines = [f"  --{table:<10} {', '.join(names)}" for table, names in TABLES.items()]
    return "parts by name (the first is the default, where the recipe has no better one):\n" + "\n".join(lines)


def find_recipe(name: str) -> Callable[..., Any]:
    """The function that resolves a recipe: one of rheos's by name, or ``package.module:function``.

    Raises:
        InputError: if there is none of this name.
    """
    if name in RECIPES:
        return RECIPES[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise InputError(f"there is no recipe {name!r}; {nearest(name, RECIPES)} Your own is package.module:function.")
    if not all(word.isidentifier() for word in (*module.split("."), function)):
        raise InputError(f"a recipe of your own is named package.module:function, got {name!r}.")
    look_here()
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the recipe {name!r} cannot be imported: {error}. Is its folder on PYTHONPATH?") from error
    if not callable(found):
        raise InputError(f"the recipe {name!r} must be a function that returns a Recipe, got {found!r}.")
    return found


def look_here() -> None:
    """Let modules that a user names be found in the folder that the command runs in, after all others."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def resolve(name: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe with every option applied that was given.

    Args:
        name: of the recipe.
        options: by name: knobs of the recipe, names of parts, and fields of ``Training``.
    """
    function = find_recipe(name)
    signature = inspect.signature(function)
    knobs = {key: options[key] for key in KNOBS if key in options}
    if "net" in knobs:
        knobs["network"] = part("net", knobs.pop("net"))
    for key in knobs.keys() - signature.parameters.keys():
        raise InputError(f"the recipe {name!r} has no --{'net' if key == 'network' else key}; leave it out.")
    try:
        signature.bind(**knobs)
    except TypeError as error:
        raise InputError(
            f"the recipe {name!r} must be a function that can be called with no more than the options given ({error})."
        ) from error
    recipe = function(**knobs)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{name} must return a rheos.recipes.Recipe, it returned {type(recipe).__name__}.")
    if "objective" in options:
        recipe = part("objective", options["objective"])(recipe)
    chosen = {key: part(key, options[key]) for key in OBJECTIVE if key in options}
    if "backward" in options:
        chosen["backward"] = options["backward"]
    if chosen:
        recipe = dataclasses.replace(recipe, objective=with_parts(recipe.objective, chosen))
    recipe = with_sampling(recipe, options)
    fields = {field.name for field in dataclasses.fields(recipe.training)}
    numbers = {key: value for key, value in options.items() if key in fields}
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **numbers)) if numbers else recipe


def _learning(recipe: Recipe, objective: Objective[Any]) -> Recipe:
    return dataclasses.replace(recipe, objective=objective)


def _interpolant(recipe: Recipe) -> LearnedInterpolant:
    """A learned path between learned ends of time.

    Raises:
        InputError: if the states are too large for the matrices of the default correction.
    """
    size = math.prod(recipe.kind.shape)
    if size > LARGEST:
        raise InputError(
            f"--objective learned-path bends states of at most {LARGEST} numbers, these have {size}; take "
            "--objective learned-schedule, or a recipe of your own with another paths.LearnedInterpolant."
        )
    return LearnedInterpolant(Correction, {"shape": recipe.kind.shape}, Learned())


def _shared(recipe: Recipe) -> dict[str, Any]:
    """What a learned path takes over from the recipe's own objective."""
    own = recipe.objective
    return {name: getattr(own, name) for name in ("coupling", "times", "source") if hasattr(own, name)}


def with_parts(objective: Any, chosen: Mapping[str, Any]) -> Any:
    """An objective with other parts; of one on pairs, what is asked between them.

    Raises:
        InputError: if it has no such part.
    """
    if isinstance(objective, Rectified):
        return dataclasses.replace(objective, inner=with_parts(objective.inner, chosen))
    changeable = next((names for sort, names in CHANGEABLE.items() if isinstance(objective, sort)), ())
    for name in chosen:
        if name not in changeable:
            raise InputError(
                f"{type(objective).__name__} has no --{name}; leave it out, or take an --objective that has it."
            )
    return dataclasses.replace(objective, **chosen)


def with_sampling(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """The recipe with the solver, grid, noise and guidance that were asked for.

    Raises:
        InputError: if there is no such part, or nothing to guide.
    """
    changes: dict[str, Any] = {}
    path = getattr(recipe.objective, "path", Affine())
    if "solver" in options:
        changes["solver"] = part("solver", options["solver"])(path)
    if "grid" in options:
        changes["grid"] = part("grid", options["grid"])(path)
    if "noise" in options:
        changes["noise"] = part("noise", options["noise"])
    if isinstance(recipe.guidance, Told):
        if options.get("zero_star", False):
            raise InputError("--zero-star contrasts a class with none, and this run has its guidance built in.")
        if "guidance" in options:
            changes["guidance"] = dataclasses.replace(recipe.guidance, scale=options["guidance"])
    elif "guidance" in options:
        changes["guidance"] = guidance_of(options["guidance"], options.get("zero_star", False))
    elif options.get("zero_star", False):
        raise InputError("--zero-star is a manner of guidance; give --guidance X with it.")
    if changes.get("guidance") is not None and not recipe.kind.classes:
        raise InputError("guidance contrasts a class with none, and this run has no classes; leave --guidance out.")
    return dataclasses.replace(recipe, **changes)


def guidance_of(scale: float, zero_star: bool) -> Guidance | None:
    """Classifier-free guidance of a scale, or its zero-star variant; none at scale 1.

    Raises:
        InputError: if the scale is not finite.
    """
    if not math.isfinite(scale):
        raise InputError(f"a guidance scale is a finite number, got {scale}.")
    if scale == 1.0 and not zero_star:
        return None
    return ZeroStar(scale) if zero_star else ClassifierFree(scale)
