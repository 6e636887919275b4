"""A run from data to data names its source, and finds it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rheos.core import DataError, InputError, Rng
from rheos.data import to_unit
from rheos.objectives import Matching, Normal, Samples
from rheos.recipes import DataRef, Sampler, decode, encode, images, starting_at, toy, with_source


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    """Thirty nearly black images."""
    np.save(tmp_path / "dark.npy", np.random.default_rng(0).integers(0, 40, (30, 8, 8), dtype=np.uint8))
    return tmp_path / "dark.npy"


def test_a_recipe_names_its_source(dark: Path) -> None:
    recipe = images(source=str(dark), width=8)
    assert recipe.source is not None
    assert recipe.source.path == str(dark)
    assert recipe.objective.source == Normal()
    assert decode(encode(recipe)) == recipe
    assert images(width=8).source is None
    assert with_source(images(width=8), "training") == images(width=8)


def test_trajectories_start_at_the_source(dark: Path) -> None:
    recipe = images(source=str(dark), width=8)
    parts = {}
    for part in ("training", "held_out"):
        source = with_source(recipe, part).objective.source
        assert isinstance(source, Samples)
        parts[part] = {state.numpy().tobytes() for state in source.states}
    assert len(parts["training"]) + len(parts["held_out"]) == 30
    assert not parts["training"] & parts["held_out"]
    # An untrained network gives velocity zero, so that a sample is its start.
    bound = with_source(recipe, "held_out")
    drawn = Sampler(bound, bound.network(1)).draw(7).states
    assert {state.numpy().tobytes() for state in drawn} <= parts["held_out"]
    assert float(drawn.max()) <= float(to_unit(torch.tensor([40], dtype=torch.uint8)))


def test_a_source_that_changed_is_refused(dark: Path) -> None:
    recipe = images(source=str(dark), width=8)
    np.save(dark, np.full((30, 8, 8), 7, dtype=np.uint8))
    with pytest.raises(DataError, match="is no longer the one that the run was made with"):
        with_source(recipe, "training")


def test_given_states_are_carried_in_turn() -> None:
    recipe = toy(width=8)
    states = Rng(1).normal(3, 2)
    bound = starting_at(recipe, Samples(states, in_turn=True))
    assert torch.equal(Sampler(bound, bound.network(1)).draw(4).states, states[[0, 1, 2, 0]])
    assert isinstance(bound.objective, Matching)

    class Other:
        learned = {}  # noqa: RUF012

        def dynamics(self) -> None: ...

        def __call__(self) -> None: ...

    with pytest.raises(InputError, match="Other has no source"):
        starting_at(replace(recipe, objective=Other()), Samples(states))


def test_points_flow_from_one_shape_to_another() -> None:
    recipe = toy("moons", source="spirals", width=8)
    assert recipe.source == replace(recipe.source, path="spirals")
    assert isinstance(recipe.source, DataRef)
    source = with_source(recipe, "training").objective.source
    assert source.states.shape == (20_000, 2)
    with pytest.raises(InputError, match="no toy distribution 'spirls'"):
        toy("moons", source="spirls")
