"""A recipe that learns a flow map, and is sampled in one step or a few."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core import InputError
from ..dynamics import RestartNoise
from ..objectives import Compositional, FlowMapMatching
from ..objectives.times import Times, Uniform
from ..paths import Affine
from ..solvers import Euler, grids
from .recipe import Build, Recipe

SHARED = ("path", "coupling", "source")
"""What a flow map takes over from the objective that it replaces."""


def as_flow_map(recipe: Recipe, make: Callable[..., FlowMapMatching]) -> Recipe:
    """The recipe with a flow map in place of its flow: a network of two times, sampled in one step.

    Args:
        recipe: of matching.
        make: the objective, from the parts that it takes over.

    Raises:
        InputError: if the network cannot be told a second time.
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
    return replace(
        recipe,
        network=two_times(recipe.network),
        objective=made,
        solver=Euler(),
        grid=grids.Uniform(),
        evaluations=max(1, made.segments),
        training=training,
        # A map that leads to data only takes another step from there.
        noise=RestartNoise() if made.segments == 1 and made.coupling.independent else None,
    )


def two_times(build: Build) -> Build:
    """The same network, told where a step ends.

    Raises:
        InputError: if it cannot be.
    """
    if "two_times" not in inspect.signature(build.network).parameters:
        raise InputError(
            f"a flow map wants a network that is told where a step ends, and {build.network.__name__} has no "
            "two_times; take nn.MLP, nn.UNet or nn.DiT, or add a second time to it."
        )
    options: dict[str, Any] = {**build.options, "two_times": True}
    return Build(build.network, options)
