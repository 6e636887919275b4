"""What a run learns from: the data, or what a teacher makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..core import Objective
from ..data import Dataset, Read
from ..objectives import Rectified
from ..training import Layout
from .distilling import with_teacher
from .recipe import Splits
from .reflow import made_pairs
from .run import Run
from .sources import with_source


class Lesson(NamedTuple):
    """What :func:`~rheos.training.fit` is given.

    Args:
        objective: with its teacher and its source at hand.
        dataset: the data.
        read: raw data to states; as they are when ``None``.
    """

    objective: Objective[Tensor]
    dataset: Dataset
    read: Read | None


def lesson(
    run: Run,
    splits: Splits,
    teacher: nn.Module | None = None,
    tell: Callable[[str], Any] = lambda line: None,
    layout: Layout = Layout(),
) -> Lesson:
    """What a run learns from. A teacher makes the pairs of a reflow where they are not there yet.

    Args:
        run: the run; of one that makes pairs, the folder is there.
        splits: the data.
        teacher: the network that it is distilled from, with its averaged weights, on the device of the training; unused
            by a run that names no teacher.
        tell: is told how many pairs are made.
        layout: the processes that make them together.

    Raises:
        CheckpointError: if the teacher is no longer what it was.
        DataError: if the source is no longer what it was.
    """
    recipe = with_source(run.recipe, "training")
    if teacher is not None and recipe.teacher is not None:
        recipe = with_teacher(recipe, teacher)
        if isinstance(recipe.objective, Rectified):
            return Lesson(recipe.objective, made_pairs(run, teacher, splits, tell, layout), None)
    return Lesson(recipe.objective, splits.training, recipe.kind.read)
