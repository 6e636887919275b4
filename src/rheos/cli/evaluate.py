"""``rheos evaluate``: figures of merit of a run, as a table, as JSON and as a page."""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..core import InputError, Rng
from ..core.files import write_whole
from ..core.rng import Stream
from ..couplings import Diagnosis
from ..data import States
from ..evaluation import Report, Row, inversion_rows, trajectory_rows
from ..nn import parameter_count
from ..recipes import Recipe, Run, Sampler, Splits, teaching, with_source
from ..solvers import FixedStep
from ..solvers.plans import fingerprint
from ..training.pairing import DIAGNOSIS
from .parts import with_sampling
from .train import check_unchanged, open_run, trained_network

BACK = (1, 4)
"""Steps in which a map leads data back."""

INVERTED, JACOBIANS = 500, 2**24
"""Data that are led back, at most, and numbers of their Jacobians together."""

FOLLOWED = 500
"""Samples whose trajectories are followed, at most."""

logger = logging.getLogger(__name__)


def evaluate(args: argparse.Namespace) -> int:
    """Measure a run against held-out data; prints the table, writes ``evaluation.json`` and ``report.html``."""
    run = open_run(args)
    if args.n < 10:
        raise InputError(f"--n must be at least 10 samples to measure anything, got {args.n}.")
    chosen = ("solver", "grid", "noise", "guidance")
    options = {key: getattr(args, key) for key in chosen if getattr(args, key) is not None}
    recipe = with_source(with_sampling(run.recipe, options), "held_out")
    network = trained_network(run, args.device)
    splits = recipe.kind.open(recipe.data.path)
    check_unchanged(run, splits)
    sampler = Sampler(recipe, network, args.seed, args.batch)
    findings = recipe.kind.measure(sampler, splits, args.n, run.measures, args.weights)
    bent = sampler.trajectories(min(args.n, FOLLOWED))
    curves = {**findings.curves, **_teacher_curves(args, run, recipe, splits)}
    rows = (*findings.rows, *trajectory_rows(bent), *_inversion(sampler, splits))
    findings = replace(findings, rows=rows, curves=curves)
    facts = {
        "run": run.folder.name,
        "recipe": recipe.name,
        "data": recipe.data.path or "built in",
        "network": f"{recipe.network.network.__name__}, {parameter_count(network):,} parameters",
        "sampler": f"{type(recipe.solver).__name__}, {_cost(recipe)}",
        "coupling": _coupling(run),
        "samples": args.n,
        "seed": args.seed,
    }
    report = Report(f"{run.folder.name}: {recipe.name}", facts, findings)
    print(report.table())
    write_whole(run.folder / "evaluation.json", report.json())
    pictures = sorted(run.samples.glob("*.png"))
    shown = {"Samples at the end of training": pictures[-1]} if pictures else {}
    write_whole(run.folder / "report.html", report.page(shown))
    print(f"\n{run.folder / 'evaluation.json'}, {run.folder / 'report.html'}")
    return 0


def _teacher_curves(
    args: argparse.Namespace, run: Run, recipe: Recipe, splits: Splits
) -> dict[str, Sequence[tuple[int, float]]]:
    """The curves of the run that this one, as the recipe samples it, was distilled from, where it is at hand."""
    named = run.recipe.teacher
    if named is None or not (Path(named.path) / "run.json").is_file():
        return {}
    teacher = Run.open(Path(named.path), args.trust)
    network = trained_network(teacher, args.device)
    if fingerprint(network) != named.fingerprint:
        logger.warning("the teacher %s is no longer the one that taught this run; it is not shown.", named.path)
        return {}
    sampler = Sampler(teaching(teacher, recipe), network, args.seed, args.batch)
    findings = teacher.recipe.kind.measure(sampler, splits, args.n, teacher.measures, args.weights)
    return {f"{name}, of the teacher": curve for name, curve in findings.curves.items()}


def _inversion(sampler: Sampler, splits: Splits) -> tuple[Row, ...]:
    """How well a map leads held-out data back to noise, where it was trained to."""
    if not sampler.leads_back:
        return ()
    kind = sampler.recipe.kind
    index = torch.arange(min(INVERTED, max(1, JACOBIANS // math.prod(kind.shape) ** 2), len(splits.held_out)))
    states, cond = States(splits.held_out, kind.read).take(index, Rng(sampler.seed).rows(index).key)
    labels = cond if isinstance(cond, Tensor) else None
    found = {steps: sampler.inverted(states, labels, steps) for steps in BACK}
    return inversion_rows(found, sampler.log_prob(states, labels, Rng(sampler.seed).fold(Stream.PROBE)))


def _coupling(run: Run) -> str:
    """The coupling of a run by name, and what it did to some thousand pairs."""
    name = type(run.recipe.objective.coupling).__name__
    file = run.folder / DIAGNOSIS
    return f"{name}: {Diagnosis(**json.loads(file.read_text()))}" if file.exists() else name


def _cost(recipe: Recipe) -> str:
    solver = recipe.solver
    if not isinstance(solver, FixedStep):
        return "as many evaluations as its tolerances need"
    return f"{solver.evaluations(solver.steps(recipe.evaluations))} evaluations"
