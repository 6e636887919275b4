"""The rows of a batch before a path is laid between them: noise drawn and joined with the data, and times."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.condition import Cond, take
from ..core.errors import InputError, ShapeError
from ..core.protocols import Objective
from ..core.rng import Rng, Stream


class Rows(NamedTuple):
    """Noise and data that are joined, (B, ...) each, the condition of the data, and times (B,)."""

    x0: Tensor
    x1: Tensor
    cond: Cond | None
    t: Tensor


def drawn(
    objective: Objective[Tensor],
    x1: Tensor,
    cond: Cond | None,
    rng: Rng | torch.Generator | int | None,
    x0: Tensor | None,
    t: Tensor | None,
) -> Rows:
    """What an objective was not given is drawn by its own rules, a key a row; noise that is drawn is joined by its
    coupling, noise that is given is joined already.

    Raises:
        InputError: if something is to be drawn without an rng.
        ShapeError: if there is not one time a row.
    """
    if x0 is None or t is None:
        if rng is None:
            raise InputError("give an rng (an Rng, a torch.Generator or a seed) to draw the noise and the times with.")
        keys = Rng.of(rng)
        noise, times = objective.draw(keys.per_row(len(x1), x1.device), x1)
        t = times if t is None else t
        if x0 is None:
            coupling = objective.coupling
            x0, x1, _, j, _ = coupling(noise, x1, cond, keys.fold(Stream.COUPLING))
            cond = cond if coupling.independent else take(cond, j)
    if t.shape != x1.shape[:1]:
        raise ShapeError(f"training times are one a row, ({len(x1)},), got {tuple(t.shape)}.")
    return Rows(x0, x1, cond, t)
