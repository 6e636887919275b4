"""A run of images with weights that nobody trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rheos import nn
from rheos.recipes import Run, images
from rheos.training import checkpoint


def tiny_run(folder: Path, **changes: Any) -> Run:
    """A run of digits in a folder, whose network is lively; ``changes`` are to its recipe."""
    recipe = replace(images(network=nn.MLP, width=16), **changes)
    run = Run(folder, recipe, 3, {}).create()
    network = run.network()
    generator = torch.Generator().manual_seed(1)
    weights = {
        f"network.{name}": value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in network.state_dict().items()
    }
    (folder / "checkpoints").mkdir()
    checkpoint.write(folder / "checkpoints" / "step-000001", [("ema.safetensors", checkpoint.pack(weights))])
    return run
