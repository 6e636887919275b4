"""``rheos distill``: a run that samples in one to four steps, made from a trained one."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from ..core import CheckpointError, Guidance, InputError, nearest
from ..core.files import write_whole
from ..guidance import Interval
from ..objectives import Rectified, Scales
from ..recipes import (
    FLOW_MAPS,
    PAIRS,
    Judge,
    Recipe,
    Run,
    Sampler,
    distilled,
    encode,
    rectified,
    started,
    teaching,
    with_source,
)
from ..training import checkpoint
from .parts import METHODS, REFLOW, guidance_of, with_parts
from .train import chosen_device, leads, open_run, trained, trained_network

MOST = 4
"""Steps that a student is made for, at most."""

STEPS = (1, 2, 4)
"""In which students are looked at while they learn."""

COUNT = 600
"""Samples of each look."""

LOOKS = 10
"""Over a training."""

PATIENCE, GAIN = 4, 0.02
"""A training ends when so many looks in a row have not made the best figure smaller by this share."""

FILE = "distillation.json"


def distill(args: argparse.Namespace) -> int:
    """Make a student of a run, or go on with it."""
    method = args.to.replace("_", "-")
    if method not in METHODS:
        raise InputError(f"a run cannot be distilled to {args.to!r}; {nearest(method, METHODS)}")
    if not 1 <= args.steps <= MOST:
        raise InputError(f"a student takes from 1 to {MOST} --steps, got {args.steps}; `rheos plan` serves more.")
    teacher = open_run(args)
    device = chosen_device(args.device)
    network = trained_network(teacher, args.device)
    folder = args.out or teacher.folder.with_name(f"{teacher.folder.name}-{method}")
    run, new = _prepared(args, method, teacher, network, folder)
    look = _Looks(run, teacher, network)
    if look.enough(checkpoint.latest_valid(folder / "checkpoints") or 0):
        if leads():
            print(f"{folder} has taken all that helped of its steps. {look.summary()}.")
        return 0
    student = run.network()
    start = None if checkpoint.steps(folder / "checkpoints") else started(student, teacher.folder)
    began = time.perf_counter()
    fitted = trained(run, new, device, student, start, network, look)
    if leads():
        early = "" if fitted.step == run.recipe.training.steps else ", where it no longer helped"
        print(f"{look.summary()}; {fitted.step:,} steps{early}, {time.perf_counter() - began:.0f} s of this command.")
        if method == REFLOW:
            print(look.straightness(fitted.average))
        print(f"next: rheos sample {folder}, or rheos evaluate {folder}")
    return 0


def _prepared(
    args: argparse.Namespace, method: str, teacher: Run, network: nn.Module, folder: Path
) -> tuple[Run, bool]:
    """The student in a folder, and whether it is yet to be made."""
    named = ("steps", "guidance", "training_steps", "pairs", "backward")
    options = {name: value for name in named if (value := getattr(args, name)) is not None}
    options = {"to": method, **options}
    if args.guidance is not None and len(args.guidance) == 1:
        options["guidance"] = args.guidance[0]
    if args.interval is not None:
        options["interval"] = args.interval
    request = {"recipe": "distill", "options": options, "from": str(teacher.folder.expanduser().resolve())}
    if Run.exists(folder):
        run = Run.open(folder, args.trust)
        if run.request != request or (args.seed is not None and args.seed != run.seed):
            raise CheckpointError(
                f"{folder} was made by another command ({_words(run)}); give --out another name, or the same options."
            )
        return run, False
    guidance = _guidance(args)
    pairs = PAIRS if args.pairs is None else args.pairs
    if args.pairs is not None and method != REFLOW and not isinstance(teacher.recipe.objective, Rectified):
        raise InputError(
            "--pairs are those that reflow, and the map of a straightened run, learn from; leave them out, or take "
            "--to reflow."
        )
    if method == REFLOW:
        recipe = rectified(teacher, network, pairs, args.steps, guidance)
    else:
        recipe = distilled(teacher, network, FLOW_MAPS[method], args.steps, guidance, pairs)
    if args.backward is not None:
        recipe = replace(recipe, objective=with_parts(recipe.objective, {"backward": args.backward}))
    training = recipe.training
    steps = training.steps if args.training_steps is None else args.training_steps
    training = replace(training, steps=steps, sample_every=max(1, steps // LOOKS))
    recipe = replace(recipe, training=training)
    encode(recipe)
    return Run(folder, recipe, args.seed or 0, request), True


def _guidance(args: argparse.Namespace) -> Guidance | Scales | None:
    """What is to be built in: guidance of one scale, or a range of scales."""
    asked: list[float] = args.guidance or []
    if len(asked) > 2:
        raise InputError(f"--guidance is one scale, or LOW and HIGH of a range, got {len(asked)} numbers.")
    if len(asked) == 2:
        return Scales(*asked, *(args.interval or ()))
    guidance = guidance_of(asked[0], False) if asked else None
    if args.interval is None:
        return guidance
    if guidance is None:
        raise InputError("--interval says when guidance acts, and there is none; give --guidance X, other than 1.")
    return Interval(guidance, *args.interval)


def _words(run: Run) -> str:
    asked = ", ".join(f"{name} {value}" for name, value in run.request.get("options", {}).items())
    return f"recipe {run.request.get('recipe')}, {asked}, seed {run.seed}"


class _Looks:
    """How good a student is in a few steps beside its teacher, while it learns.

    What was seen is kept in the run folder, so that a run which goes on decides as one that was never stopped.
    """

    def __init__(self, run: Run, teacher: Run, network: nn.Module) -> None:
        self.run, self.original, self.network = run, teacher, network
        self.recipe = with_source(run.recipe, "held_out")
        self.file = run.folder / FILE
        try:
            found: dict[str, Any] = json.loads(self.file.read_text()) if self.file.is_file() else {}
            self.teacher: dict[str, float] = dict(found.get("teacher", {}))
            self.student: dict[int, dict[str, float]] = {
                int(step): dict(figures) for step, figures in found.get("student", {}).items()
            }
        except (ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.file} is damaged ({error}); restore it from a copy.") from error

    @cached_property
    def judge(self) -> Judge:
        """The figure; what it has to learn is the teacher's to keep."""
        return self.recipe.kind.judge(self.recipe.kind.open(self.recipe.data.path), self.original.measures)

    def __call__(self, step: int, average: nn.Module) -> bool:
        self.teacher = self.teacher or self._teaching()
        sampler = Sampler(self.recipe, average, self.run.seed)
        self.student[step] = {
            str(steps): self.judge.distance(sampler.draw(COUNT, steps=steps).states) for steps in self._steps
        }
        self.student = {known: self.student[known] for known in sorted(self.student) if known <= step}
        content = {"figure": self.judge.name, "floor": self.judge.floor, "teacher": self.teacher}
        write_whole(self.file, json.dumps({**content, "student": self.student}, indent=1) + "\n")
        print(f"step {step:,}: {self.summary()}", flush=True)
        return self.enough(step)

    def enough(self, step: int) -> bool:
        """Whether the figures up to a step say that more training does not help."""
        seen = [figures[self._own] for known, figures in self.student.items() if known <= step]
        if len(seen) <= PATIENCE:
            return False
        return min(seen[-PATIENCE:]) > (1 - GAIN) * min(seen[:-PATIENCE])

    def summary(self) -> str:
        """Teacher and student side by side."""
        last = self.student[max(self.student)] if self.student else {}
        return f"{self.judge.name}: {_told(last, 'step')}; teacher {_told(self.teacher, 'evaluation')}"

    def straightness(self, average: nn.Module) -> str:
        """How straight trajectories were, and are."""
        before, after = (
            Sampler(recipe, network, self.run.seed).trajectories(COUNT).straightness
            for recipe, network in ((self._taught_by, self.network), (self.recipe, average))
        )
        return f"straightness {before:.3g} before, {after:.3g} now (0 is straight)"

    @property
    def _own(self) -> str:
        return str(self.recipe.evaluations)

    @property
    def _steps(self) -> list[int]:
        return sorted({*STEPS, self.recipe.evaluations})

    @property
    def _taught_by(self) -> Recipe:
        """The teacher's recipe, as it teaches."""
        return teaching(self.original, self.recipe)

    def _teaching(self) -> dict[str, float]:
        drawn, _ = Sampler(self._taught_by, self.network, self.run.seed).curve(None, COUNT, STEPS)
        return {str(evaluations): self.judge.distance(states) for evaluations, states in drawn.items()}


def _told(figures: Mapping[str, float], unit: str) -> str:
    return ", ".join(f"{value:.3g} at {steps} {unit}{'s' if steps != '1' else ''}" for steps, value in figures.items())
