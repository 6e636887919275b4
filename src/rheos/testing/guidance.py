"""The laws of guidance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.protocols import Guidance, Model, over
from .law import agree, lawful, normal, require


def check_guidance(guidance: Guidance, *, tolerance: float = 1e-9) -> None:
    """Hold a guidance against its laws, on a toy model of its own that takes states (B, 3) and labels (B,).

    A model in, a model out: it keeps shape and dtype; a row depends on itself alone; a time of shape () is that time
    for every row; and ``over`` reaches every call of the network that it guides.

    Args:
        guidance: the guidance.
        tolerance: relative above 1.

    Raises:
        AssertionError: if a law is broken.
    """
    x, label = normal(4, 3), torch.tensor([0, 1, 2, -1])
    guided = guidance(_toy)
    for time in (0.05, 0.3, 0.5, 0.7, 0.95):
        t = torch.tensor(time, dtype=torch.float64)
        with lawful("a guided model takes the times and conditions of a model"):
            one, many = guided(x, t, label), guided(x, t.expand(4), label)
        agree("a time of shape () is that time for every row", one, many, tolerance, t)
        require(one.shape == x.shape and one.dtype == x.dtype, "a guided model keeps the shape and dtype of the state.")
        for row in range(4):
            index = torch.tensor([row])
            alone = guided(x[index], t.expand(1), label[index])
            agree(f"row {row} depends on itself alone", many[index], alone, tolerance, t)
        _check_over(guidance, x, t, label)


def _check_over(guidance: Guidance, x: Tensor, t: Tensor, label: Tensor) -> None:
    inside, outside = [0], [0]
    guided = guidance(_counted(_toy, inside))
    wrapped = over(guided, lambda model: _counted(model, outside))
    agree("over with a bare counter changes nothing", wrapped(x, t, label), guidance(_toy)(x, t, label), 0.0, t)
    require(
        outside[0] >= inside[0] > 0,
        f"over reaches every call of the guided network: {inside[0]} calls were made, {outside[0]} were reached.",
    )


def _toy(x: Tensor, t: Tensor, cond: Cond | None = None, scale: Tensor | None = None) -> Tensor:
    """A network with a bend, whose unknown label is a shift like any other, and which may be told a scale."""
    shift = cond if isinstance(cond, Tensor) else torch.full((len(x),), -1)
    if scale is not None:
        shift = shift * scale
    time = t[:, None] if t.dim() else t
    return torch.tanh(x.flip(1)) + time * x + (0.3 * shift + 1).to(x.dtype)[:, None]


def _counted(model: Model, tally: list[int]) -> Model:
    def call(*args: Any, **end: Any) -> Any:
        tally[0] += 1
        return model(*args, **end)

    return call
