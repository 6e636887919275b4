"""A run folder: the resolved recipe in ``run.json``, checkpoints, pictures, and what was measured."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from .. import __version__
from ..core import CheckpointError, RheosError, Rng, Stream
from ..core.files import write_whole
from .recipe import Recipe
from .serial import decode, encode

FORMAT = 2
"""Of ``run.json``, and of what its networks mean: in 1 their times had other frequencies."""


@final
@dataclass(frozen=True)
class Run:
    """A run folder.

    Args:
        folder: where it is.
        recipe: what it is made from.
        seed: of everything random in it.
        request: what was asked for by name when it was made, from which the recipe was resolved.
    """

    folder: Path
    recipe: Recipe
    seed: int
    request: Mapping[str, Any]

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder is a run's.

        Raises:
            CheckpointError: if it holds other things.
        """
        if (folder / "run.json").exists():
            return True
        # What a kill in the middle of writing run.json left is nobody else's.
        if folder.exists() and (not folder.is_dir() or any(not _is_draft(p) for p in folder.iterdir())):
            raise CheckpointError(f"{folder} exists and is no run folder; give --out another name.")
        return False

    def create(self) -> Run:
        """Write ``run.json``; it appears whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "seed": self.seed,
            "request": dict(self.request),
            "recipe": encode(self.recipe),
            "versions": {"rheos": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        write_whole(self.folder / "run.json", json.dumps(content, indent=1) + "\n")
        return self

    @staticmethod
    def open(folder: Path, trusted: Collection[str] = ()) -> Run:
        """Read a run folder; no code but rheos's own and that of ``trusted`` modules is run.

        Raises:
            CheckpointError: if it is no run folder, or damaged, or of another format, or names foreign code.
        """
        file = folder / "run.json"
        if not file.is_file():
            raise CheckpointError(f"{folder} is no run folder: it holds no run.json. `rheos train` makes one.")
        try:
            content = json.loads(file.read_text())
            written = content["format"]
            if written != FORMAT:
                raise CheckpointError(f"{file} has format {written}, this version of rheos reads format {FORMAT}.")
            seed, stored, request = int(content["seed"]), content["recipe"], dict(content["request"])
            if not isinstance(request.get("options", {}), dict):
                raise TypeError("the options are no mapping")
            recipe = decode(stored, trusted)
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{file} is damaged ({error!r}); restore it from a copy.") from error
        if not isinstance(recipe, Recipe):
            raise CheckpointError(f"{file} holds no recipe; restore it from a copy.")
        return Run(folder, recipe, seed, request)

    def network(self) -> nn.Module:
        """A new network with the initial weights of this run's seed.

        Raises:
            CheckpointError: if the options in ``run.json`` are not those of a network of rheos.
        """
        build = self.recipe.network
        try:
            return build(Rng(self.seed).fold(Stream.WEIGHTS))
        except (TypeError, ValueError, RuntimeError) as error:
            # A network of the user's own fails in its own words.
            if isinstance(error, RheosError) or not build.network.__module__.startswith("rheos."):
                raise
            raise CheckpointError(
                f"the network {build.network.__name__} of {self.folder} cannot be built with its options ({error})."
            ) from error

    @property
    def samples(self) -> Path:
        """The folder of pictures drawn while it learns."""
        return self.folder / "samples"

    @property
    def measures(self) -> Path:
        """The folder of what measuring had to learn."""
        return self.folder / "measures"


def _is_draft(file: Path) -> bool:
    return file.name.startswith(".run.json.") and file.name.endswith(".draft")
