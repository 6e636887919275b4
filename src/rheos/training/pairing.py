"""What an objective's coupling makes of the order of a run: pairs that are joined before a step needs them.

A coupling of a whole dataset is fitted first and kept in ``fitted/``, pairs that are kept stand in ``pairs/``, and what
the coupling does to some thousand pairs is told in ``coupling.json``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ..core import CheckpointError, Coupling, InputError, Objective, Order, Rng, Stream, fits
from ..core.files import write_whole
from ..couplings import Diagnosis, PairStore, diagnose
from ..data import Coupled, Paired, States
from . import checkpoint
from .distributed import Layout
from .settings import Training

FITTED = "fitted"
STORED = "pairs"
DIAGNOSIS = "coupling.json"

MOST_PAIRS = 1024
"""Pairs that are joined at a time when the settings leave it open: a few milliseconds to a tenth of a second."""

logger = logging.getLogger(__name__)


def with_pairs(
    order: Order,
    objective: Objective[Any],
    states: States,
    settings: Training,
    seed: int,
    out: Path,
    device: torch.device,
    layout: Layout,
    say: Callable[[str], object],
) -> Order:
    """The order with noise and data joined by the objective's coupling; itself where they are independent.

    Raises:
        InputError: if more pairs are to be joined than there are data.
        CheckpointError: if what an earlier start of the run kept is damaged, or of other data.
    """
    coupling = objective.coupling
    if coupling.independent or order.joined:
        return order
    if settings.pairs > len(states):
        raise InputError(
            f"pairs = {settings.pairs} asks for more than the {len(states)} data there are; give at most so many."
        )
    pairs = settings.pairs or min(MOST_PAIRS, len(states))
    coupling = _fitted(coupling, states, seed, out, device, layout, say)
    if layout.leads and not (out / DIAGNOSIS).exists():
        found = _described(order, objective, coupling, states, seed)
        write_whole(out / DIAGNOSIS, json.dumps(found.asdict(), indent=1) + "\n")
        say(f"coupling: {found}")
    if isinstance(coupling, PairStore):
        store = _Store(out / STORED, layout)
        return Paired(len(states), objective, coupling.inner, states, pairs, coupling.rounds, coupling.every, store)
    return Coupled(order, objective, coupling, states, pairs)


def _described(
    order: Order, objective: Objective[Any], coupling: Coupling[Any], states: States, seed: int
) -> Diagnosis:
    """The coupling on the first rows of the run, or on noise of as many and all data."""
    rows = torch.arange(min(MOST_PAIRS, len(states)))
    draw = order(seed, rows)
    x1, cond = states.take(draw.index, draw.key)
    x0, _ = objective.draw(Rng(draw.key, rows), x1)
    if fits(coupling):
        x1, cond = states.all()
    return diagnose(coupling, x0, x1, cond, Rng(seed).fold(Stream.COUPLING))


def _fitted(
    coupling: Coupling[Any],
    states: States,
    seed: int,
    out: Path,
    device: torch.device,
    layout: Layout,
    say: Callable[[str], object],
) -> Coupling[Any]:
    """A coupling of a whole dataset fitted to these data, or as it was when the run began; any other as it is."""
    if not fits(coupling) or coupling.fitted:
        return coupling
    data, cond = states.all()
    data = data.to(device)
    folder = out / FITTED
    if layout.leads and not folder.is_dir():
        checkpoint.recover(out)
        say(f"coupling: being fitted to all {len(data):,} data, once for this run")
        began = time.monotonic()
        found = coupling.fit(data, cond, Rng(seed).fold(Stream.COUPLING))
        say(f"coupling: fitted in {time.monotonic() - began:.0f} s")
        checkpoint.write(folder, [("coupling.safetensors", checkpoint.pack(found.tensors()))])
    # The others wait for it here.
    layout.greatest(0)
    checkpoint.verify(folder)
    try:
        return coupling.restored(data, cond, checkpoint.read_tensors(folder, "coupling"))
    except InputError as error:
        raise CheckpointError(f"{folder} was fitted to other data: {error}") from error


@final
class _Store:
    """The keys of an epoch's pairs on disk, each file the SHA-256 sum of its content and then the content."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._leads = folder, layout.leads

    def __call__(self, version: int, keys: Tensor | None = None) -> Tensor | None:
        file = self._folder / f"version-{version:06d}"
        if keys is None:
            return self._read(file)
        if self._leads:
            content = keys.numpy().astype("<i8").tobytes()
            write_whole(file, hashlib.sha256(content).digest() + content)
            for former in sorted(self._folder.glob("version-*"))[:-2]:
                former.unlink(missing_ok=True)
        return keys

    def _read(self, file: Path) -> Tensor | None:
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            logger.warning("%s is damaged; its pairs are joined again.", file)
            return None
        return torch.from_numpy(np.frombuffer(content[32:], "<i8").astype(np.int64))
