r"""The density of a flow map, in as few evaluations as it has steps.

A map that was trained to lead backward, too, carries a datum to its noise, ``z = B(x)``. Where B is one to one, the
change of variables gives

    log p(x) = log p0(z) + log |det dB/dx|,

with no integral and no divergence along the way. Whether B leads back from where the map leads to is measured beside
it: B is followed by the map's way forward, and how far that ends from x is the cycle's error. The density is that of
the map's samples only where this is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.loop import Solution, integrate
from ..core.protocols import Solver
from .flow_map import FlowMap
from .likelihood import jacobian_rows, normal_log_prob


@final
@dataclass(frozen=True)
class MapLikelihood:
    """Log-densities, and whether they may be trusted.

    Attributes:
        log_prob: nats (B,).
        cycle: the root mean square over a state's entries of what lies between it and where the map leads its noise,
            (B,), in units of the data.
        folded: whether the map back turns orientation around, (B,), which that of a flow never does.
        x: the noise of each datum.
        evaluations: calls of the model on the way back.
    """

    log_prob: Tensor
    cycle: Tensor
    folded: Tensor
    x: Tensor
    evaluations: int


def map_likelihood(
    flow_map: FlowMap,
    x1: Tensor,
    *,
    solver: Solver[Tensor],
    grid: Tensor,
    cond: Cond | None = None,
    scale: float | Tensor = 1.0,
) -> MapLikelihood:
    """The log-density of data under a flow map, by the determinant of its way back.

    The Jacobian is exact, a backward pass a dimension in batches, and takes ``B*d*d`` numbers: for states of up to a
    few hundred entries, and of more for a few rows. No gradient is kept.

    Args:
        flow_map: the map, from normal noise at t = 0 to data at t = 1, trained in both directions.
        x1: data (B, ...).
        solver: Euler's rule, one step of which is one of the map.
        grid: times from 1 down to 0: one step where it has two.
        cond: the condition.
        scale: standard deviation of the noise, ``sigma(0)`` of the path.
    """
    with torch.enable_grad():
        state = x1.detach().requires_grad_()
        back = integrate(solver, flow_map, state, grid, cond)
        jacobian = torch.cat([rows.flatten(2) for _, rows in jacobian_rows(back.x, state)]).transpose(0, 1)
    with torch.no_grad():
        z = back.x.detach()
        sign, log_volume = torch.linalg.slogdet(jacobian)
        there: Solution[Tensor] = integrate(solver, flow_map, z, grid.flip(0), cond)
        cycle = (there.x - x1).flatten(1).square().mean(1).sqrt()
        return MapLikelihood(normal_log_prob(z, scale) + log_volume, cycle, sign <= 0, z, back.evaluations)
