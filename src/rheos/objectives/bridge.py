r"""Schroedinger bridges by regression, with nothing simulated (Tong et al. 2024, "Simulation-free Schroedinger bridges
via score and flow matching").

Of all processes that carry one distribution to another, the Schroedinger bridge is the one nearest to a Brownian motion
of variance ``sigma**2`` a unit of time. It is a mixture of Brownian bridges, whose ends are joined by the entropic
plan: the one that minimises ``<P, |x0 - x1|**2> + epsilon*KL(P | independent)`` with ``epsilon = 2*sigma**2``. So join
the ends by that plan, stand at x on the bridge between them, and ask one network for

    displacement = E[x1 - x0 | x]    and    score = -E[z | x]/lam,    lam = sigma*sqrt(t*(1 - t)).

The rows of the loss are ``|displacement - (x1 - x0)|**2 + sigma**2 * |lam*score + z|**2``, means over entries. Both
targets have a variance that is bounded in t, where the velocity's own is not, so no weight is needed; and sigma**2 is
what an error in ``lam*score`` costs the drift, so that the loss does not depend on the unit of the data.

With another coupling the marginals are still those of its bridges, for the flow and for every diffusion; only then they
are no Schroedinger bridge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from ..core.condition import Cond
from ..core.errors import InputError, ShapeError
from ..core.protocols import Coupling, Loss, Model, Source
from ..core.rng import Rng, Stream
from ..core.time import expand
from ..dynamics import Flow
from ..dynamics.drift import ScoredDiffusion
from ..paths.bridge import Bridge, BridgeVelocity, Told, halves, require_told
from .losses import Distance, Squared
from .rows import drawn
from .sources import Normal
from .times import Times, Uniform


@final
@dataclass(frozen=True)
class SchroedingerBridge:
    """The objective of a network that gives displacement and score side by side along axis 1, (B, 2C, ...) for states
    (B, C, ...): ``nn.UNet(C, ..., out_channels=2*C)``, or :class:`Twin` of two networks.

    Args:
        sigma: the diffusion coefficient of the reference process, in units of the state per square root of time.
        coupling: which x0 goes with which x1: an entropic one with ``epsilon = 2*sigma**2`` for a Schroedinger bridge.
        times: the density of training times.
        told: what the second half of the output is. "score" for distributions with a density, where everything is
            determined at both ends; "noise" (``-lam*score``) for data on few dimensions, whose score has no bound.
        loss: the distance between prediction and target; its minimiser is what it should be for a squared one only.
        source: what stands at t = 0.
    """

    sigma: float
    coupling: Coupling[Tensor]
    times: Times = Uniform()
    told: Told = "score"
    loss: Distance = Squared()
    source: Source[Tensor] = Normal()
    learned: Mapping[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_told(self.told)
        Bridge(self.sigma)

    @property
    def path(self) -> Bridge:
        """The bridge between two ends that are joined."""
        return Bridge(self.sigma)

    def __call__(
        self,
        model: Model,
        x1: Tensor,
        cond: Cond | None = None,
        rng: Rng | torch.Generator | int | None = None,
        *,
        x0: Tensor | None = None,
        t: Tensor | None = None,
        state: Any = None,
    ) -> Loss:
        """The loss of every row; its parts are ``displacement`` and ``score``.

        Args:
            model: the network, ``model(x, t, cond)``.
            x1: data (B, ...).
            cond: the condition of each row.
            rng: draws the noise of the bridge, and what is not given of x0 and t, a key a row.
            x0: states at t = 0, like ``x1`` and joined with it already; drawn and joined by the coupling when left out.
            t: times (B,).
            state: unused; what other objectives keep beside the network.
        """
        if rng is None:
            raise InputError("a bridge is random: give an rng (an Rng, a torch.Generator or a seed) to draw it with.")
        z = self.path.noise(x1, Rng.of(rng).per_row(len(x1), x1.device).fold(Stream.PATH))
        x0, x1, cond, t = drawn(self, x1, cond, rng, x0, t)
        path = self.path
        x = path.point(x0, x1, t, z)
        displacement, second = halves(model(x, t) if cond is None else model(x, t, cond))
        if displacement.shape != x.shape:
            raise ShapeError(
                f"the network must give displacement and score side by side along axis 1, each of the state's shape "
                f"{tuple(x.shape)}, got halves of shape {tuple(displacement.shape)}."
            )
        if self.told == "score":
            second = -expand(path.scale(t), x).to(x.dtype) * second
        parts = {"displacement": self.loss(displacement, x1 - x0), "score": self.sigma**2 * self.loss(second, z)}
        return Loss(parts["displacement"] + parts["score"], parts)

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        """States at t = 0 like ``like`` and times, for the rows of ``rng``."""
        return self.source(rng.fold(Stream.SOURCE), like), self.times(rng.fold(Stream.TIME))

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        """The states that sampling starts from, for the rows of ``rng``."""
        return self.source(rng.fold(Stream.SOURCE), like)

    def dynamics(self, network: Model) -> Flow:
        """The flow with the bridge's marginals, in both directions of time."""
        known = None if self.told == "score" else partial(self.path.determined, told=self.told)
        return Flow(BridgeVelocity(network, self.path, self.told), False, known)

    def diffusion(self, network: Model, coefficient: Callable[[Tensor], Tensor] | None = None) -> ScoredDiffusion:
        """The process itself, forward and backward in time.

        Args:
            network: what was trained.
            coefficient: another diffusion coefficient g(t), which keeps the marginals at each time but not the joint
                distribution of several; sigma when left out.
        """
        known = None if self.told == "score" else partial(self.path.determined, told=self.told)
        constant = partial(torch.full_like, fill_value=self.sigma)
        drift = partial(self.path.drift, told=self.told)
        return ScoredDiffusion(network, drift, constant if coefficient is None else coefficient, known)


@final
class Twin(nn.Module):
    """Two networks as one that gives both outputs side by side along axis 1.

    Args:
        displacement: ``net(x, t, cond)``, like x: the first half.
        score: the same for the second half.
    """

    def __init__(self, displacement: nn.Module, score: nn.Module) -> None:
        super().__init__()
        self.displacement, self.score = displacement, score

    def forward(self, x: Tensor, t: Tensor | float, *cond: Cond | None) -> Tensor:
        """The outputs (B, 2C, ...) at states (B, C, ...)."""
        return torch.cat([self.displacement(x, t, *cond), self.score(x, t, *cond)], 1)
