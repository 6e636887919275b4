"""How a broken law is reported, and how states of any kind are compared: row by row, as lists of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import RheosError
from ..core.ragged import Ragged
from ..core.rng import Rng
from ..core.tree import Tree

SEED = 20_240_601
"""The kit draws its own states and times from this seed, so that a failure repeats."""


def require(kept: bool | Tensor, law: str) -> None:
    """Raise with the sentence ``law`` unless it is kept."""
    if not bool(torch.as_tensor(kept).all()):
        raise AssertionError(law)


def agree(law: str, got: Tensor | float, want: Tensor | float, tolerance: float, t: Tensor | None = None) -> None:
    """Raise unless ``|got - want| <= tolerance * (1 + largest |want|)`` everywhere.

    Args:
        law: the sentence that says what should have held.
        got: what came.
        want: what was expected.
        tolerance: the largest difference, relative for numbers above 1.
        t: times whose shape is a prefix of the shape of ``got``, to say where it failed.
    """
    got, want = torch.as_tensor(got).detach(), torch.as_tensor(want).detach()
    require(got.shape == want.shape, f"{law}: the shape is {tuple(got.shape)} and should be {tuple(want.shape)}.")
    if got.numel() == 0:
        return
    gap = torch.where(got == want, 0.0, (got.double() - want.double()).abs()).nan_to_num(nan=math.inf)
    size = want.double().abs()
    allowed = tolerance * (1 + float(size[torch.isfinite(size)].max() if bool(torch.isfinite(size).any()) else 0.0))
    if float(gap.max()) > allowed:
        place = torch.unravel_index(gap.argmax(), gap.shape)
        when = "" if t is None else f" at t = {float(t[place[: t.dim()]] if t.dim() else t):.6g}"
        raise AssertionError(f"{law}:{when} the difference is {float(gap.max()):.3g}, and {allowed:.3g} is allowed.")


def agree_states(law: str, got: Tree, want: Tree, tolerance: float) -> None:
    """:func:`agree` for states of any kind, ignoring what stands behind a sequence's length."""
    for row, (mine, other) in enumerate(zip(unbatch(got), unbatch(want), strict=True)):
        for one, two in zip(mine, other, strict=True):
            agree(f"{law} (row {row})", one, two, tolerance)


def slope(function: Callable[[Tensor], Any], t: Tensor) -> Any:
    """The derivative of a function of time, by forward-mode differentiation."""
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]


@contextmanager
def lawful(law: str) -> Iterator[None]:
    """Report an error of the part under test as a broken law."""
    try:
        yield
    except (RheosError, IndexError, RuntimeError, TypeError) as error:
        raise AssertionError(f"{law}: it raised {type(error).__name__}: {error}") from error


def refuses(law: str, error: type[Exception], call: Callable[[], Any]) -> None:
    """Raise unless ``call()`` raises ``error``."""
    try:
        call()
    except error:
        return
    raise AssertionError(f"{law}: {error.__name__} should have been raised.")


def unbatch(state: Tree) -> list[list[Tensor]]:
    """The tensors of each row of a state, without padding."""
    if isinstance(state, tuple):
        return [
            [leaf for part in parts for leaf in part] for parts in zip(*(unbatch(part) for part in state), strict=True)
        ]
    if isinstance(state, Ragged):
        lengths = state.lengths.tolist()
        return [[state.values[b, :n], state.born[b, :n]] for b, n in enumerate(lengths)]
    return [[row] for row in state.unbind()]


def rows(state: Tree, index: Tensor) -> Tree:
    """The rows ``index`` of a state."""
    if isinstance(state, tuple):
        return tuple(rows(part, index) for part in state)
    if isinstance(state, Ragged):
        return replace(state, values=state.values[index], lengths=state.lengths[index], born=state.born[index])
    return state[index]


def keys(rng: Rng, index: Tensor) -> Rng:
    """The rows ``index`` of an Rng that has a key a row."""
    return Rng(rng.key[index], None if rng.row is None else rng.row[index])


def normal(*shape: int, stream: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers of the kit's own."""
    return Rng(SEED).fold(stream).normal(*shape, dtype=dtype)


def clocks(shape: Sequence[int], low: float, high: float, stream: int = 0) -> Tensor:
    """Times between ``low`` and ``high`` of the kit's own, in float64."""
    return low + (high - low) * Rng(SEED).fold(stream).uniform(*shape, dtype=torch.float64)
