"""The laws of a dynamics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics, Model
from ..core.ragged import Ragged
from ..core.rng import Rng
from ..core.tree import Tree, batch
from .law import SEED, agree_states, keys, lawful, require, rows


def check_dynamics(
    dynamics: Dynamics[Any],
    x: Tree,
    *,
    times: tuple[float, float] = (0.3, 0.45),
    reversible: bool | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Hold a dynamics against its laws, at the state ``x``.

    ``rate`` is one evaluation of the model, the same when asked twice, with the batch in front; ``over`` wraps the
    model and leaves the dynamics as it was; a time of shape () is that time for every row; a row depends on itself and
    its key alone; moving by no time changes nothing; and moving there and back along one rate ends where it began.

    Args:
        dynamics: the dynamics.
        x: a state of at least two rows.
        times: the two times between which it is moved.
        reversible: whether moving back along a rate undoes a move. When left out: wherever a move needs no randomness
            and the state does not grow.
        tolerance: relative above 1.

    Raises:
        AssertionError: if a law is broken.
    """
    count = batch(x)
    require(count >= 2, "check_dynamics needs a state of at least two rows.")
    t, s = (torch.tensor(time, dtype=_clock(x)) for time in times)
    rng = Rng(SEED).rows(torch.arange(count))
    with lawful("a dynamics takes times of shape ()"):
        rate = dynamics.rate(x, t, s)
        moved = dynamics.move(x, rate, t, s, rng)
    require(batch(rate) == count, f"a rate has the batch in front: {batch(rate)} rows for {count}.")
    agree_states("the rate is the same when asked twice", dynamics.rate(x, t, s), rate, 0.0)
    agree_states("moving by no time changes nothing", dynamics.move(x, rate, t, t, rng), x, tolerance)
    agree_states("a move is the same for the same randomness", dynamics.move(x, rate, t, s, rng), moved, 0.0)
    _check_clocks(dynamics, x, t, s, rng, tolerance)
    _check_rows(dynamics, x, moved, t, s, rng, tolerance)
    _check_over(dynamics, x, t, s)
    _check_determined(dynamics, t, count)
    if reversible is None:
        reversible = not isinstance(x, Ragged) and not _random(dynamics, x, rate, t, s)
    if reversible:
        back = dynamics.move(dynamics.move(x, rate, t, s), rate, s, t)
        agree_states("moving there and back along one rate ends where it began", back, x, tolerance)


def _check_clocks(dynamics: Dynamics[Any], x: Tree, t: Tensor, s: Tensor, rng: Rng, tolerance: float) -> None:
    count = batch(x)
    one = dynamics.move(x, dynamics.rate(x, t, s), t, s, rng)
    many_t, many_s = t.expand(count), s.expand(count)
    with lawful("a dynamics takes times of shape (B,)"):
        many = dynamics.move(x, dynamics.rate(x, many_t, many_s), many_t, many_s, rng)
    agree_states("a time of shape () is that time for every row", one, many, tolerance)
    # One row is at the end of its step already; the others go on.
    ends = torch.where(torch.arange(count) == 0, t, s)
    still = dynamics.move(x, dynamics.rate(x, many_t, many_s), many_t, ends, rng)
    first, rest = torch.arange(1), torch.arange(1, count)
    agree_states("a row that moves by no time stands still", rows(still, first), rows(x, first), tolerance)
    agree_states("every row moves by its own clock", rows(still, rest), rows(many, rest), tolerance)


def _check_rows(
    dynamics: Dynamics[Any], x: Tree, moved: Tree, t: Tensor, s: Tensor, rng: Rng, tolerance: float
) -> None:
    for row in range(batch(x)):
        index = torch.tensor([row])
        alone = rows(x, index)
        single = dynamics.move(alone, dynamics.rate(alone, t, s), t, s, keys(rng, index))
        agree_states(f"row {row} depends on itself and its key alone", rows(moved, index), single, tolerance)


def _check_over(dynamics: Dynamics[Any], x: Tree, t: Tensor, s: Tensor) -> None:
    calls = [0]

    def counted(model: Model) -> Model:
        def call(*args: Any, **end: Any) -> Any:
            calls[0] += 1
            return model(*args, **end)

        return call

    wrapped = dynamics.over(counted)
    require(type(wrapped) is type(dynamics), f"over returns the same kind of dynamics, not {type(wrapped).__name__}.")
    agree_states("over with a bare counter changes no rate", wrapped.rate(x, t, s), dynamics.rate(x, t, s), 0.0)
    require(calls[0] == 1, f"a rate is one call of the model inside over: {calls[0]} calls were counted.")


def _check_determined(dynamics: Dynamics[Any], t: Tensor, count: int) -> None:
    for time in (t, t.expand(count)):
        known = dynamics.determined(time)
        fits = known is None or (known.dtype == torch.bool and known.shape == time.shape)
        require(fits, f"determined(t) is None or bools of the shape {tuple(time.shape)} of the time.")


def _random(dynamics: Dynamics[Any], x: Tree, rate: Tree, t: Tensor, s: Tensor) -> bool:
    try:
        dynamics.move(x, rate, t, s)
    except InputError:
        return True
    return False


def _clock(x: Tree) -> torch.dtype:
    if isinstance(x, tuple):
        return _clock(x[0])
    values = x.values if isinstance(x, Ragged) else x
    return torch.float64 if values.dtype == torch.float64 else torch.float32
