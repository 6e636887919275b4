"""``rheos evaluate``: figures of merit of a run, as a table, as JSON and as a page."""

from __future__ import annotations

import argparse

from ..core import InputError
from ..evaluation import Report
from ..nn import parameter_count
from ..recipes import Recipe, Sampler, write_whole
from ..solvers import FixedStep
from .parts import with_sampling
from .train import check_unchanged, open_run, trained_network


def evaluate(args: argparse.Namespace) -> int:
    """Measure a run against held-out data; prints the table, writes ``evaluation.json`` and ``report.html``."""
    run = open_run(args)
    if args.n < 10:
        raise InputError(f"--n must be at least 10 samples to measure anything, got {args.n}.")
    options = {key: getattr(args, key) for key in ("solver", "grid", "guidance") if getattr(args, key) is not None}
    recipe = with_sampling(run.recipe, options)
    network = trained_network(run, args.device)
    splits = recipe.kind.open(recipe.data.path)
    check_unchanged(run, splits)
    sampler = Sampler(recipe, network, args.seed, args.batch)
    findings = recipe.kind.measure(sampler, splits, args.n, run.measures, args.weights)
    facts = {
        "run": run.folder.name,
        "recipe": recipe.name,
        "data": recipe.data.path or "built in",
        "network": f"{recipe.network.network.__name__}, {parameter_count(network):,} parameters",
        "sampler": f"{type(recipe.solver).__name__}, {_cost(recipe)}",
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


def _cost(recipe: Recipe) -> str:
    solver = recipe.solver
    if not isinstance(solver, FixedStep):
        return "as many evaluations as its tolerances need"
    return f"{solver.evaluations(solver.steps(recipe.evaluations))} evaluations"
