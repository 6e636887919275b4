"""``rheos train``: a new run, or the rest of one that is there."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import CheckpointError, DataError, InputError
from ..core.files import write_whole
from ..nn import parameter_count
from ..objectives import Matching
from ..recipes import Recipe, Run, Sampler, Splits, encode, lesson, with_source
from ..training import Fitted, checkpoint, fit, joined, load_weights
from .parser import NUMBERS, SWITCHES
from .parts import KNOBS, TABLES, look_here, resolve

OPTIONS = (*KNOBS, *TABLES, *NUMBERS, *SWITCHES, "precision", "guidance", "backward")
"""Options that a recipe is resolved from."""

SHOWN = 100
"""Samples in the pictures that are drawn while a run learns."""

logger = logging.getLogger(__name__)


def train(args: argparse.Namespace) -> int:
    """Train, or go on; samples and checkpoints appear in the run folder as it goes."""
    device = chosen_device(args.device)
    run, new = _prepare(args)
    network = run.network()
    fitted = trained(run, new, device, network, _start(run, network))
    settings = run.recipe.training
    if leads():
        last = _picture(run, settings.steps)
        # A forecast is made where there is a step left to take.
        done = "done." if fitted.forecast else f"all of its {settings.steps:,} steps were taken before."
        print(f"{done} Samples: {last if last.exists() else run.folder}")
        print(f"next: rheos sample {run.folder}, or rheos evaluate {run.folder}")
    return 0


def trained(
    run: Run,
    new: bool,
    device: torch.device,
    network: nn.Module,
    start: Mapping[str, Tensor] | None,
    teacher: nn.Module | None = None,
    look: Callable[[int, nn.Module], bool] | None = None,
) -> Fitted:
    """Train a run, or the rest of it.

    Args:
        run: the run.
        new: whether its folder is yet to be made.
        device: where to train.
        network: with its initial weights.
        start: weights to start at instead.
        teacher: the network that it is distilled from, on the device.
        look: called with the step and the averaged network after each picture; True ends the training.
    """
    splits = run.recipe.kind.open(run.recipe.data.path)
    check_unchanged(run, splits)
    if new:
        # What cannot be sampled is refused before it is trained.
        Sampler(with_source(run.recipe, "held_out"), network, run.seed).draw(1)
    # Everything that can be refused has been; now the folder may be made.
    if new and leads():
        run.create()
    if leads():
        _introduce(run, splits, network, device)
    draw = _drawing(run)

    def drawn(step: int, average: nn.Module) -> bool:
        draw(step, average)
        return look is not None and look(step, average)

    with joined(device) as (layout, place):
        teacher = None if teacher is None else teacher.to(place)
        objective, dataset, read = lesson(run, splits, teacher, print, layout)
        return fit(
            network,
            objective,
            dataset,
            run.recipe.order,
            run.recipe.training,
            seed=run.seed,
            out=run.folder,
            device=place,
            draw_samples=drawn,
            read=read,
            start_from=start,
        )


def open_run(args: argparse.Namespace) -> Run:
    """The run that a command names, with the modules that it trusts."""
    if args.trust:
        look_here()
    return Run.open(args.run, args.trust)


def trained_network(run: Run, device: str | None) -> nn.Module:
    """The network of a run with its averaged weights, ready to sample.

    Raises:
        CheckpointError: if there are no weights, or they are those of another network.
    """
    network = run.network()
    weights = load_weights(run.folder)
    checkpoint.check_fit(weights, network.state_dict(), f"the checkpoint in {run.folder}")
    network.load_state_dict(weights)
    return network.eval().to(chosen_device(device))


def check_unchanged(run: Run, splits: Splits) -> None:
    """Refuse data that are no longer those of the run.

    Raises:
        DataError: then held-out data would not be held out, and a run that goes on would not be the same run.
    """
    if splits.fingerprint != run.recipe.data.fingerprint:
        raise DataError(
            f"the data at {run.recipe.data.path} are no longer those that {run.folder} learned from; restore them, or "
            "train a new run."
        )


def chosen_device(name: str | None) -> torch.device:
    """The device asked for, or the first CUDA device, or the processor.

    Raises:
        InputError: if there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # Only a device that gives a number back can be used: "meta" is a device, and holds none.
        probe = torch.zeros((), device=torch.device(name))
        float(probe)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"there is no device {name!r} here ({str(error).splitlines()[0].rstrip('.')}); `rheos doctor` lists them."
        ) from error
    return probe.device


def _introduce(run: Run, splits: Splits, network: nn.Module, device: torch.device) -> None:
    """Say what is trained, and what is wrong with the data."""
    if splits.report:
        file = run.folder / "data.txt"
        write_whole(file, splits.report + "\n")
        head, _, rest = splits.report.partition("\n")
        logger.warning("%s: %s", head, "; ".join(line.strip() for line in [*rest.splitlines()[:3], f"all in {file}."]))
    settings = run.recipe.training
    print(
        f"{run.folder}: {run.recipe.name}, {run.recipe.data.count:,} training data, "
        f"{run.recipe.network.network.__name__} with {parameter_count(network):,} parameters, "
        f"{settings.steps:,} steps of {settings.batch}, on {device}",
        flush=True,
    )


def _drawing(run: Run) -> Any:
    """Draws the pictures that show how a run learns, as many of each class."""
    classes = len(run.recipe.kind.classes) or 1
    shown = SHOWN // classes * classes or SHOWN
    recipe = with_source(run.recipe, "held_out")

    def draw_samples(step: int, average: nn.Module) -> None:
        run.samples.mkdir(exist_ok=True)
        drawn = Sampler(recipe, average, run.seed).draw(shown)
        run.recipe.kind.write(drawn.states, drawn.labels, _picture(run, step))

    return draw_samples


def _picture(run: Run, step: int) -> Path:
    return run.samples / f"step-{step:06d}{run.recipe.kind.endings[0]}"


def _prepare(args: argparse.Namespace) -> tuple[Run, bool]:
    """The run in ``--out``, and whether it is yet to be made."""
    folder = args.out or Path("runs") / args.recipe.replace(":", ".")
    options = {name: value for name in OPTIONS if (value := getattr(args, name, None)) is not None}
    source = None if args.start is None else str(args.start.expanduser().resolve())
    if Run.exists(folder):
        return _resumed(args, folder, options, source), False
    recipe = resolve(args.recipe, options)
    if args.start is not None and (args.start / "run.json").is_file():
        recipe = _going_on(recipe, Run.open(args.start, trusted_by(args)).recipe)
    # The command that goes on may run elsewhere.
    if "data" in options and recipe.data.path is not None:
        options["data"] = recipe.data.path
    if "source" in options and recipe.source is not None:
        options["source"] = recipe.source.path
    request = {"recipe": args.recipe, "options": options, **({} if source is None else {"from": source})}
    encode(recipe)
    return Run(folder, recipe, args.seed or 0, request), True


def _resumed(args: argparse.Namespace, folder: Path, options: Mapping[str, Any], source: str | None) -> Run:
    """The run that is in a folder, if it is the one that the command describes."""
    run = Run.open(folder, trusted_by(args))
    stored = run.request.get("options", {})
    if run.request.get("recipe") != args.recipe:
        raise CheckpointError(
            f"{folder} is a run of the recipe {run.request.get('recipe')!r}, not of {args.recipe!r}; "
            "give --out another name."
        )
    if args.seed is not None and args.seed != run.seed:
        raise CheckpointError(f"{folder} was started with --seed {run.seed}; give --out another name for another seed.")
    if source is not None and source != run.request.get("from"):
        raise CheckpointError(f"{folder} is a run already; --from starts a new one: give --out another name.")
    merged = {**stored, **options}
    # What was asked for then need not be resolved again.
    differing = "" if merged == stored else _difference(encode(run.recipe), encode(_same(args.recipe, merged, run)))
    if differing:
        raise CheckpointError(
            f"{folder} was started with other settings: {differing}. Leave the option out to go on with the run, or "
            f"give --out another name (and --from {folder} to start at its weights)."
        )
    return run


def trusted_by(args: argparse.Namespace) -> list[str]:
    """The modules whose code a command runs: those that it names."""
    named = [*args.trust, *([args.recipe.partition(":")[0]] if ":" in args.recipe else [])]
    if named:
        look_here()
    return named


def _same(name: str, options: Mapping[str, Any], run: Run) -> Recipe:
    """The recipe of these options, with what a run took over from the one that it started from."""
    asked, known = resolve(name, options), run.recipe.objective
    if isinstance(asked.objective, Matching) and isinstance(known, Matching):
        return replace(asked, objective=replace(asked.objective, before=known.before))
    return asked


def _going_on(recipe: Recipe, start: Recipe) -> Recipe:
    """The recipe whose network begins as the flow that it was in another run."""
    new, old = recipe.objective, start.objective
    if not (isinstance(new, Matching) and isinstance(old, Matching)):
        return recipe
    meaning = Matching(old.path, predict=old.predict, data_std=old.data_std, before=old.before)
    if meaning == Matching(new.path, predict=new.predict, data_std=new.data_std):
        return recipe
    if new.predict != "velocity":
        logger.warning(
            "the run to start from is of another path or quantity, so its network means nothing as yet for one that "
            "predicts %s; to go on from the flow that it is, predict the velocity.",
            new.predict,
        )
        return recipe
    # The same path and quantity again mean what they meant to the other run.
    before = old.before if (old.path, old.predict) == (new.path, new.predict) else meaning
    return replace(recipe, objective=replace(new, before=before))


def _difference(stored: Any, asked: Any, place: str = "") -> str:
    """Where two encoded recipes first differ, in words; empty where they do not."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        for key in dict.fromkeys([*stored, *asked]):
            found = _difference(stored.get(key), asked.get(key), f"{place}.{key}" if place else str(key))
            if found:
                return found
        return ""
    return "" if stored == asked else f"{place} is {stored!r} in the run, {asked!r} was asked for"


def _start(run: Run, network: nn.Module) -> dict[str, Tensor] | None:
    """The weights of another run that this one starts at, unless it has begun already.

    Raises:
        CheckpointError: if there are none, or they are those of another network.
    """
    source = run.request.get("from")
    if source is None or checkpoint.steps(run.folder / "checkpoints"):
        return None
    if not (Path(source) / "run.json").is_file():
        raise CheckpointError(f"--from {source} is no run folder: it holds no run.json.")
    weights = load_weights(Path(source))
    checkpoint.check_fit(weights, network.state_dict(), f"--from {source}")
    return weights


def leads() -> bool:
    """Whether this process, of those that torchrun may have started, writes and speaks."""
    return os.environ.get("RANK", "0") == "0"
