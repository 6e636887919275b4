r"""Flow matching whose path learns beside the network.

A flow is easy to follow when its trajectories are straight. Those of the marginal flow v(x, t) = E[dI | I = x] of an
interpolant I(x0, x1, t) with derivative dI are so when its kinetic energy ``E integral |v|^2 dt`` is as small as it can
be: it is the squared displacement of the trajectories plus the integral that measures their curvature (see
:mod:`rheos.metrics.trajectories`), and the least of all is that of an optimal transport (Benamou and Brenier 2000).
Since v minimises the loss of flow matching,

    E |v|^2 = E |dI|^2 - min_u E |u(I) - dI|^2 = max_u E [2 u(I).dI - |u(I)|^2],

so an interpolant is to minimise what the network maximises (Albergo and Vanden-Eijnden 2023, section 3: optimal
transport as a max-min problem). With the network at its maximum, the gradient for the path is that of the bracket at
fixed u. One loss does both: the network's term sees the path as given, and the path's term the network.

The other way needs no network: paths whose own cost ``E integral dI.G(I)dI dt`` in a metric of the data is least
stay near the data (Kapusniak et al. 2024, "Metric flow matching").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from ..core.condition import Cond
from ..core.errors import InputError, ShapeError
from ..core.protocols import Coupling, Loss, Model, PathSample, Source
from ..core.rng import Rng, Stream
from ..couplings import Independent
from ..dynamics import Flow
from ..paths import Affine
from ..paths.learned import LearnedInterpolant, learned_parts
from ..paths.metric import Metric
from .losses import Squared
from .rows import drawn
from .sources import Normal
from .times import Times, Uniform


class Energy(Protocol):
    """What a path is to have little of."""

    @property
    def learned(self) -> Mapping[str, nn.Module]:
        """What must be kept with a run."""
        ...

    def __call__(self, sample: PathSample[Tensor], place: Tensor, velocity: Tensor) -> Tensor:
        """The energy of every row (B,), a mean over entries, with a gradient for the path's parameters alone.

        Args:
            sample: points of the path and their derivatives, which carry the path's gradient.
            place: the same points, at which the network was evaluated; the leaf of its graph.
            velocity: the network's output there, with its graph.
        """
        ...


@final
@dataclass(frozen=True)
class KineticEnergy:
    """``2 v.dI - |v|^2``, the kinetic energy of the marginal flow once the network is trained, and a share of that of
    the paths, ``|dI|^2``.

    Args:
        conditional: that share. With none of it paths seek out what the network does not follow, because an error of
            the network looks like energy saved. On digits .1 costs no straightness; without it a run in five sent two
            noises in a thousand far away from the data, and a :class:`~rheos.paths.learned.Correction` with a
            perceptron, which wants .3, diverged.
    """

    conditional: float = 0.1

    def __post_init__(self) -> None:
        if not self.conditional >= 0:
            raise InputError(f"the weight of the conditional energy must be 0 or more, got {self.conditional}.")

    @property
    def learned(self) -> Mapping[str, nn.Module]:
        return {}

    def __call__(self, sample: PathSample[Tensor], place: Tensor, velocity: Tensor) -> Tensor:
        v, target = velocity.detach(), sample.target
        x = torch.zeros_like(v)
        if sample.x.requires_grad and velocity.requires_grad:
            # The chain rule through the network, by its input alone: no weight of it gets a gradient, in whatever it
            # is wrapped. What is added is zero, and has the derivative 2(dI - v).dv/dx along the path.
            (pull,) = torch.autograd.grad(
                velocity, place, 2 * (target.detach() - v), retain_graph=True, allow_unused=True
            )
            if pull is not None:
                x = pull * (sample.x - sample.x.detach())
        return (x + 2 * v * target - v.square() + self.conditional * target.square()).flatten(1).mean(1)


@final
@dataclass(frozen=True)
class MetricEnergy:
    """``sum_a G_a(I)*dI_a^2``: the cost of the paths in a metric of the data.

    Args:
        metric: the metric, fitted.
    """

    metric: Metric

    @property
    def learned(self) -> Mapping[str, nn.Module]:
        return {"metric": self.metric.held}

    def __call__(self, sample: PathSample[Tensor], place: Tensor, velocity: Tensor) -> Tensor:
        return (self.metric(sample.x) * sample.target.square()).flatten(1).mean(1)


@final
@dataclass(frozen=True)
class LearnedMatching:
    """The objective of a network that predicts the velocity of a path that learns.

    The rows of the loss are the squared error of the velocity plus the path's energy; the first has a gradient for the
    network only, the second for the path only.

    Args:
        path: a path of which something is learned.
        energy: what the path is to have little of.
        coupling: which noise goes with which data.
        weight: of the energy. Adam does not see it, but what clips the gradient of both together does.
        times: the density of training times; it weighs the energy as well.
        source: what stands at t = 0.

    Raises:
        InputError: if nothing of the path is learned, or its derivative is infinite at an end.
    """

    path: LearnedInterpolant | Affine
    energy: Energy = KineticEnergy()
    coupling: Coupling[Tensor] = Independent()
    weight: float = 1.0
    times: Times = Uniform()
    source: Source[Tensor] = Normal()

    def __post_init__(self) -> None:
        if not _parts(self.path):
            raise InputError(
                f"nothing of {self.path} is learned; take a paths.LearnedInterpolant or a schedules.Learned, or "
                "objectives.Matching."
            )
        if not self.path.schedule.bounded:
            raise InputError(
                f"the velocity of {self.path.schedule} is infinite at an end, so no network can predict it."
            )
        if not self.weight > 0:
            raise InputError(f"the weight of the path's energy must be positive, got {self.weight}.")

    @property
    def learned(self) -> Mapping[str, nn.Module]:
        """The parts that train beside the network, and what they need."""
        return {**_parts(self.path), **self.energy.learned}

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
        """The loss of every row; its parts are ``matching`` and ``energy``.

        Args:
            model: the network, ``model(x, t, cond)``.
            x1: data (B, ...).
            cond: the condition of each row.
            rng: draws the noise and the times that are not given, a key a row.
            x0: noise, like ``x1`` and joined with it already; drawn and joined by the coupling when left out.
            t: times (B,).
            state: unused; what other objectives keep beside the network.
        """
        x0, x1, cond, t = drawn(self, x1, cond, rng, x0, t)
        sample = self.path.sample(x0, x1, t)
        place = sample.x.detach().requires_grad_(torch.is_grad_enabled())
        velocity = model(place, t) if cond is None else model(place, t, cond)
        if velocity.shape != x1.shape:
            raise ShapeError(
                f"the network must return the state's shape {tuple(x1.shape)}, got {tuple(velocity.shape)}."
            )
        matching = Squared()(velocity, sample.target.detach())
        energy = self.energy(sample, place, velocity)
        return Loss(matching + self.weight * energy, {"matching": matching, "energy": energy})

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise like ``like`` and times, for the rows of ``rng``."""
        return self.source(rng.fold(Stream.SOURCE), like), self.times(rng.fold(Stream.TIME))

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        """The states that sampling starts from, for the rows of ``rng``: noise at its weight at t = 0."""
        return self.path.prior(self.source(rng.fold(Stream.SOURCE), like))

    def dynamics(self, network: Model) -> Flow:
        """The flow of the velocity. A score follows from it on an affine path alone."""
        gaussian = self.coupling.independent and isinstance(self.source, Normal) and isinstance(self.path, Affine)
        return Flow(network, gaussian)


def _parts(path: LearnedInterpolant | Affine) -> dict[str, nn.Module]:
    return dict(path.learned) if isinstance(path, LearnedInterpolant) else learned_parts(path.schedule)
