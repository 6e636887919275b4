"""Runs and accelerated pipelines as folders that diffusers loads, with the terms that they came under."""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core import InputError
from ...core.files import write_whole
from ...dynamics import FlowMap
from ...recipes import Images, Run, encode
from ...solvers import FixedStep
from ...training import checkpoint
from .installed import diffusers
from .pipeline import RheosNetwork, RheosPipeline
from .schedulers import SolverScheduler

TERMS = ("README*", "LICEN[CS]E*", "NOTICE*", "COPYING*", "*USE_POLICY*", "*use_policy*")
"""Files in which the terms of a model stand."""

CODE = '''"""The pipeline of this folder, for diffusers. It needs rheos: pip install "rheos[diffusers]"."""

from rheos.interop.diffusers.pipeline import RheosPipeline

__all__ = ["RheosPipeline"]
'''


def export(run: Run, folder: str | Path, *, licence: str | None = None) -> RheosPipeline:
    """Write a run of images, with its averaged weights, as a pipeline of diffusers.

    ``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`` loads it through the few lines of
    ``pipeline.py`` in the folder, which import rheos; ``RheosPipeline.open(folder)`` runs no code in the folder. Where
    the training data stood is left out.

    Args:
        run: of the recipe ``images``.
        folder: a new folder, or an empty one.
        licence: what stands as ``license`` in the front matter of README.md, such as ``apache-2.0``.

    Raises:
        InputError: if the run is none of images from noise by a solver of fixed steps, or learned a flow map, or the
            folder holds something.
        CheckpointError: if the run has no weights.
    """
    out = Path(folder)
    recipe = run.recipe
    if not isinstance(recipe.kind, Images):
        raise InputError(f"{run.folder} is a run of {recipe.name}; runs of images are exported.")
    if recipe.source is not None or recipe.noise is not None:
        raise InputError(
            f"{run.folder} starts at data or adds noise on the way, which no scheduler of diffusers knows."
        )
    if not isinstance(recipe.solver, FixedStep):
        raise InputError(
            f"{type(recipe.solver).__name__} chooses its steps itself, and a pipeline of diffusers has to know them; "
            "give the recipe a solver of fixed steps, such as AdamsBashforth(2)."
        )
    if isinstance(recipe.objective.dynamics(run.network()), FlowMap):
        raise InputError(
            f"{run.folder} learned a map, and schedulers of diffusers integrate velocities; export the run that it was "
            "distilled from."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is no empty folder; give another name.")
    shown = replace(recipe, data=replace(recipe.data, path=None))
    network = RheosNetwork(encode(shown), run.seed)
    weights = checkpoint.load_weights(run.folder)
    checkpoint.check_fit(weights, network.network.state_dict(), f"the checkpoint in {run.folder}")
    network.network.load_state_dict(weights)
    pipe = RheosPipeline(network.eval(), SolverScheduler(recipe.solver, recipe.grid))
    pipe.save_pretrained(out, safe_serialization=True)
    index = json.loads((out / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", RheosPipeline.__name__]
    write_whole(out / "model_index.json", json.dumps(index, indent=2) + "\n")
    write_whole(out / "pipeline.py", CODE)
    if not carry_terms(run.folder, out):
        write_whole(out / "README.md", _card(licence, "rheos"))
    return pipe


def save(pipe: Any, folder: str | Path) -> None:
    """Write a pipeline, its scheduler included, as safetensors, with the terms that its model came under.

    Everything that the pipeline holds is written, a safety checker too. Where no terms are found beside the model,
    README.md names the model that they belong to, and a warning says so.

    Args:
        pipe: any pipeline of diffusers.
        folder: where to.
    """
    out = Path(folder)
    pipe.save_pretrained(out, safe_serialization=True)
    name = str(pipe.config.get("_name_or_path") or "")
    place = _place(name)
    if place is None or not carry_terms(place, out):
        warnings.warn(
            f"no licence was found beside {name or 'the model'}; its terms hold for {out} all the same: put them there "
            "before you pass it on.",
            stacklevel=2,
        )
        write_whole(out / "README.md", _card(None, "diffusers", base=name))


def open_pipeline(source: str | Path, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """A pipeline by diffusers' own means, of safetensors alone, and without code that comes with it unless that is
    trusted.

    Pipelines with a scheduler of rheos load here without it, for rheos is imported.

    Args:
        source: a folder, or a name on the hub.
        trust_remote_code: whether Python files that come with the model may be run.
        options: diffusers' other arguments, such as ``torch_dtype``.
    """
    load = diffusers().DiffusionPipeline.from_pretrained
    return load(str(source), use_safetensors=True, trust_remote_code=trust_remote_code, **options)


def carry_terms(source: Path, folder: Path) -> list[str]:
    """Copy the files of terms; their names."""
    found = sorted({file.name for file in _terms(source)})
    for name in found:
        shutil.copyfile(source / name, folder / name)
    return found


def _terms(source: Path) -> Iterable[Path]:
    return (file for pattern in TERMS for file in source.glob(pattern) if file.is_file())


def _place(name: str) -> Path | None:
    """The folder that a model was loaded from: itself, or its snapshot among the files of the hub."""
    if not name or Path(name).is_dir():
        return Path(name) if name else None
    # It comes with diffusers.
    found = importlib.import_module("huggingface_hub").try_to_load_from_cache(name, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def _card(licence: str | None, library: str, base: str = "") -> str:
    lines = [f"library_name: {library}", *([f"base_model: {base}"] if base and not Path(base).exists() else [])]
    lines += [f"license: {licence}"] if licence else []
    told = (
        f"Licence: {licence}." if licence else "No licence was named. Those of the model and of its training data hold."
    )
    return "\n".join(["---", *lines, "---", "", told, ""])
