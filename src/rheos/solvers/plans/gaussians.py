"""The flows of single Gaussians of many widths: what every flow resembles in part.

A rule that is fitted to draws of one model alone need not integrate anything else well. Fitted to these too, with a
small weight, it stays a good rule when the model or its conditions change; and they cost no evaluation of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.time import expand
from ...dynamics import Flow
from ...paths import Affine
from .field import Field, Reference

WIDTHS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4)
"""Standard deviations of the data, in units of those of the noise."""


def gaussians(path: Affine, device: torch.device) -> tuple[Field, Reference]:
    """One draw of each, in one dimension, and where exact integration leads it.

    For data of deviation w the expected datum at x is ``alpha*w**2/(alpha**2*w**2 + sigma**2)*x``.
    """
    widths = torch.tensor(WIDTHS, dtype=torch.float64, device=device)

    def velocity(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        alpha, sigma = path.schedule(t)
        square = widths[cond].square()
        data = expand(alpha * square / (alpha.square() * square + sigma.square()), x) * x
        return path.convert(data, x, t, given="data", want="velocity")

    rows = torch.arange(len(widths), device=device)
    field = Field([Flow(velocity)], torch.ones(len(rows), 1).to(widths), rows, torch.zeros_like(rows))
    return field, Reference.of(field)
