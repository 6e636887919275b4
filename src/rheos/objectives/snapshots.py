r"""Several snapshots in time: a flow that passes through all of them, learned without simulation.

Given are draws of a population at K times, and nobody knows which draw became which. Join each snapshot with the next
by a coupling; lay a smooth curve through the K states that were joined; stand at x on it at a time t, and ask the
network for the velocity. The minimiser of the mean squared error is the conditional expectation given (x, t), which
carries the first snapshot through every other (Rohbeck et al. 2025, "Modeling complex system dynamics with flow
matching across time and conditions"; with straight lines between neighbours, Tong et al. 2024).
"""

from __future__ import annotations

import itertools
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
from ..dynamics import Flow
from ..paths.spline import Curve
from .losses import Distance, Squared
from .times import Times, Uniform


@final
@dataclass(frozen=True)
class Snapshots:
    """The objective of flow matching through more than two distributions. A datum is one draw of each, (K, ...), and
    the network's state has the shape of a single draw.

    Args:
        path: the curve through the states that were joined, such as ``paths.Spline((0.0, 0.5, 1.0))``.
        between: which draw of a snapshot goes with which draw of the next, among the rows of a batch. An optimal
            transport where the rows are unpaired; ``couplings.Independent()`` where each row is a trajectory already,
            be it observed or made by :func:`trajectories`.
        times: the density of training times.
        loss: the distance between prediction and target.
        source: draws the first snapshot, for sampling to start from.
    """

    path: Curve
    between: Coupling[Tensor]
    times: Times = Uniform()
    loss: Distance = Squared()
    source: Source[Tensor] | None = None
    learned: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def coupling(self) -> Independent:
        """There is no noise to join with the data: the first snapshot is a part of each datum."""
        return Independent()

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
        """The loss of every row.

        Args:
            model: the network, ``model(x, t, cond)`` at states (B, ...).
            x1: one draw of each snapshot a row, (B, K, ...).
            cond: the condition of each row, which all its draws share.
            rng: for the coupling, and for the times that are not given, a key a row.
            x0: unused; the first snapshot is ``x1[:, 0]``.
            t: times (B,).
            state: unused; what other objectives keep beside the network.
        """
        if t is None:
            if rng is None:
                raise InputError("give an rng (an Rng, a torch.Generator or a seed) to draw the times with.")
            t = self.times(Rng.of(rng).per_row(len(x1), x1.device).fold(Stream.TIME))
        if t.shape != x1.shape[:1]:
            raise ShapeError(f"training times are one a row, ({len(x1)},), got {tuple(t.shape)}.")
        if not self.between.independent:
            x1 = trajectories(x1, self.between, cond, None if rng is None else Rng.of(rng).fold(Stream.COUPLING))
        sample = self.path.sample(x1, t)
        prediction = model(sample.x, t) if cond is None else model(sample.x, t, cond)
        if prediction.shape != sample.target.shape:
            raise ShapeError(
                f"the network must return the shape {tuple(sample.target.shape)} of one state a row, got "
                f"{tuple(prediction.shape)}."
            )
        return Loss(self.loss(prediction, sample.target))

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        """No noise, which is written as zeros like ``like``, and times, for the rows of ``rng``."""
        return like.new_zeros(()).expand(like.shape), self.times(rng.fold(Stream.TIME))

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        """The states that sampling starts from, draws of the first snapshot like ``like``, for the rows of ``rng``."""
        if self.source is None:
            raise InputError(
                "sampling starts at the first snapshot: give Snapshots a source that draws it, or start from states of "
                "your own."
            )
        return self.source(rng.fold(Stream.SOURCE), like)

    def dynamics(self, network: Model) -> Flow:
        """The flow through all snapshots; stop at a time between to see what was not observed."""
        return Flow(network, False)


def trajectories(x: Tensor, coupling: Coupling[Tensor], cond: Cond | None = None, rng: Rng | None = None) -> Tensor:
    """Unpaired draws (B, K, ...), each column joined with the next one: the same draws as rows that belong together.

    Neighbours are joined each by themselves, so that given a state the one before says nothing of the one after. Row b
    begins at ``x[b, 0]``, and its condition stays ``cond[b]``.

    Args:
        x: one draw of each snapshot a row.
        coupling: joins two snapshots.
        cond: the condition of each row, which all its draws share.
        rng: for the coupling; each pair of neighbours has a key of its own.
    """
    columns = x.unbind(1)
    place, joined = torch.arange(len(x), device=x.device), [columns[0]]
    for k, (before, after) in enumerate(itertools.pairwise(columns)):
        pairs = coupling(before, after, cond, None if rng is None else rng.fold(k))
        place = pairs.j[pairs.i.argsort()][place]
        joined.append(after[place])
    return torch.stack(joined, 1)
