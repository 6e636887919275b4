r"""Maximum likelihood of a continuous normalizing flow: the rival of flow matching, which simulates to train.

Every datum is carried back to the noise with the divergence met on the way, which gives its exact log-density under
the flow (Chen et al. 2018; Grathwohl et al. 2019, FFJORD),

    -log p(x1) = -log N(x0; 0, sigma(0)**2) + integral of div u(x_t, t) dt,

and that is minimised, by gradients through the whole simulation. A step costs from ten to some thousand times one of
matching; in return the loss is the likelihood itself. So it earns its cost on a flow that matching has trained, where
it finds the last hundredths of a nat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from ..core.condition import Cond
from ..core.errors import InputError, nearest
from ..core.loop import check_grid
from ..core.protocols import Coupling, Loss, Model, Quantity, Solver, over
from ..core.rng import Rng, Stream
from ..couplings import Independent
from ..dynamics import Flow, likelihood
from ..dynamics.likelihood import Probe, Trace
from ..paths import Affine, as_velocity
from .sources import Normal

Gradient = Literal["backpropagation", "adjoint"]

STEPS = 8
"""Steps of a uniform grid when a solver of fixed steps is given no grid: RK4 then errs less than the likelihood's own
noise over a batch."""


@final
@dataclass(frozen=True)
class SimulatedLikelihood:
    """Maximum likelihood by simulation.

    A row's loss is ``-log p(x1)`` in nats **for each entry of x1**, so that learning rates and clips mean the same for
    any size of state, as they do for :class:`~rheos.objectives.Matching`. The part ``nll`` is ``-log p(x1)`` itself.

    A network that matching has trained is tuned further with that objective's ``path`` and ``predict``. What it stands
    for afterwards no longer follows the path's marginals, so that its velocity determines no score.

    Args:
        solver: what integrates, in training. Dopri5 for certainty; a solver of fixed steps for a fixed cost, but then
            look at the likelihood of a finer one now and then, for the loss can also be lowered by the solver's error.
            The network must be the same at every evaluation: train it without dropout.
        trace: the divergence: "exact", a backward pass for every entry of a state, or "hutchinson", one for every
            probe; unbiased, and noisy.
        gradient: "backpropagation" through the solver's steps, or "adjoint": in memory that does not grow with the
            steps, at about twice the evaluations. The adjoint finds the parameters of the networks inside the model
            that are modules, and no others.
        probes: Hutchinson's probes a row, drawn anew for every batch and held along a trajectory.
        probe: the law of their entries, "rademacher" or "normal".
        grid: times from 1 down to 0; for adaptive solvers the two ends, otherwise 8 uniform steps, when left out.
        path: the path of a network that predicts something else than a velocity; its sigma(0) is the scale of the
            noise.
        predict: what the network gives.

    Raises:
        InputError: for a name that is not known, a grid that does not lead from 1 to 0, or no probes.
    """

    solver: Solver[Any]
    trace: Trace = "exact"
    gradient: Gradient = "backpropagation"
    probes: int = 1
    probe: Probe = "rademacher"
    grid: tuple[float, ...] | None = None
    path: Affine = Affine()
    predict: Quantity = "velocity"
    learned: Mapping[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, closed in (("trace", Trace), ("gradient", Gradient), ("probe", Probe), ("predict", Quantity)):
            value, known = getattr(self, name), get_args(closed)
            if value not in known:
                raise InputError(f"{name} cannot be {value!r}; {nearest(str(value), known)}")
        if self.probes < 1:
            raise InputError(f"at least one probe is needed, got {self.probes}.")
        if self.grid is not None:
            check_grid(torch.tensor(self.grid))
            if (self.grid[0], self.grid[-1]) != (1.0, 0.0):
                raise InputError(f"data are carried back from t = 1 to t = 0, and the grid is {self.grid}.")

    @property
    def coupling(self) -> Coupling[Tensor]:
        """None: no noise is drawn, so there is nothing to join."""
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
        """The loss of every row, and its part ``nll``.

        Args:
            model: the network, ``model(x, t, cond)``.
            x1: data (B, ...).
            cond: the condition of each row.
            rng: draws the probes of "hutchinson", a key a row; the exact trace needs none.
            x0: unused.
            t: unused.
            state: unused.
        """
        found = likelihood(
            self.dynamics(model),
            x1,
            solver=self.solver,
            trace=self.trace,
            cond=cond,
            rng=rng,
            probes=self.probes,
            probe=self.probe,
            grid=self._grid(x1),
            scale=self._scale(x1),
            adjoint=_parameters(model) if self.gradient == "adjoint" else None,
        )
        nll = -found.log_prob
        return Loss(nll / max(1, math.prod(x1.shape[1:])), {"nll": nll})

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros, of the shapes of noise and of times: nothing is drawn ahead."""
        return torch.zeros_like(like), torch.zeros(len(like), device=like.device)

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        """The states that sampling starts from, for the rows of ``rng``: normal noise of the path's sigma(0)."""
        return self.path.prior(Normal()(rng.fold(Stream.SOURCE), like))

    def dynamics(self, network: Model) -> Flow:
        """The flow of the velocity that the network stands for; it determines no score."""
        known = None if self.predict == "velocity" else lambda t: self.path.determined(t, self.predict)
        return Flow(as_velocity(network, self.path, self.predict), False, known)

    def _grid(self, x: Tensor) -> Tensor:
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        if self.grid is not None:
            return torch.tensor(self.grid, dtype=dtype, device=x.device)
        return torch.linspace(1, 0, 2 if self.solver.adaptive else STEPS + 1, dtype=dtype, device=x.device)

    def _scale(self, x: Tensor) -> Tensor:
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return torch.as_tensor(self.path.schedule(torch.zeros((), dtype=dtype, device=x.device))[1])


def _parameters(model: Model) -> list[Tensor]:
    """The parameters of the networks inside a model that need a gradient, each once."""
    networks: list[Model] = []

    def note(network: Model) -> Model:
        networks.append(network)
        return network

    over(model, note)
    modules = [network for network in networks if isinstance(network, nn.Module)]
    if len(modules) < len(networks):
        raise InputError(
            "the adjoint gathers gradients for the parameters of modules, and a network inside the model is no "
            'nn.Module; make it one, or take gradient="backpropagation".'
        )
    return list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
