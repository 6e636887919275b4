"""Several processes train one run: each takes its slice of every global batch, and gradients are averaged.

Started by ``torchrun``, which names the processes in the environment. Everything random is a function of (seed, step,
global row), so the slices need no agreement, and any number of processes trains the same run up to the rounding of
sums. (Dropout masks alone are drawn a process.) What is wrapped is the loss module, never the network: forward-mode
derivatives inside an objective would bypass the exchange of gradients in silence.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@final
@dataclass(frozen=True)
class Layout:
    """Which of how many processes this is.

    Attributes:
        rank: this process.
        world: how many there are.
        control: a group on the CPU for small messages, for which no accelerator waits.
    """

    rank: int = 0
    world: int = 1
    control: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process has come here."""
        if self.world > 1:
            dist.barrier(self.control)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of a tensor on the CPU."""
        if self.world > 1:
            dist.all_reduce(values, group=self.control)
            values = values / self.world
        return values

    def greatest(self, value: int) -> int:
        """The greatest of all processes' numbers: how they agree on a step to stop after."""
        if self.world == 1:
            return value
        agreed = torch.tensor(value)
        dist.all_reduce(agreed, dist.ReduceOp.MAX, group=self.control)
        return int(agreed)


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[tuple[Layout, torch.device]]:
    """Join the processes that ``torchrun`` started, if it did; gives the layout and this process's device."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 and not dist.is_initialized():
        yield Layout(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    control: Any = dist.new_group(backend="gloo") if dist.get_backend() != "gloo" else None
    layout = Layout(dist.get_rank(), dist.get_world_size(), control)
    try:
        yield layout, device
        # The first to leave would take the meeting place away from those that still talk.
        layout.wait()
    finally:
        if own:
            # What still holds the group would end its threads only with the interpreter, which then aborts.
            gc.collect()
            dist.destroy_process_group()


def exchanging(module: nn.Module, layout: Layout, device: torch.device) -> nn.Module:
    """The loss module with its gradients averaged over all processes; itself when there is one."""
    if layout.world == 1:
        return module
    ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)


def without_exchange(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Within the block, gradients are only added up: for all but the last part of an accumulated step."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()
