"""How one side trains: by one objective, or half of its steps by another that its network comes from.

Each part is a run folder like any other. That of the first half stands within that of the second, which begins at its
averaged weights; a student learns from them besides, as ``rheos distill`` would have it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import nn

from ..core import DivergedError, InputError
from ..core.files import write_whole
from ..data import Shuffled
from ..objectives import Rectified
from ..recipes import Drawn, Judge, Lesson, Recipe, Run, Sampler, Splits, lesson, reference, reflow, started
from ..training import Training, fit
from .contenders import Contender

LEARNING = 20
"""Evaluations of the samples by which a model is looked at while it learns."""

MARKS = 4
"""Looks at a model while it learns."""

BEFORE = "before"
"""The folder of the training that a network comes from, within that of the one that goes on."""

PAIRS = "pairs.json"
"""Where the seconds stand in which pairs were made."""


class Phase(NamedTuple):
    """A training by one objective.

    Args:
        run: its folder and recipe.
        lesson: what it learned from.
        average: the averaged network that it ended with.
    """

    run: Run
    lesson: Lesson
    average: nn.Module

    @property
    def pairs(self) -> int:
        """Pairs that were made for it."""
        recipe = self.run.recipe
        made = isinstance(recipe.objective, Rectified) and isinstance(recipe.order, Shuffled)
        return recipe.order.count if made else 0  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def evaluations(self) -> int:
        """Evaluations of the network before it, a row each, that made what it learned from."""
        return self.pairs * reflow.STEPS


@final
@dataclass(frozen=True)
class Trainer:
    """Trains sides, or the rest of them.

    Args:
        splits: the data.
        judge: measures samples.
        count: samples of a look.
        device: where to train.
    """

    splits: Splits
    judge: Judge
    count: int
    device: torch.device

    def __call__(self, side: Contender, folder: Path, rate: float, seed: int) -> list[Phase]:
        """The parts of a training, the last of which is the side's own; each goes on where it stopped.

        Raises:
            DivergedError: if a loss or a sample does not become finite.
        """
        steps = side.recipe.training.steps
        if side.before is None:
            return [self._phase(folder, side.recipe, side.accurate, steps, rate, seed)]
        half = steps // 2
        first = self._phase(folder / BEFORE, side.before, side.before, half, rate, seed)
        recipe = side.recipe
        if side.learns:
            recipe = replace(recipe, teacher=reference(first.run, first.average))
        return [first, self._phase(folder, recipe, side.accurate, steps - half, rate, seed, first)]

    def _phase(
        self,
        folder: Path,
        recipe: Recipe,
        shown: Recipe,
        steps: int,
        rate: float,
        seed: int,
        before: Phase | None = None,
    ) -> Phase:
        """Some steps of one objective, in as small parts as the memory asks for."""
        base = recipe.training
        every = max(1, base.steps // MARKS)
        settings = replace(
            base,
            steps=steps,
            learning_rate=rate,
            sample_every=every,
            checkpoint_every=every,
            keep=1,
            snapshots=0,
        )
        while True:
            run = Run(folder, replace(recipe, training=settings), seed, {})
            if not (folder / "run.json").exists():
                run.create()
            try:
                return self._fitted(run, shown, before)
            except torch.OutOfMemoryError:
                settings = _smaller(settings)

    def _fitted(self, run: Run, shown: Recipe, before: Phase | None) -> Phase:
        def look(step: int, average: nn.Module) -> None:
            drawn = Sampler(shown, average, run.seed).draw(self.count, evaluations=LEARNING)
            known = _looks(run.folder) | {str(step): distance(drawn, self.judge)}
            write_whole(run.folder / "learning.json", json.dumps(known) + "\n", sync=False)

        teacher = None if before is None else before.average
        taught = lesson(run, self.splits, teacher, _Watch(run.folder))
        network = run.network()
        found = fit(
            network,
            taught.objective,
            taught.dataset,
            run.recipe.order,
            run.recipe.training,
            seed=run.seed,
            out=run.folder,
            device=self.device,
            draw_samples=look,
            read=taught.read,
            start_from=None if before is None else started(network, before.run.folder),
            progress=False,
            forecast=False,
        )
        return Phase(run, taught, found.average)


def distance(drawn: Drawn, judge: Judge) -> float:
    """The figure of samples.

    Raises:
        DivergedError: if they are not finite.
    """
    if not bool(drawn.states.isfinite().all()):
        raise DivergedError(f"samples of {drawn.evaluations} evaluations are not finite.")
    return judge.distance(drawn.states)


def learning(folder: Path) -> dict[str, float]:
    """Quality by steps, those before included."""
    before = _looks(folder / BEFORE)
    done = max(map(int, before), default=0)
    return before | {str(done + int(step)): value for step, value in _looks(folder).items()}


def training_seconds(folder: Path) -> float:
    """Wall seconds of all steps, from the journals, and of the pairs that were made for them."""
    total, last = (training_seconds(folder / BEFORE) if (folder / BEFORE).exists() else 0.0), 0
    for line in _lines(folder / "metrics.jsonl"):
        total += line["seconds"] * (line["step"] - last)
        last = line["step"]
    return total + pairing_seconds(folder)


def pairing_seconds(folder: Path) -> float:
    """Wall seconds in which the pairs of a run were made; none where it has none."""
    file = folder / PAIRS
    return json.loads(file.read_text())["seconds"] if file.exists() else 0.0


@final
class _Watch:
    """Adds up the seconds from one line that it is told to the next, over every time that a run goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.since = folder, time.perf_counter()

    def __call__(self, line: str) -> None:
        now = time.perf_counter()
        total = pairing_seconds(self.folder) + now - self.since
        write_whole(self.folder / PAIRS, json.dumps({"made": line, "seconds": total}) + "\n", sync=False)
        self.since = now


def _looks(folder: Path) -> dict[str, float]:
    file = folder / "learning.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_text().splitlines())


def _smaller(settings: Training) -> Training:
    """The same global batch in parts of half the size.

    Raises:
        InputError: if the parts cannot be halved.
    """
    if settings.batch % (2 * settings.accumulate):
        raise InputError(
            f"the device has too little memory for parts of {settings.batch // settings.accumulate} rows, and they "
            "cannot be halved; give a smaller --batch or --width."
        )
    return replace(settings, accumulate=2 * settings.accumulate)
