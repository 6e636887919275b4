"""``rheos sample``: samples of a run, into a file or a folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from ..core import InputError, nearest
from ..recipes import Kind, Sampler, with_source
from .parts import with_sampling
from .plan import by_plan
from .train import open_run, trained_network


def sample(args: argparse.Namespace) -> int:
    """Draw samples and write them by the ending of ``--out``."""
    run = open_run(args)
    out = args.out or run.folder / f"samples{run.recipe.kind.endings[0]}"
    check_ending(run.recipe.kind, out)
    if args.steps is not None and args.evaluations is not None:
        raise InputError("give --steps or --evaluations, not both: one follows from the other.")
    for name in ("n", "steps", "evaluations"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}.")
    chosen = ("solver", "grid", "noise", "guidance", "zero_star")
    options = {key: getattr(args, key) for key in chosen if getattr(args, key) is not None}
    recipe = with_source(with_sampling(run.recipe, options), "held_out")
    labels = _labels(args.label, recipe.kind, args.n)
    network = trained_network(run, args.device)
    # What is asked for by name is taken literally.
    literal = args.steps is not None or any(getattr(args, key) is not None for key in ("solver", "grid", "noise"))
    found = None if literal else by_plan(run, recipe, network, args.evaluations)
    recipe, entry = (recipe, None) if found is None else found
    if args.compile:
        network.compile()
    began = time.perf_counter()
    sampler = Sampler(recipe, network, args.seed, args.batch)
    drawn = sampler.draw(args.n, labels, steps=args.steps, evaluations=args.evaluations)
    took = time.perf_counter() - began
    recipe.kind.write(drawn.states, drawn.labels, out)
    how = type(recipe.solver).__name__ if entry is None else f"by the plan: {entry}"
    print(
        f"{args.n} samples in {took:.1f} s, {drawn.evaluations} evaluations ({drawn.passes} network passes) each, "
        f"{how}, seed {args.seed}: {out}"
    )
    return 0


def check_ending(kind: Kind, out: Path) -> None:
    """Refuse a file that this kind of data cannot write, before anything is computed."""
    if out.suffix not in kind.endings:
        known = ", ".join(ending or "a folder" for ending in kind.endings)
        raise InputError(f"--out {out} ends in {out.suffix or 'nothing'!r}; this kind of data is written as {known}.")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist; make it first.")
    if out.suffix and out.is_dir():
        raise InputError(f"--out {out} is a folder, a {out.suffix} file was asked for; give another name.")
    if not out.suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists and is not an empty folder; give another name.")


def _labels(asked: list[str] | None, kind: Kind, count: int) -> Tensor | None:
    """The classes asked for, in turn; by name or by number."""
    if not asked:
        return None
    if not kind.classes:
        raise InputError("this run has no classes; leave --label out.")
    numbers = []
    for name in asked:
        if name in kind.classes:
            numbers.append(kind.classes.index(name))
        elif name.isdecimal() and int(name) < len(kind.classes):
            numbers.append(int(name))
        else:
            raise InputError(f"there is no class {name!r}; {nearest(name, kind.classes)}")
    return torch.tensor(numbers)[torch.arange(count) % len(numbers)]
