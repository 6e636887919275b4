"""``rheos train``: a new run, or the rest of one that is there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import CheckpointError, InputError
from ..nn import parameter_count
from ..recipes import Run, Sampler, encode
from ..training import fit, load_weights
from .parser import NUMBERS, SWITCHES
from .parts import KNOBS, TABLES, resolve

OPTIONS = (*KNOBS, *TABLES, *NUMBERS, *SWITCHES, "precision", "guidance")
"""Options that a recipe is resolved from."""

SHOWN = 100
"""Samples in the pictures that are drawn while a run learns."""


def train(args: argparse.Namespace) -> int:
    """Train, or go on; samples and checkpoints appear in the run folder as it goes."""
    device = chosen_device(args.device)
    run = _prepare(args)
    splits = run.recipe.kind.open(run.recipe.data.path)
    network = run.network()
    settings = run.recipe.training
    if _leads():
        print(
            f"{run.folder}: {run.recipe.name}, {run.recipe.data.count:,} training data, "
            f"{run.recipe.network.network.__name__} with {parameter_count(network):,} parameters, "
            f"{settings.steps:,} steps of {settings.batch}, on {device}"
        )
    shown = SHOWN // (len(run.recipe.kind.classes) or 1) * (len(run.recipe.kind.classes) or 1) or SHOWN

    def draw_samples(step: int, average: nn.Module) -> None:
        run.samples.mkdir(exist_ok=True)
        drawn = Sampler(run.recipe, average, run.seed).draw(shown)
        run.recipe.kind.write(drawn.states, drawn.labels, run.samples / f"step-{step:06d}{run.recipe.kind.endings[0]}")

    fit(
        network,
        run.recipe.objective,
        splits.training,
        run.recipe.order,
        settings,
        seed=run.seed,
        out=run.folder,
        device=device,
        draw_samples=draw_samples,
        read=run.recipe.kind.read,
        start_from=None if args.source is None else _weights_of(args.source),
    )
    if _leads():
        last = run.samples / f"step-{settings.steps:06d}{run.recipe.kind.endings[0]}"
        print(f"done. Samples: {last if last.exists() else run.folder}")
        print(f"next: rheos sample {run.folder}, or rheos evaluate {run.folder}")
    return 0


def trained_network(run: Run, device: str | None) -> nn.Module:
    """The network of a run with its averaged weights, ready to sample."""
    network = run.network()
    weights = load_weights(run.folder)
    wanted = network.state_dict()
    if weights.keys() != wanted.keys() or any(weights[k].shape != wanted[k].shape for k in wanted):
        raise CheckpointError(
            f"the weights in {run.folder} are not those of the network in its run.json; restore the folder."
        )
    network.load_state_dict(weights)
    return network.eval().to(chosen_device(device))


def chosen_device(name: str | None) -> torch.device:
    """The device asked for, or the first accelerator, or the processor.

    Raises:
        InputError: if there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty((), device=torch.device(name)).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"there is no device {name!r} here ({str(error).splitlines()[0]}); `rheos doctor` lists them."
        ) from error


def _prepare(args: argparse.Namespace) -> Run:
    """The run in ``--out``, made if it is not there."""
    folder = args.out or Path("runs") / args.recipe.replace(":", ".")
    options = {name: value for name in OPTIONS if (value := getattr(args, name, None)) is not None}
    if "data" in options and Path(options["data"]).exists():
        options["data"] = str(Path(options["data"]).resolve())
    trusted = [*args.trust, *([args.recipe.partition(":")[0]] if ":" in args.recipe else [])]
    if not Run.exists(folder):
        recipe = resolve(args.recipe, options)
        run = Run(folder, recipe, args.seed or 0, {"recipe": args.recipe, "options": options})
        encode(recipe)
        return run.create() if _leads() else run
    run = Run.open(folder, trusted)
    if run.request.get("recipe") != args.recipe:
        raise CheckpointError(
            f"{folder} is a run of the recipe {run.request.get('recipe')!r}, not of {args.recipe!r}; "
            "give --out another name."
        )
    if args.seed is not None and args.seed != run.seed:
        raise CheckpointError(f"{folder} was started with --seed {run.seed}; give --out another name for another seed.")
    if args.source is not None:
        raise CheckpointError(f"{folder} is a run already; --from starts a new one: give --out another name.")
    merged = {**run.request.get("options", {}), **options}
    differing = _difference(encode(run.recipe), encode(resolve(args.recipe, merged)))
    if differing:
        raise CheckpointError(
            f"{folder} was started with other settings: {differing}. Leave the option out to go on with the run, or "
            f"give --out another name (and --from {folder} to start at its weights)."
        )
    return run


def _difference(stored: Any, asked: Any, place: str = "") -> str:
    """Where two encoded recipes first differ, in words; empty where they do not."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        for key in dict.fromkeys([*stored, *asked]):
            found = _difference(stored.get(key), asked.get(key), f"{place}.{key}" if place else str(key))
            if found:
                return found
        return ""
    return "" if stored == asked else f"{place} is {stored!r} in the run, {asked!r} was asked for"


def _weights_of(source: Path) -> dict[str, Tensor]:
    if not (source / "run.json").is_file():
        raise CheckpointError(f"--from {source} is no run folder.")
    return load_weights(source)


def _leads() -> bool:
    """Whether this process, of those that torchrun may have started, writes and speaks."""
    return os.environ.get("RANK", "0") == "0"
