r"""Flow maps by regression: networks that sample in one step, from scratch or from a teacher.

A row of a batch is of one of two sorts. On the *diagonal* it is a row of flow matching: the network is to give the
velocity at (x, t), or a teacher's there. Off it, the network is to give the average velocity from t to s that one of
the :mod:`~rheos.objectives.identities` asks for. Nothing is simulated, and one pass forward and back serves all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from ..core.condition import Cond
from ..core.errors import InputError, ShapeError
from ..core.protocols import Coupling, Loss, Model, Source
from ..core.rng import Rng, Stream
from ..couplings import Independent
from ..dynamics import FlowMap
from ..paths import Affine
from ..schedules import Cosine
from .derivative import Derivative
from .identities import Compositional, Consistency, Eulerian, Identity, Known, Lagrangian
from .losses import Distance, Squared
from .matching import Matching
from .rows import drawn
from .scales import Given, Scales
from .sources import Normal
from .times import Times, Uniform

EVEN = 1e-3
"""Added to a row's loss before it is made a weight (Geng et al. 2025)."""


@final
@dataclass(frozen=True)
class FlowMapMatching:
    """The objective of a network of two times.

    Args:
        identity: what determines the map off the diagonal.
        path: how noise becomes data.
        coupling: which noise goes with which data.
        times: the density of both times of a row; the earlier one is where the step starts.
        diagonal: the share of rows on the diagonal.
        averaged: make targets of the network's average over training, where a trainer keeps one, and not of the network
            itself: for :class:`Lagrangian` the difference between converging and diverging.
        teacher: a velocity to distil, ``teacher(x, t, cond)``; without one the data themselves teach.
        before: what the network was trained by until now, as for :class:`Matching`: its map then begins as the velocity
            that it was, carried over to this path.
        how: derivatives are taken: "exact" or by "difference".
        ramp: rows of training over which gaps grow from nothing to their whole length; 0 begins with whole ones.
        backward: the share of rows off the diagonal whose step leads from data to noise: for inversion and likelihood.
        segments: of equal length, at whose ends steps off the diagonal end: 1 for steps to the data, as consistency
            models have them; 0 for steps that end anywhere. Such a map is sampled in so many steps; one that leads to
            the data also in more, with restarts.
        guided: scales of guidance to build in, of which each row is told one; no guidance when ``None``. A teacher is
            contrasted with itself without a condition. Without a teacher, samples of the velocity are contrasted with
            what the network, or its average, gives without one, so training has to drop some conditions. Rows without a
            condition are never guided.
        power: p of the weight ``1/(loss + .001)**p`` of a row. MeanFlow has 1, which evens losses out and no longer
            has the conditional mean as its minimiser; 0 has.
        loss: the distance between prediction and target.
        source: what stands at t = 0.

    Raises:
        InputError: if a share is not one, or the path's velocity is infinite at an end.
    """

    identity: Identity = field(default_factory=Lagrangian)
    path: Affine = Affine()
    coupling: Coupling[Tensor] = Independent()
    times: Times = Uniform()
    diagonal: float = 0.5
    averaged: bool = True
    teacher: Model | None = None
    before: Matching | None = None
    how: Derivative = "exact"
    ramp: int = 0
    backward: float = 0.0
    segments: int = 0
    guided: Scales | None = None
    power: float = 0.0
    loss: Distance = Squared()
    source: Source[Tensor] = Normal()
    learned: Mapping[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("diagonal", "backward"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share of rows, between 0 and 1, got {getattr(self, name)}.")
        for name in ("ramp", "segments", "power"):
            if isinstance(getattr(self, name), bool) or not getattr(self, name) >= 0:
                raise InputError(f"{name} is 0 or more, got {getattr(self, name)}.")
        if self.how not in ("exact", "difference"):
            raise InputError(f'derivatives are taken how="exact" or how="difference", got {self.how!r}.')
        if not self.path.schedule.bounded:
            raise InputError(
                f"the velocity of {self.path.schedule} is infinite at an end, so no network can predict its average; "
                "take another schedule."
            )

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
        """The loss of every row; its parts are ``diagonal`` and ``map``, each over the share of its rows.

        Args:
            model: the network, ``model(x, t, cond, s=s)``; with guidance built in ``model(x, t, cond, s=s, scale=w)``.
            x1: data (B, ...).
            cond: the condition of each row.
            rng: draws the end of each row's step and its scale, and what is not given of x0 and t, a key a row.
            x0: noise, like ``x1`` and joined with it already; drawn and joined by the coupling when left out.
            t: times (B,).
            state: the network's average, a model like it; the network itself when left out.
        """
        if rng is None:
            raise InputError("the ends of steps are random: give an rng (an Rng, a torch.Generator or a seed).")
        rng = Rng.of(rng)
        every = rng.per_row(len(x1), x1.device)
        keys = every.fold(Stream.END)
        x0, x1, cond, t = drawn(self, x1, cond, rng, x0, t)
        given = Given(cond) if self.guided is None else self.guided.draw(every.fold(Stream.SCALE), Given(cond))
        t, s = self._steps(t, keys)
        x, _, v = self.path.sample(x0, x1, t)
        model, average = self._meant(model), self._meant(state if self.averaged and state is not None else model)
        seen = torch.zeros(len(x1), dtype=torch.int64, device=x1.device) if keys.row is None else keys.row
        target = self._target(model, average, x, given, t, s, v, seen)
        prediction = given(model, x, t, s=s)
        if prediction.shape != x.shape:
            raise ShapeError(
                f"the network must return the state's shape {tuple(x.shape)}, got {tuple(prediction.shape)}."
            )
        rows = self.loss(prediction, target)
        parts = {"diagonal": torch.where(s == t, rows, 0.0), "map": torch.where(s == t, 0.0, rows)}
        return Loss(rows / (rows.detach() + EVEN) ** self.power if self.power else rows, parts)

    def _steps(self, t: Tensor, keys: Rng) -> tuple[Tensor, Tensor]:
        """Where each row's step starts and ends."""
        other = self.times.warp(keys.uniform(dtype=torch.float32)).to(t.dtype).clamp(0.0, 1.0)
        start, end = torch.minimum(t, other), torch.maximum(t, other)
        if self.segments:
            start, end = t, ((t * self.segments).floor() + 1).clamp(max=self.segments) / self.segments
        if self.ramp and keys.row is not None:
            end = start + (end - start) * ((keys.row + 1) / self.ramp).clamp(max=1.0).to(t.dtype)
        back = keys.fold(1).uniform() < self.backward
        start, end = torch.where(back, end, start), torch.where(back, start, end)
        still = keys.fold(2).uniform() < self.diagonal
        return torch.where(still, t, start), torch.where(still, t, end)

    @torch.no_grad()
    def _target(
        self,
        model: Model,
        average: Model,
        x: Tensor,
        given: Given,
        t: Tensor,
        s: Tensor,
        v: Tensor,
        seen: Tensor,
    ) -> Tensor:
        """What the network is to give in every row; ``v`` is the conditional velocity."""
        if self.teacher is not None:
            v = self._taught(self.teacher, x, t, given)
        elif self.guided is not None and given.scale is not None:
            v = self.guided.contrast(v, given.unconditional(average, x, t, s=t), given.scale, t)
        moves = (s != t).nonzero().flatten()
        if not len(moves):
            return v
        told = given.taken(moves)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return told(average, x, t, s=t) if self.teacher is None else self._taught(self.teacher, x, t, told)

        known = Known(
            own=lambda x, t, s: told(model, x, t, s=s),
            target=lambda x, t, s: told(average, x, t, s=s),
            velocity=velocity,
            how=self.how,
            seen=seen[moves],
        )
        found = self.identity(known, x[moves], t[moves], s[moves], v[moves])
        return v.index_copy(0, moves, found.to(v.dtype))

    def _taught(self, teacher: Model, x: Tensor, t: Tensor, given: Given) -> Tensor:
        """The teacher's velocity, guided where it is to be. A teacher is told no scale."""
        plain = Given(given.cond)
        v = plain(teacher, x, t)
        if self.guided is None or given.scale is None:
            return v
        return self.guided.contrast(v, plain.unconditional(teacher, x, t), given.scale, t)

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise like ``like`` and times, for the rows of ``rng``."""
        return self.source(rng.fold(Stream.SOURCE), like), self.times(rng.fold(Stream.TIME))

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        """The states that sampling starts from, for the rows of ``rng``: noise at its weight at t = 0."""
        return self.path.prior(self.source(rng.fold(Stream.SOURCE), like))

    def dynamics(self, network: Model) -> FlowMap:
        """The map that the network gives."""
        return FlowMap(self._meant(network), self.coupling.independent and isinstance(self.source, Normal))

    def _meant(self, network: Model) -> Model:
        """What gives average velocities."""
        return network if self.before is None else self.before.carried(network, self.path)


def mean_flow(**parts: Any) -> FlowMapMatching:
    """MeanFlow (Geng et al. 2025), 75 % of the rows on the diagonal, without its weight, ``power=1``, and without its
    times, ``LogitNormal(mean=-0.4)``: they leave few steps from noise, and after short trainings of the checkerboard
    the distance in one step is ten times that of uniform ones."""
    given = {"diagonal": 0.75, "averaged": False}
    return FlowMapMatching(Eulerian(), **{**given, **parts})


def improved_mean_flow(**parts: Any) -> FlowMapMatching:
    """Improved mean flows (Geng et al. 2025), half of the rows on the diagonal; of times as :func:`mean_flow`."""
    return FlowMapMatching(Eulerian(improved=True), **{"averaged": False, **parts})


def lagrangian(**parts: Any) -> FlowMapMatching:
    """Lagrangian self-distillation (Boffi, Albergo and Vanden-Eijnden 2025), its targets made by the average."""
    return FlowMapMatching(Lagrangian(), **parts)


def consistency(**parts: Any) -> FlowMapMatching:
    """Consistency models made easy (Geng et al. 2025): gaps halved every 50,000 rows."""
    given = {"segments": 1, "diagonal": 0.25, "averaged": False}
    return FlowMapMatching(Consistency(halved=50_000), **{**given, **parts})


def consistency_flow_matching(**parts: Any) -> FlowMapMatching:
    """Consistency flow matching (Yang et al. 2024), in two segments, its targets made by the average."""
    given = {"segments": 2, "diagonal": 0.25}
    return FlowMapMatching(Consistency(share=1 / 64, straight=1e-4), **{**given, **parts})


def continuous_consistency(**parts: Any) -> FlowMapMatching:
    """Continuous-time consistency models (Lu and Song 2024, sCM): of the circular path, evened out and warmed up."""
    given = {"path": Affine(Cosine()), "segments": 1, "diagonal": 0.25, "averaged": False}
    return FlowMapMatching(Eulerian(evened=0.1, warm=100_000), **{**given, **parts})


def shortcut(**parts: Any) -> FlowMapMatching:
    """Shortcut models (Frans et al. 2024) of any gap, a quarter of the rows off the diagonal."""
    return FlowMapMatching(Compositional(), **{"diagonal": 0.75, **parts})
