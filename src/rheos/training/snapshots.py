"""Snapshots of power-function averages in a run folder, and the rebuilding of an average of any width from them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..core import CheckpointError
from . import checkpoint
from .ema import PowerEma, Profile, exponent, factors

FOLDER = "snapshots"


def keep(run: Path, step: int, power: PowerEma) -> None:
    """Keep the averages after ``step``."""
    numbers = {"step": step, "widths": power.widths}
    folder = checkpoint.step_folder(run / FOLDER, step)
    checkpoint.write(
        folder, [("power.safetensors", checkpoint.pack(power.tensors())), ("state.json", checkpoint.to_json(numbers))]
    )


def rebuild(run: Path, width: float, part: str = "network", *, step: int | None = None) -> dict[str, Tensor]:
    """The average of relative width ``width`` of a run's weights, as a state dict. Solved and summed in float64.

    Args:
        run: the run folder.
        width: standard deviation of the average's weights over training time, as a share of ``step``; in (0, 0.288].
        part: ``"network"``, or ``"learned.NAME"``.
        step: where the average ends; the last snapshot when left out.

    Raises:
        CheckpointError: if the run kept no snapshots, or one is damaged.
        InputError: if the width is out of range.
    """
    parent = Path(run) / FOLDER
    kept = [s for s in checkpoint.steps(parent) if step is None or s <= step]
    if not kept:
        raise CheckpointError(f"{run} kept no snapshots of averages; train with snapshots >= 1.")
    names: list[tuple[Path, float]] = []
    profiles: list[Profile] = []
    for s in kept:
        folder = checkpoint.step_folder(parent, s)
        checkpoint.verify(folder)
        for w in checkpoint.read_json(folder, "state")["widths"]:
            names.append((folder, w))
            profiles.append(Profile(exponent(w), s))
    weights = checkpoint.load_weights(run, part)
    sums: dict[str, Tensor] = {}
    for (folder, w), factor in zip(names, factors(profiles, Profile(exponent(width), step or kept[-1])), strict=True):
        prefix = f"{w}/{part}."
        for key, value in checkpoint.read_tensors(folder, "power").items():
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                total = sums.setdefault(name, torch.zeros_like(value, dtype=torch.float64))
                total.add_(value.double(), alpha=float(factor))
    return {name: sums[name].to(value.dtype) if name in sums else value for name, value in weights.items()}
