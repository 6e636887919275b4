"""What training and sampling cost, in numbers that the machine does not change, operations, passes and bytes held at
once, and in joules where the machine tells them.

Operations are counted by PyTorch (products and convolutions, a product with a sum as two). Bytes are those of all
tensors that live at the same time, the weights and the gradients included, the optimiser's moments not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..core import Rng
from ..recipes import Recipe, Sampler, Splits
from .energy import joules

EVALUATIONS = 10
"""Of the samples whose cost is counted."""

SAMPLES = 64
"""Samples drawn together."""


def training_cost(recipe: Recipe, splits: Splits, device: torch.device) -> dict[str, float | None]:
    """The cost of the gradient of one batch: passes through the network, operations, bytes, joules."""
    network = recipe.network(0).to(device)
    rows = torch.arange(recipe.training.batch)
    draw = recipe.order(0, rows)
    values, cond = splits.training.take(draw.index)
    x1 = recipe.kind.read(values, Rng(draw.key, rows))
    passes = [0]

    def model(*args: Any) -> Tensor:
        passes[0] += 1
        return network(*args)

    def step() -> None:
        given = (x1.to(device), cond.to(device) if isinstance(cond, Tensor) else None)
        keys = Rng(draw.key.to(device), rows.to(device))
        recipe.objective(model, *given, keys).rows.mean().backward()

    counted = _counted(step, network)
    return {"passes": passes[0], **counted, "joules": joules(step, device)}


def sampling_cost(recipe: Recipe, network: nn.Module) -> dict[str, float | None]:
    """The cost of :data:`SAMPLES` samples of :data:`EVALUATIONS` evaluations: operations, bytes, joules."""
    sampler = Sampler(recipe, network, batch=SAMPLES)

    def draw() -> None:
        sampler.draw(SAMPLES, evaluations=EVALUATIONS)

    return {**_counted(draw, network), "joules": joules(draw, next(network.parameters()).device)}


def _counted(run: Callable[[], object], network: nn.Module) -> dict[str, int]:
    operations = FlopCounterMode(display=False)
    held = _Held(list(network.parameters()))
    with operations, held:
        run()
    return {"operations": operations.get_total_flops(), "bytes": held.most}


class _Held(TorchDispatchMode):
    """The most bytes of tensors that live at once."""

    def __init__(self, begun: list[nn.Parameter]) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.now = self.most = 0
        for tensor in begun:
            self._note(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
