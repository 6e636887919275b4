"""What training and sampling cost, in numbers that the machine does not change, operations, passes and bytes held at
once, and in joules where the machine tells them.

Operations are counted by PyTorch (products and convolutions, a product with a sum as two). Bytes are those of all
tensors that live at the same time, the weights and the gradients included, the optimiser's moments not. A pass is one
of a whole batch through the network: where an objective asks it about some of the rows only, it is as much less.

Of a side that trains in two parts a step costs the mean over all its steps, and the bytes of the part that holds more;
what was made for the second part is shared out over the steps.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..core import Model, Rng
from ..objectives import FlowMapMatching
from ..recipes import Recipe, Sampler
from .energy import joules
from .phases import Phase

EVALUATIONS = 10
"""Of the samples whose cost is counted."""

SAMPLES = 64
"""Samples drawn together."""


Cost = Mapping[str, float | None]


def training_cost(phases: Sequence[Phase], sampling: Cost, device: torch.device) -> dict[str, float | None]:
    """The cost of a training step: passes through the network, operations, bytes, joules.

    Args:
        phases: the parts of the training.
        sampling: what :func:`sampling_cost` tells of the network, by which pairs are counted that were made for a part.
        device: where to count.
    """
    costs = [_step_cost(phase, device) for phase in phases]
    steps = [phase.run.recipe.training.steps for phase in phases]
    # Alone, a part keeps its whole numbers.
    if len(phases) == 1:
        return costs[0]
    batch, evaluations = phases[-1].run.recipe.training.batch, sum(phase.evaluations for phase in phases)
    made = {"passes": evaluations / batch}
    for unit in ("operations", "joules"):
        # The same network, but for the time that it is told besides.
        if (each := sampling[unit]) is not None:
            made[unit] = each * evaluations / (SAMPLES * EVALUATIONS)
    found: dict[str, float | None] = {"bytes": max(cost["bytes"] or 0 for cost in costs)}
    for unit in ("passes", "operations", "joules"):
        parts = [cost[unit] for cost in costs]
        known = [part * count for part, count in zip(parts, steps, strict=True) if part is not None]
        whole = len(known) == len(parts)
        found[unit] = (sum(known) + made.get(unit, 0.0)) / sum(steps) if whole else None
    return found


def _step_cost(phase: Phase, device: torch.device) -> dict[str, float | None]:
    """The cost of the gradient of one batch."""
    recipe, taught = phase.run.recipe, phase.lesson
    network = recipe.network(0).to(device)
    rows = torch.arange(recipe.training.batch)
    draw = recipe.order(0, rows)
    values, cond = taught.dataset.take(draw.index)
    x1 = values if taught.read is None else taught.read(values, Rng(draw.key, rows))
    seen = [0]

    def counting(model: Model) -> Model:
        def counted(x: Tensor, *args: Any, **options: Any) -> Tensor:
            seen[0] += len(x)
            return model(x, *args, **options)

        return counted

    objective: Any = taught.objective
    if isinstance(objective, FlowMapMatching) and objective.teacher is not None:
        objective = replace(objective, teacher=counting(objective.teacher))

    def step() -> None:
        given = (x1.to(device), cond.to(device) if isinstance(cond, Tensor) else None)
        keys = Rng(draw.key.to(device), rows.to(device))
        objective(counting(network), *given, keys).rows.mean().backward()

    teacher = getattr(taught.objective, "teacher", None)
    held = [network, teacher] if isinstance(teacher, nn.Module) else [network]
    counted = _counted(step, *held)
    passes = seen[0] / len(rows)
    return {"passes": passes, **counted, "joules": joules(step, device)}


def sampling_cost(recipe: Recipe, network: nn.Module) -> dict[str, float | None]:
    """The cost of :data:`SAMPLES` samples of :data:`EVALUATIONS` evaluations: operations, bytes, joules."""
    sampler = Sampler(recipe, network, batch=SAMPLES)

    def draw() -> None:
        sampler.draw(SAMPLES, evaluations=EVALUATIONS)

    return {**_counted(draw, network), "joules": joules(draw, next(network.parameters()).device)}


def _counted(run: Callable[[], object], *networks: nn.Module) -> dict[str, int]:
    operations = FlopCounterMode(display=False)
    held = _Held([weights for network in networks for weights in network.parameters()])
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
