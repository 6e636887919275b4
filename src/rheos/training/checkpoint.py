"""Folders that are either whole or not there, and never silently wrong.

A folder is written under a hidden name beside its place, every file and then the folder synced to disk, and renamed:
a kill or a full disk at any moment leaves what was there before. ``MANIFEST.json`` holds the length and SHA-256 sum
of each file, and a sum over itself; safetensors alone loads silently after nearly every flipped bit. No file is a
pickle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..core import CheckpointError
from ..core.files import unwritable
from ..core.files import write as write_file

MANIFEST = "MANIFEST.json"
FORMAT = 1

logger = logging.getLogger(__name__)


def step_folder(parent: Path, step: int) -> Path:
    """The folder of a step: ``step-000500``."""
    return parent / f"step-{step:06d}"


def steps(parent: Path) -> list[int]:
    """The steps that have a folder, ascending; damaged ones included."""
    names = (p.name.removeprefix("step-") for p in parent.glob("step-*") if p.is_dir()) if parent.is_dir() else ()
    return sorted(int(name) for name in names if name.isdigit())


def write(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a folder so that it appears whole, or not at all; one of the same name is replaced.

    Args:
        folder: its place.
        files: names and contents; taken one at a time, so that only one need be in memory.

    Raises:
        RheosError: if the disk is full or cannot be written to; what was there before is there still.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    former = folder.with_name(f".{folder.name}.former")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        entries = {}
        for name, content in files:
            write_file(draft / name, content)
            entries[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        write_file(draft / MANIFEST, _manifest(entries))
        _sync_folder(draft)
        if folder.exists():
            folder.rename(former)
        draft.rename(folder)
        _sync_folder(folder.parent)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        recover(folder.parent)
        raise unwritable(folder, error) from error


def recover(parent: Path) -> None:
    """Clear what a kill in the middle of :func:`write` left; a folder that was just being replaced goes back to its
    place."""
    if not parent.is_dir():
        return
    for former in parent.glob(".*.former"):
        place = parent / former.name.removeprefix(".").removesuffix(".former")
        if place.exists():
            shutil.rmtree(former, ignore_errors=True)
        else:
            former.rename(place)
    for draft in parent.glob(".*.draft"):
        shutil.rmtree(draft, ignore_errors=True)


def verify(folder: Path) -> None:
    """Hold every file against the manifest.

    Raises:
        CheckpointError: naming the file that is damaged, missing or not of the folder.
    """
    entries = _read_manifest(folder)
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    for name in sorted(present - entries.keys()):
        raise CheckpointError(f"{folder / name} is not in the manifest; remove it if you know what it is.")
    for name, entry in sorted(entries.items()):
        path = folder / name
        if name not in present or not path.is_file():
            raise CheckpointError(f"{path} is missing.")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise CheckpointError(f"{path} is damaged: {size} bytes, {entry['bytes']} were written.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry["sha256"]:
            raise CheckpointError(f"{path} is damaged: its SHA-256 sum is not the one it was written with.")


def latest_valid(parent: Path) -> int | None:
    """The latest step whose folder is whole, or ``None`` when there is no folder at all.

    Damaged ones are named in the log and passed over.

    Raises:
        CheckpointError: if there are folders and all are damaged.
    """
    reasons = []
    for step in reversed(steps(parent)):
        try:
            verify(step_folder(parent, step))
        except CheckpointError as error:
            reasons.append(str(error))
            logger.warning("%s The checkpoint before it is used.", error)
        else:
            return step
    if reasons:
        raise CheckpointError(
            f"every checkpoint under {parent} is damaged: {' '.join(reasons)} Restore one, or train anew."
        )
    return None


def prune(parent: Path, keep: int) -> None:
    """Remove all but the ``keep`` latest folders."""
    for step in steps(parent)[:-keep]:
        shutil.rmtree(step_folder(parent, step), ignore_errors=True)


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file. Tensors that share memory are written each on its own."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().to("cpu").contiguous()
        if value.untyped_storage().data_ptr() in seen or value.untyped_storage().nbytes() != value.nbytes:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        plain[name] = value
    return safetensors.torch.save(plain)


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file ``name`` (without its ending) of a folder, on the CPU."""
    return safetensors.torch.load_file(folder / f"{name}.safetensors")


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file ``name`` (without its ending) of a folder."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def to_json(value: Mapping[str, Any]) -> bytes:
    """A mapping as the bytes of a JSON file; numbers come back bit by bit, and what is not a number is refused."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def load_weights(
    run: Path, part: str = "network", *, average: bool = True, step: int | None = None
) -> dict[str, Tensor]:
    """The weights of a run, as a state dict.

    Args:
        run: the run folder.
        part: ``"network"``, or ``"learned.NAME"`` for what trained beside it.
        average: the averaged weights, or those of the last step.
        step: of which checkpoint; the latest that is whole when left out.

    Raises:
        CheckpointError: if the run has no such checkpoint, it is damaged, or it has no such part.
    """
    parent = Path(run) / "checkpoints"
    found = latest_valid(parent) if step is None else step
    if found is None or not step_folder(parent, found).is_dir():
        which = "no checkpoint" if step is None else f"no checkpoint of step {step} (there are {steps(parent)})"
        raise CheckpointError(f"{run} has {which}; train it first, with: rheos train RECIPE --out {run}")
    folder = step_folder(parent, found)
    if step is not None:
        verify(folder)
    tensors = read_tensors(folder, "ema" if average else "model")
    weights = {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
    if not weights:
        raise CheckpointError(f"{folder} holds no {part!r}.")
    return weights


def check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are not those of this network.

    Raises:
        CheckpointError: naming the first that is missing, unknown or of another shape.
    """
    for name in sorted(given.keys() | wanted.keys()):
        have = tuple(given[name].shape) if name in given else "nothing"
        want = tuple(wanted[name].shape) if name in wanted else "nothing"
        if have != want:
            raise CheckpointError(
                f"{source} is of another network: for {name!r} it holds {have}, this one has {want}. "
                "Use the recipe and the network that it was trained with."
            )


def to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that later training cannot change."""
    return {name: torch.clone(value.detach().to("cpu")) for name, value in tensors.items()}


def _manifest(entries: Mapping[str, Any]) -> bytes:
    body = {"format": FORMAT, "files": dict(sorted(entries.items()))}
    return to_json({**body, "sha256": hashlib.sha256(to_json(body)).hexdigest()})


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    entries: dict[str, Any] = {}
    try:
        entries = json.loads(content)["files"]
        whole = _manifest(entries) == content
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise CheckpointError(f"{path} is damaged: it is not what was written.")
    return entries


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
