"""``rheos evaluate``: figures of merit of a run, as a table, as JSON and as a page."""

from __future__ import annotations

import argparse

from ..core import DataError, InputError
from ..evaluation import Report
from ..nn import parameter_count
from ..recipes import Run, Sampler
from .parts import with_sampling
from .train import trained_network


def evaluate(args: argparse.Namespace) -> int:
    """Measure a run against held-out data; prints the table, writes ``evaluation.json`` and ``report.html``."""
    run = Run.open(args.run, args.trust)
    if args.n < 10:
        raise InputError(f"--n must be at least 10 samples to measure anything, got {args.n}.")
    options = {key: getattr(args, key) for key in ("solver", "grid", "guidance") if getattr(args, key)}
    recipe = with_sampling(run.recipe, options)
    network = trained_network(run, args.device)
    splits = recipe.kind.open(recipe.data.path)
    if splits.fingerprint != recipe.data.fingerprint:
        raise DataError(
            f"the data at {recipe.data.path} are no longer those that the run learned from; held-out data would not be "
            "held out. Restore them, or train a new run."
        )
    sampler = Sampler(recipe, network, args.seed, args.batch)
    findings = recipe.kind.measure(sampler, splits, args.n, run.measures, args.weights)
    facts = {
        "run": run.folder.name,
        "recipe": recipe.name,
        "data": recipe.data.path or "built in",
        "network": f"{recipe.network.network.__name__}, {parameter_count(network):,} parameters",
        "sampler": f"{type(recipe.solver).__name__}, {sampler.evaluations} evaluations",
        "samples": args.n,
        "seed": args.seed,
    }
    report = Report(f"{run.folder.name}: {recipe.name}", facts, findings)
    print(report.table())
    (run.folder / "evaluation.json").write_text(report.json())
    pictures = sorted(run.samples.glob("*.png"))
    (run.folder / "report.html").write_text(
        report.page({"Samples at the end of training": pictures[-1]} if pictures else {})
    )
    print(f"\n{run.folder / 'evaluation.json'}, {run.folder / 'report.html'}")
    return 0
