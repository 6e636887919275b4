"""Before the first step: how long the run will take and how much memory it needs, from two steps that leave no
trace."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from .journal import span


@final
@dataclass(frozen=True)
class Forecast:
    """What two timed steps say of a run.

    Attributes:
        steps: steps that are left.
        each: seconds a step: the network's work and the reading of data. Samples and checkpoints come on top.
        memory: bytes: the most that the process (on a GPU, PyTorch on the device) has held.
    """

    steps: int
    each: float
    memory: int

    @property
    def seconds(self) -> float:
        """The time that the run will take."""
        return self.steps * self.each

    def __str__(self) -> str:
        memory = f"{self.memory / 2**30:.2f} GiB of memory"
        return f"{self.steps} steps of {1000 * self.each:.3g} ms: about {span(self.seconds)}, {memory}"


def measure(
    advance: Callable[[], object], capture: Callable[[], int], restore: Callable[[], object], device: torch.device
) -> tuple[float, int]:
    """Take two steps and undo them.

    Args:
        advance: takes one step.
        capture: remembers the state, and gives the bytes that this takes on the CPU.
        restore: puts it back, bit by bit.
        device: where the steps are taken.

    Returns:
        the seconds of the second step (the first one compiles, allocates and starts threads), and the peak of memory in
        bytes.
    """
    extra = capture()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        advance()
        _finish(device)
        start = time.perf_counter()
        advance()
        _finish(device)
        each = time.perf_counter() - start
    finally:
        restore()
    if device.type == "cuda":
        return each, torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes. The captured copy is not there when the run itself goes on.
    unit = 1 if sys.platform == "darwin" else 1024
    return each, max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - extra)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
