"""``rheos compare``: flow matching and diffusion side by side, on equal terms."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path

from ..compare import Study, page, scaled
from ..compare.contenders import USUAL
from ..core import CheckpointError, InputError
from ..core.files import write_whole
from ..recipes import Recipe, decode, encode
from .parts import resolve
from .train import chosen_device, trusted_by

RATES = (1e-3, 3e-3)
"""Learning rates that each side tries, when none are named."""

SWEEP = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Those of a sweep."""

SMALL = {"images": {"width": 16, "steps": 400}, "toy": {"width": 64, "steps": 1_000}}
"""What makes a comparison of built-in data end within minutes, unless something else is asked for."""


def compare(args: argparse.Namespace) -> int:
    """Compare; a comparison that is in ``--out`` goes on where it stopped."""
    named = ("data", "size", "channels", "width", "net", "steps", "batch")
    small = SMALL.get(args.recipe, {}) if args.data is None else {}
    if args.net is not None:
        # A width means something else for every network.
        small = {name: value for name, value in small.items() if name != "width"}
    options = {**small, **{name: value for name in named if (value := getattr(args, name)) is not None}}
    recipe = resolve(args.recipe, options)
    out = args.out or Path("comparisons") / args.recipe.replace(":", ".")
    if args.sweep and args.rates:
        raise InputError("--sweep is a choice of learning rates; leave it out, or --rates.")
    study = Study(
        recipe,
        tuple(args.contenders or USUAL),
        tuple(args.rates or (SWEEP if args.sweep else RATES)),
        args.seeds,
        args.n,
        out,
        chosen_device(args.device),
        args.sweep,
    )
    _require_own(out, recipe, study.count, trusted_by(args))
    result = study.run(_say)
    if args.widths:
        result["scaling"] = scaled(
            study, args.widths, lambda width: resolve(args.recipe, {**options, "width": width}), _say
        )
    write_whole(out / "comparison.json", json.dumps(result, indent=1) + "\n")
    write_whole(out / "comparison.html", page(result, study.pictures(result)))
    print(f"done: {out / 'comparison.html'}, and the figures in {out / 'comparison.json'}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _require_own(out: Path, recipe: Recipe, samples: int, trusted: Collection[str]) -> None:
    """Make the folder of a comparison, or see that it is this one's.

    Raises:
        CheckpointError: if it is of another comparison, or of something else, or damaged.
    """
    file = out / "study.json"
    if not file.exists():
        if out.exists() and any(out.iterdir()):
            raise CheckpointError(f"{out} exists and is no comparison; give --out another name.")
        write_whole(file, json.dumps({"recipe": encode(recipe), "samples": samples}, indent=1) + "\n")
        return
    try:
        content = json.loads(file.read_text())
        known = (encode(decode(content["recipe"], trusted)), content["samples"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error!r}); restore it from a copy.") from error
    if known != (encode(recipe), samples):
        raise CheckpointError(
            f"{out} is a comparison on another network, other data or other settings; give --out another name."
        )
