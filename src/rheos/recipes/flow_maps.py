"""A recipe that learns a flow map, and is sampled in one step or a few."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..core import InputError
from ..dynamics import RestartNoise
from ..guidance import Told
from ..objectives import (
    Compositional,
    FlowMapMatching,
    consistency,
    consistency_flow_matching,
    continuous_consistency,
    improved_mean_flow,
    lagrangian,
    mean_flow,
    shortcut,
)
from ..objectives.times import Times, Uniform
from ..paths import Affine
from ..solvers import Euler, grids
from .recipe import Build, Recipe

FLOW_MAPS: Mapping[str, Callable[..., FlowMapMatching]] = {
    "mean-flow": mean_flow,
    "improved-mean-flow": improved_mean_flow,
    "lagrangian": lagrangian,
    "shortcut": shortcut,
    "consistency": consistency,
    "consistency-flow-matching": consistency_flow_matching,
    "continuous-consistency": continuous_consistency,
}
"""Flow maps by the names that commands call them."""

SHARED = ("path", "coupling", "source")
"""What a flow map takes over from the objective that it replaces."""


def as_flow_map(recipe: Recipe, make: Callable[..., FlowMapMatching]) -> Recipe:
    """The recipe with a flow map in place of its flow: a network of two times, sampled in one step.

    Args:
        recipe: of matching.
        make: the objective, from the parts that it takes over.

    Raises:
        InputError: if the network cannot be told a second time, or is to learn guidance and cannot be told a scale, or
            has no classes to guide.
    """
    own = recipe.objective
    shared = {name: getattr(own, name) for name in SHARED if hasattr(own, name)}
    if shared.get("path") == Affine():
        # Straight lines are nobody's choice: some objectives have a path of their own.
        del shared["path"]
    made = make(**shared)
    times: Times | None = getattr(own, "times", None)
    if times is not None and made.times == Uniform():
        made = replace(made, times=times)
    # Exact derivatives know no normalisation of images in channels-last.
    plain = made.how == "exact" and not isinstance(made.identity, Compositional)
    training = replace(recipe.training, channels_last=False) if plain else recipe.training
    network, guidance = two_times(recipe.network), recipe.guidance
    if (scales := made.guided) is not None:
        if not recipe.kind.classes:
            raise InputError("guidance contrasts a class with none, and these data have no classes; leave guided out.")
        network, guidance = told_a_scale(network), Told(scales.middle, scales.low, scales.high)
    return replace(
        recipe,
        network=network,
        objective=made,
        solver=Euler(),
        grid=grids.Uniform(),
        evaluations=max(1, made.segments),
        guidance=guidance,
        training=training,
        # A map that leads to data only takes another step from there.
        noise=RestartNoise() if made.segments == 1 and made.coupling.independent else None,
    )


def two_times(build: Build) -> Build:
    """The same network, told where a step ends.

    Raises:
        InputError: if it cannot be.
    """
    return _with(build, "two_times", "a flow map wants a network that is told where a step ends", "a second time")


def told_a_scale(build: Build) -> Build:
    """The same network, told a scale of guidance.

    Raises:
        InputError: if it cannot be.
    """
    return _with(build, "guided", "guidance of several scales wants a network that is told one", "a scale")


def _with(build: Build, option: str, wanted: str, addition: str) -> Build:
    """The network with an option switched on that it must have."""
    if option not in inspect.signature(build.network).parameters:
        raise InputError(
            f"{wanted}, and {build.network.__name__} has no {option}; take nn.MLP, nn.UNet or nn.DiT, or add "
            f"{addition} to it."
        )
    options: dict[str, Any] = {**build.options, option: True}
    return Build(build.network, options)
