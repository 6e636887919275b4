"""The laws of a model: a network, or a network under guidance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.condition import Cond, drop, null, take
from ..core.protocols import Model
from .law import agree, lawful, require


def check_model(model: Model, x: Tensor, cond: Cond | None = None, *, tolerance: float = 1e-4) -> None:
    """Hold a model against its laws, at the state ``x``; a module is put into evaluation mode meanwhile.

    The output has the shape and dtype of the state and is finite, t = 0 and t = 1 included; a time of shape () is that
    time for every row; a row depends on itself alone; no condition is the same as an unknown one; and a condition that
    is unknown in some rows leaves the others as they were.

    Args:
        model: the model, ``model(x, t)`` or ``model(x, t, cond)``.
        x: a state (B, ...) of at least two rows.
        cond: a condition of its rows, for models that take one.
        tolerance: relative above 1.

    Raises:
        AssertionError: if a law is broken.
    """
    count = len(x)
    require(count >= 2, "check_model needs a state of at least two rows.")
    rest = () if cond is None else (cond,)
    with _evaluating(model), torch.no_grad():
        for time in (0.0, 0.4, 1.0):
            t = torch.tensor(time, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
            t = t.to(x.device)
            with lawful(f"a model takes a state {tuple(x.shape)} and times () and (B,)"):
                one, many = model(x, t, *rest), model(x, t.expand(count), *rest)
            require(one.dtype == x.dtype, f"the output keeps the dtype of the state: {one.dtype} for {x.dtype}.")
            require(
                one.shape == x.shape, f"the output keeps the state's shape {tuple(x.shape)}: it is {tuple(one.shape)}."
            )
            require(torch.isfinite(one), f"the output is finite at t = {time}.")
            agree("a time of shape () is that time for every row", one, many, tolerance, t)
        times = torch.linspace(0.1, 0.9, count, dtype=t.dtype, device=x.device)
        whole = model(x, times, *rest)
        for row in range(count):
            index = torch.tensor([row], device=x.device)
            alone = model(x[index], times[index], *() if cond is None else (take(cond, index),))
            agree(f"row {row} depends on itself alone", whole[index], alone, tolerance, times[index])
        if cond is not None:
            _check_condition(model, x, times, cond, whole, tolerance)


def _check_condition(model: Model, x: Tensor, t: Tensor, cond: Cond, whole: Tensor, tolerance: float) -> None:
    with lawful("a model takes a condition that is None"):
        without = model(x, t, None)
    unknown = model(x, t, null(cond))
    agree("no condition is the same as an unknown one", without, unknown, tolerance, t)
    dropped = torch.arange(len(x), device=x.device) % 2 == 0
    mixed = model(x, t, drop(cond, dropped))
    agree("a row whose condition is unknown has none", mixed[dropped], unknown[dropped], tolerance, t[dropped])
    agree("its neighbours keep theirs", mixed[~dropped], whole[~dropped], tolerance, t[~dropped])


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = isinstance(model, nn.Module) and model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
