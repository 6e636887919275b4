r"""Entropic optimal transport: the plan that trades the cost against entropy, and pairs that are drawn from it.

Of all plans P between n noises and m data with uniform marginals it minimises

``sum P[i, j] |x0[i] - x1[j]|**2 - epsilon H(P)``

(Cuturi 2013). Its entropy, ``(H(P) - log n)/log m``, is a better knob than epsilon, for it means the same whatever the
data's scale and dimension: 0 is a map, 1 is independent, 0.1 is a good start (Zhang et al. 2025, "On fitting flow
models with large Sinkhorn couplings"). A given epsilon is what a Schroedinger bridge needs, ``2*sigma**2``.

Limits: epsilon -> 0 is optimal transport, :class:`~rheos.couplings.BatchOT`; epsilon -> infinity joins independently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from ...core.condition import Cond
from ...core.errors import InputError, RheosError
from ...core.protocols import Pairs
from ...core.rng import Rng
from ..ignored import warn_ignored
from ..sides import rows_of, sides
from .anneal import Given, Goal, Nats
from .gibbs import BLOCK, Gibbs
from .levels import Found, Start, spread, transport
from .plan import Plan

ENTROPY = 0.1
"""The entropy that is aimed at when nothing is said."""

WITHIN = 0.015
"""How far the entropy may be from its target, relative."""

FLAT = 1e-6
"""A standard deviation of scalar products, relative to the lengths, below which every plan costs the same."""


@final
@dataclass(frozen=True)
class Sinkhorn:
    """Pairs drawn from the entropic plan of a batch: each noise once, each datum once in the mean.

    Potentials are found from coarse to fine while epsilon falls, by Newton's steps and Sinkhorn's; nothing of the size
    of the plan is held, so that 65,536 by 65,536 takes less than 1 GB. A plan that does not converge raises.

    Args:
        entropy: the entropy of the plan to reach within 2 %, between 0 and 1; 0.1 when neither is given.
        epsilon: a given weight of the entropy, in units of the squared distance, instead.
        tolerance: of the L1 norm of the data's marginal.
        sweeps: passes over the plan at most.
        block: entries of the plan that are held at once.

    Raises:
        InputError: if a number is out of range, or both entropy and epsilon are given.
    """

    entropy: float | None = None
    epsilon: float | None = None
    tolerance: float = 1e-3
    sweeps: int = 1000
    block: int = BLOCK

    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.entropy is not None and self.epsilon is not None:
            raise InputError(
                f"entropy = {self.entropy} and epsilon = {self.epsilon} each decide the plan; give one of them."
            )
        if self.entropy is not None and not 0 < self.entropy < 1:
            raise InputError(
                f"the entropy of a plan is between 0 and 1, got {self.entropy}; 0 is BatchOT() and 1 Independent()."
            )
        if self.epsilon is not None and not 0 < self.epsilon < math.inf:
            raise InputError(f"epsilon is positive and finite, got {self.epsilon}; BatchOT() is the limit of 0.")
        if not 0 < self.tolerance < 1:
            raise InputError(f"the tolerance of the marginal is between 0 and 1, got {self.tolerance}.")
        for name in ("sweeps", "block"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} must be at least 1.")

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        """Join noise (n, ...) and data (m, ...). ``gap`` is that of the plan: what its entropy costs, mostly.

        Raises:
            InputError: if there is no rng to draw pairs with, or what :meth:`solve` raises.
            RheosError: if the plan did not converge.
        """
        if rng is None:
            raise InputError("pairs are drawn from the plan, which takes an rng; give one, or use solve(x0, x1).")
        if cond is not None:
            warn_ignored("entropic transport", "Sinkhorn")
        plan = self.solve(x0, x1)
        j = plan.sample(Rng.of(rng))
        return Pairs(x0, x1[j], torch.arange(len(x0), device=x0.device), j, plan.gap)

    def solve(self, x0: Tensor, x1: Tensor, start: Plan | None = None) -> Plan:
        """The plan between noise (n, ...) and data (m, ...).

        Args:
            x0: noise.
            x1: data, on the same device.
            start: a plan between other draws, or at another epsilon, to go on from; its potential of the noise is
                continued to these data.

        Raises:
            ShapeError: if a noise is not shaped like a datum, or there is none.
            InputError: if noise or data are not finite, or on two devices.
            RheosError: if the marginal error is not below the tolerance after so many sweeps.
        """
        x, y = sides(x0, x1)
        found = _flat(x, y, self.epsilon, self.block)
        if found is None:
            begun = None if start is None else Start(rows_of(start.x0).to(x), start.f.to(x.device), start.epsilon)
            found = transport(x, y, self._goal(len(y)), self.tolerance, self.sweeps, self.block, begun)
        sweep = found.sweep
        if sweep is None:
            raise RheosError(
                f"the entropic plan of {len(x)} noises and {len(y)} data did not converge: after {found.sweeps} sweeps "
                f"the marginal error is {found.error:.2g}, not {self.tolerance:g}, at epsilon {found.epsilon:.3g}. Ask "
                "for more entropy or a larger epsilon, give more sweeps, or use BatchOT() or Semidiscrete()."
            )
        entropy = sweep.entropy / math.log(len(y)) if len(y) > 1 else 1.0
        return Plan(
            x0,
            x1,
            found.f,
            found.g,
            found.epsilon,
            entropy,
            sweep.error,
            sweep.cost,
            sweep.bound,
            found.sweeps,
            self.block,
        )

    def _goal(self, count: int) -> Goal:
        if self.epsilon is not None:
            return Given(self.epsilon)
        return Nats((ENTROPY if self.entropy is None else self.entropy) * math.log(count), WITHIN)


def _flat(x: Tensor, y: Tensor, epsilon: float | None, block: int) -> Found | None:
    """The solution where every plan costs the same: the independent one, at any epsilon."""
    lengths = [float((side.double() - side.double().mean(0)).square().sum(1).mean().sqrt()) for side in (x, y)]
    if spread(x, y) > FLAT * lengths[0] * lengths[1]:
        return None
    g = (y.double() - x.double().mean(0)).square().sum(1)
    epsilon = epsilon or max(lengths[0] * lengths[1], float(g.max()), 1.0)
    sweep = Gibbs(x, y, block).sweep(g, epsilon)
    return Found(sweep.f, g, epsilon, sweep.error, 1, sweep)
