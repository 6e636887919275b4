"""What stands at t = 0 of a run that carries data to data: samples of another set, which a recipe only names."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from ..core import DataError, InputError, Rng
from ..data import Dataset
from ..objectives import Rectified, Samples
from .recipe import Recipe

MOST = 60_000
"""States of a source that are held in memory, at most."""

Part = Literal["training", "held_out"]


def with_source(recipe: Recipe, part: Part) -> Recipe:
    """The recipe with the data of its source at hand: those to train on, or those held out, on which it is shown and
    measured. A recipe that starts from noise stays as it is.

    Raises:
        DataError: if the source is no longer what it was.
        InputError: if the objective has no source.
    """
    if recipe.source is None:
        return recipe
    splits = recipe.kind.open(recipe.source.path)
    if splits.fingerprint != recipe.source.fingerprint:
        raise DataError(
            f"the source at {recipe.source.path} is no longer the one that the run was made with; restore it, or train "
            "a new run."
        )
    return starting_at(recipe, Samples(_states(recipe, splits.training if part == "training" else splits.held_out)))


def starting_at(recipe: Recipe, source: Samples) -> Recipe:
    """The recipe with its trajectories starting at given states.

    Raises:
        InputError: if the objective has no source.
    """
    objective = recipe.objective
    if not dataclasses.is_dataclass(objective) or not hasattr(objective, "source"):
        raise InputError(f"{type(objective).__name__} has no source that could be another set of data.")
    if isinstance(objective, Rectified):
        inner = dataclasses.replace(objective.inner, source=source)
        return dataclasses.replace(recipe, objective=dataclasses.replace(objective, inner=inner))
    return dataclasses.replace(recipe, objective=dataclasses.replace(objective, source=source))  # pyright: ignore


def _states(recipe: Recipe, dataset: Dataset) -> Tensor:
    """The states of a set, each read by a key of its own, :data:`MOST` of them at most."""
    rng = Rng(0)
    index = torch.arange(len(dataset))
    if len(dataset) > MOST:
        index = rng.permutation(len(dataset))[:MOST].sort()[0]
    values, _ = dataset.take(index)
    return recipe.kind.read(values, rng.rows(index))
