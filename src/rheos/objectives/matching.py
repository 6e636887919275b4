r"""Flow matching: regression onto a conditional velocity, with nothing simulated.

Draw data x1, noise x0 and a time t; join them by a coupling; stand at x on the path between them; ask the network
for the velocity there, or for any quantity that determines it. The minimiser of the mean squared error is the
conditional expectation given (x, t), which is the velocity that carries the noise to the data (Lipman et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from ..core.condition import Cond
from ..core.errors import InputError, ShapeError, UndeterminedError, nearest
from ..core.protocols import Coupling, Loss, Model, Quantity, Source
from ..core.rng import Rng, Stream
from ..couplings import Independent
from ..dynamics import Flow
from ..paths import QUANTITIES, Affine, Preconditioned, Rescheduled, as_velocity
from .losses import Distance, Squared
from .rows import drawn
from .sources import Normal
from .times import Times, Uniform
from .weights import Weight


@final
@dataclass(frozen=True)
class Matching:
    """The objective of flow matching, and of diffusion as the case of another path or another predicted quantity.

    Args:
        path: how noise becomes data.
        coupling: which noise goes with which data.
        predict: what the network is asked for.
        weight: how much each time counts; all alike when left out.
        times: the density of training times.
        loss: the distance between prediction and target.
        source: what stands at t = 0.
        data_std: the standard deviation of the data over all entries: then the network is
            :class:`~rheos.paths.Preconditioned` for it, which takes ``predict="data"``; as it is when left out.
        before: what the network was trained by until now, for example a diffusion model's objective. The network then
            stands for the flow that it was, carried over to this path by :class:`~rheos.paths.Rescheduled`, and goes on
            from there; this takes ``predict="velocity"``.

    Raises:
        InputError: when a velocity is to be predicted on a schedule whose derivative is infinite, or a preconditioned
            network is asked for something else than data, or one that was trained before for something else than the
            velocity.
    """

    path: Affine = Affine()
    coupling: Coupling[Tensor] = Independent()
    predict: Quantity = "velocity"
    weight: Weight | None = None
    times: Times = Uniform()
    loss: Distance = Squared()
    source: Source[Tensor] = Normal()
    data_std: float | None = None
    before: Matching | None = None
    learned: Mapping[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.predict not in QUANTITIES:
            raise InputError(f"{self.predict!r} cannot be predicted; {nearest(str(self.predict), QUANTITIES)}")
        if self.predict == "velocity" and not self.path.schedule.bounded:
            raise InputError(
                f"the velocity of {self.path.schedule} is infinite at an end, so no network can predict it; "
                'predict "noise", "data" or "v", or take another schedule.'
            )
        if self.data_std is not None and not (self.data_std > 0 and self.predict == "data"):
            raise InputError(
                "a preconditioned network is one that predicts data of a positive standard deviation; got data_std = "
                f"{self.data_std} and predict = {self.predict!r}."
            )
        if self.before is not None and self.predict != "velocity":
            raise InputError(
                f"a network that goes on as another flow is asked for the velocity, got predict = {self.predict!r}."
            )
        if self.predict == "score" and not self.coupling.independent:
            raise UndeterminedError(
                "a score exists only for noise independent of the data; with this coupling predict the velocity, "
                "or use couplings.Independent()."
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
        """The loss of every row.

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
        target = sample.target if self.predict == "velocity" else self.path.target(self.predict, x0, x1, t)
        model = self._meant(model)
        prediction = model(sample.x, t) if cond is None else model(sample.x, t, cond)
        if prediction.shape != target.shape:
            raise ShapeError(
                f"the network must return the state's shape {tuple(target.shape)}, got {tuple(prediction.shape)}."
            )
        rows = self.loss(prediction, target)
        return Loss(rows if self.weight is None else rows * self.weight(self.path, t, self.predict).to(rows.dtype))

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise like ``like`` and times, for the rows of ``rng``."""
        return self.source(rng.fold(Stream.SOURCE), like), self.times(rng.fold(Stream.TIME))

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        """The states that sampling starts from, for the rows of ``rng``: noise at its weight at t = 0."""
        return self.path.prior(self.source(rng.fold(Stream.SOURCE), like))

    def dynamics(self, network: Model) -> Flow:
        """The flow of the velocity that the trained network stands for."""
        gaussian = self.coupling.independent and isinstance(self.source, Normal)
        return Flow(as_velocity(self._meant(network), self.path, self.predict), gaussian, self._known(network))

    def carried(self, network: Model, path: Affine) -> Rescheduled:
        """The velocity that a network trained by this objective stands for on another path."""
        return Rescheduled(self.dynamics(network).velocity, self.path.schedule, path.schedule)

    def _meant(self, network: Model) -> Model:
        """What stands for the predicted quantity."""
        if self.before is not None:
            return self.before.carried(network, self.path)
        return network if self.data_std is None else Preconditioned(network, self.path, self.data_std)

    def _known(self, network: Model) -> Callable[[Tensor], Tensor] | None:
        """The times at which that determines the velocity."""
        if self.before is None:
            return None if self.predict == "velocity" else lambda t: self.path.determined(t, self.predict)
        known, own = self.before.dynamics(network).known, self.before.path.schedule
        return None if known is None else lambda t: known(own.time_of(*self.path.schedule(t)))
