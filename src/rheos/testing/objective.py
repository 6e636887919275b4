"""The laws of an objective."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.protocols import Objective
from ..core.rng import Rng, Stream
from .law import SEED, agree, keys, lawful, normal, require


def check_objective(objective: Objective[Tensor], x1: Tensor | None = None, *, tolerance: float = 1e-5) -> None:
    """Hold an objective on R^d against its laws.

    The loss is finite, one number a row, and so is each of its parts; the same rng gives the same loss; noise and times
    are functions of a row's key alone, so that a batch may be split; noise that is given is neither drawn nor joined
    again; and the gradient reaches the network.

    Args:
        objective: the objective.
        x1: data (B, ...) of at least two rows; normal numbers (6, 3) when left out.
        tolerance: relative above 1.

    Raises:
        AssertionError: if a law is broken.
    """
    x1 = normal(6, 3, stream=1, dtype=torch.float32) if x1 is None else x1
    count = len(x1)
    rng = Rng(SEED).rows(torch.arange(count))
    scale = torch.full((), 0.7, dtype=x1.dtype, requires_grad=True)

    def model(x: Tensor, t: Tensor, cond: object = None, s: object = None) -> Tensor:
        return scale * x

    with lawful("an objective takes a model, data and an rng"):
        loss = objective(model, x1, None, rng)
    require(loss.rows.shape == (count,), f"the loss is one number a row: its shape is {tuple(loss.rows.shape)}.")
    require(torch.isfinite(loss.rows), "the loss is finite.")
    for name, part in loss.parts.items():
        require(part.shape == (count,), f"the part {name!r} is one number a row: its shape is {tuple(part.shape)}.")
    agree("the same rng gives the same loss", objective(model, x1, None, rng).rows, loss.rows, 0.0)
    _check_draw(objective, x1, rng)
    x0, t = objective.draw(rng, x1)
    pairs = objective.coupling(x0, x1, None, rng.fold(Stream.COUPLING))
    given = objective(model, pairs.x1, None, rng, x0=pairs.x0, t=t).rows
    agree("what is given is neither drawn nor joined again", given, loss.rows, tolerance)
    (gradient,) = torch.autograd.grad(loss.rows.sum(), scale)
    require(torch.isfinite(gradient) & (gradient != 0), "the gradient reaches the network and is finite.")
    velocity = objective.dynamics(model).rate(x1, torch.tensor(0.5))
    require(
        velocity.shape == x1.shape, f"the dynamics has a rate like the state: its shape is {tuple(velocity.shape)}."
    )


def _check_draw(objective: Objective[Tensor], x1: Tensor, rng: Rng) -> None:
    x0, t = objective.draw(rng, x1)
    require(t.shape == x1.shape[:1], f"times are one a row: their shape is {tuple(t.shape)}.")
    require((t >= 0) & (t <= 1), "times lie in [0, 1].")
    require(x0.shape == x1.shape and x0.dtype == x1.dtype, "noise has the shape and dtype of the data.")
    for part in torch.arange(len(x1)).split(2):
        noise, times = objective.draw(keys(rng, part), x1[part])
        agree("the noise of a row is a function of its key alone", noise, x0[part], 0.0)
        agree("the time of a row is a function of its key alone", times, t[part], 0.0)
        start = objective.prior(keys(rng, part), x1[part])
        agree("a row's start of sampling is a function of its key alone", start, objective.prior(rng, x1)[part], 0.0)
