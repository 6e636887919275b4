"""Work done ahead by other processes and received in order, as if it had been done here."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, final

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..core import RheosError

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(work: Callable[[Any], R], tasks: Iterator[Any], workers: int, name: str) -> Iterator[R]:
    """The results of ``work`` for every task, in order, computed by ``workers`` processes.

    Tasks are taken in this process, two a worker ahead of what was received.

    Args:
        work: runs in the workers, which hold a copy of all that it refers to.
        tasks: what is to be done.
        workers: the number of processes, at least 1.
        name: of the workers, for messages.

    Raises:
        RheosError: what a worker raised; or that one died.
    """
    loader = DataLoader(
        _Work(work),
        batch_size=None,
        sampler=_Tasks(tasks),
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_apart,
        # Without one the loader would draw its seed from the global generator.
        generator=torch.Generator().manual_seed(0),
    )
    results = _start(loader)
    try:
        while (result := _next(results, name)) is not None:
            if isinstance(result, RheosError):
                raise result
            yield result
    finally:
        # Its last reference keeps the workers running, and a traceback may hold this frame for long.
        del results


@final
class _Work(TorchDataset[Any]):
    """Tasks, as PyTorch's workers ask for them."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def __getitem__(self, index: Any) -> Any:
        # Raised in a worker, an error would arrive with the worker's traceback for a message.
        try:
            return self.work(index)
        except RheosError as error:
            return error


@final
@dataclass(frozen=True)
class _Tasks:
    tasks: Iterator[Any]

    def __iter__(self) -> Iterator[Any]:
        return self.tasks


def counted(first: int, stop: int | None) -> Iterator[int]:
    """``first, first + 1, ...``, without end unless ``stop`` is given."""
    return itertools.count(first) if stop is None else iter(range(first, stop))


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers, without PyTorch's SIGCHLD handler: it raises a worker's death wherever the program stands."""
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler)


def _next(results: Iterator[Any], name: str) -> Any:
    """The next result, or what went wrong, or ``None`` at the end."""
    try:
        return next(results, None)
    except RuntimeError as error:
        return RheosError(
            f"a {name} worker died ({str(error).splitlines()[0]}); memory or /dev/shm may be full: use fewer workers, "
            f"or 0 to work in the training process. Nothing that was saved is lost."
        )


def _apart(worker: int) -> None:
    """Leave Ctrl-C, and signals to the process group, to the process that trains: it saves and stops its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _as_it_is(batch: Any) -> Any:
    return batch
