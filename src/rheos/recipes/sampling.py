"""From a trained network to samples. Sample i of a seed is one function of (seed, i), whatever the batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from ..core import Dynamics, InputError, Rng, integrate
from ..dynamics import Flow, FlowMap, MapLikelihood, log_likelihood, map_likelihood
from ..guidance import Told
from ..metrics.trajectories import TrajectoryFigures, flow_figures
from ..objectives import FlowMapMatching, LearnedMatching, Matching, Normal, Rectified, SimulatedLikelihood
from ..paths import Affine
from ..solvers import RK4, Euler, FixedStep, Midpoint, grids
from .recipe import Recipe

STEPS = 32
"""Steps of RK4 along which a log-density is integrated, short at both ends, where flows are steep. On a digits model
its bits per dimension are within .001 of Dopri5's at 1e-4, for half the evaluations; and what is undetermined at an
end, where an adaptive solver would stall, is held."""

FINE = 32
"""Steps along which trajectories are followed to see how they bend. Of the midpoint rule: the first step of a multistep
rule is a tangent, which adds a corner of its own."""

FEW = (1, 2, 4, 8)
"""Steps in which a flow map is measured besides those asked for."""

PROBES = 2
"""Directions in which the divergence of each state is probed; more states tell more than more probes."""


class Drawn(NamedTuple):
    """Samples: states (N, ...), their labels (N,) where there are classes, and what one sample cost: evaluations of
    the (guided) model, and passes through the network. Of an adaptive solver, what the costliest batch took."""

    states: Tensor
    labels: Tensor | None
    evaluations: int
    passes: int


@final
@dataclass(frozen=True)
class Sampler:
    """Draws from a network as its recipe says.

    Args:
        recipe: says what the network learned, and how it is sampled when nothing else is asked.
        network: the trained network, on its device.
        seed: of the noise.
        batch: samples that are carried together; memory grows with it, the samples do not change.

    Raises:
        InputError: if the batch is empty.
    """

    recipe: Recipe
    network: nn.Module
    seed: int = 0
    batch: int = 500

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"a batch holds at least one sample, got batch = {self.batch}.")

    @property
    def evaluations(self) -> int:
        """Network evaluations a sample when nothing else is asked; of an adaptive solver only a wish."""
        return self.recipe.evaluations

    def __call__(self, labels: Tensor | None, count: int, evaluations: int) -> Tensor:
        """``count`` states with these labels, in at most so many network evaluations; an adaptive solver takes as
        many as it needs."""
        fixed = isinstance(self.recipe.solver, FixedStep)
        return self.draw(count, labels, evaluations=evaluations if fixed else None).states

    def curve(self, labels: Tensor | None, count: int, budgets: Iterable[int]) -> tuple[dict[int, Tensor], int]:
        """States from the same noise for several budgets, by the evaluations that they took, and which of these
        numbers is that of the recipe's own budget.

        Budgets that do not pay for a step are left out; of an adaptive solver, all but its own are. Of a flow map the
        few steps that it is made for are added.
        """
        own = self.draw(count, labels)
        found = {own.evaluations: own.states}
        solver = self.recipe.solver
        few = FEW if isinstance(self._flow, FlowMap) else ()
        if isinstance(solver, FixedStep):
            for budget in sorted({*budgets, *few}):
                if budget >= solver.stages and solver.evaluations(solver.steps(budget)) not in found:
                    drawn = self.draw(count, labels, evaluations=budget)
                    found[drawn.evaluations] = drawn.states
        return dict(sorted(found.items())), own.evaluations

    def draw(
        self, count: int, labels: Tensor | None = None, *, evaluations: int | None = None, steps: int | None = None
    ) -> Drawn:
        """``count`` samples, number 0 upward.

        Args:
            count: how many.
            labels: the class of each (count,), -1 for none in particular; the classes in turn when left out.
            evaluations: at most so many evaluations of the (guided) model a sample.
            steps: so many steps of the solver, instead.

        Raises:
            InputError: if the numbers or labels make no sense, or the budget does not pay for a step, or a budget is
                given to an adaptive solver.
        """
        if count < 1:
            raise InputError(f"at least one sample must be asked for, got {count}.")
        if steps is not None and evaluations is not None:
            raise InputError("give steps or evaluations, not both: one follows from the other.")
        recipe = self.recipe
        labels = self._labels(count, labels)
        device = self._device
        grid = recipe.grid(self._steps(evaluations) if steps is None else steps, device=device)
        states, evaluated, passed = [], 0, 0
        with evaluating(self.network), torch.no_grad():
            for rows in torch.arange(count).split(self.batch):
                rng = Rng(self.seed).rows(rows.to(device))
                start = recipe.objective.prior(rng, torch.empty(len(rows), *recipe.kind.shape, device=device))
                cond = None if labels is None else labels[rows].to(device)
                solution = integrate(recipe.solver, self._dynamics, start, grid, cond, rng)
                states.append(solution.x.cpu())
                evaluated, passed = max(evaluated, solution.evaluations), max(passed, solution.passes)
        return Drawn(torch.cat(states), labels, evaluated, passed)

    def trajectories(self, count: int, labels: Tensor | None = None) -> TrajectoryFigures:
        """How straight the trajectories of ``count`` samples are, number 0 upward: :mod:`rheos.metrics.trajectories`.

        Args:
            count: how many.
            labels: as in :meth:`draw`.
        """
        labels, device = self._labels(count, labels), self._device
        rng = Rng(self.seed).rows(torch.arange(count, device=device))
        start = self.recipe.objective.prior(rng, torch.empty(count, *self.recipe.kind.shape, device=device))
        with evaluating(self.network):
            return flow_figures(
                _as_velocity(self._flow),
                start,
                solver=Midpoint(),
                grid=grids.Uniform()(FINE, device=device),
                cond=None if labels is None else labels.to(device),
                batch=self.batch,
            )

    def log_prob(self, states: Tensor, labels: Tensor | None, rng: Rng) -> Tensor:
        """The log-density (B,) of states with these labels, in nats, by Hutchinson's estimate; without guidance,
        unless it is built into the network.

        Args:
            states: (B, ...).
            labels: the class of each (B,), -1 for none in particular; ``None`` where there are no classes.
            rng: draws the probes.

        Raises:
            InputError: if what was learned is not the flow of normal noise.
        """
        objective = self.recipe.objective
        known = isinstance(objective, Matching | LearnedMatching | SimulatedLikelihood | FlowMapMatching | Rectified)
        if not known or not isinstance(getattr(objective, "source", Normal()), Normal):
            raise InputError("a log-density is that of a flow from normal noise, which this recipe does not learn.")
        device = self._device
        flow = _as_velocity(self._learned)
        scale = objective.path.prior(torch.ones((), device=device))
        backward = grids.Cosine()(STEPS, device=device).flip(0)
        found = []
        with evaluating(self.network), torch.no_grad():
            for rows in torch.arange(len(states)).split(self.batch):
                found.append(
                    log_likelihood(
                        flow,
                        states[rows].to(device),
                        solver=RK4(),
                        grid=backward,
                        trace="hutchinson",
                        cond=None if labels is None else labels[rows].to(device),
                        rng=rng.rows(rows.to(device)),
                        probes=PROBES,
                        scale=scale,
                    ).cpu()
                )
        return torch.cat(found)

    @property
    def leads_back(self) -> bool:
        """Whether the network is a map that was trained to lead data back to normal noise."""
        objective = self.recipe.objective
        if isinstance(objective, Rectified):
            objective = objective.inner
        return (
            isinstance(objective, FlowMapMatching) and objective.backward > 0 and isinstance(objective.source, Normal)
        )

    def inverted(self, states: Tensor, labels: Tensor | None, steps: int) -> MapLikelihood:
        """The noise and log-density of states with these labels by the map, in so many steps, guided as the density is:
        :func:`~rheos.dynamics.map_likelihood`, all of them in one batch.

        Raises:
            InputError: if what was learned is no map that leads back.
        """
        objective: Any = self.recipe.objective
        flow_map = self._learned
        if not (self.leads_back and isinstance(flow_map, FlowMap)):
            raise InputError("only a flow map that was trained in both directions, --backward X, leads data to noise.")
        device = self._device
        with evaluating(self.network):
            return map_likelihood(
                flow_map,
                states.to(device),
                solver=Euler(),
                grid=grids.Uniform()(steps, device=device).flip(0),
                cond=None if labels is None else labels.to(device),
                scale=objective.path.prior(torch.ones((), device=device)),
            )

    @property
    def _dynamics(self) -> Dynamics[Tensor]:
        """What a sample is carried by: the flow, or its map under Euler's rule, with noise added where the recipe says
        so."""
        flow, noise = self._flow, self.recipe.noise
        if not isinstance(self.recipe.solver, Euler):
            flow = _as_velocity(flow)
        if noise is None:
            return flow
        path = getattr(self.recipe.objective, "path", None)
        if not (isinstance(flow, Flow | FlowMap) and isinstance(path, Affine)):
            raise InputError(
                f"noise is added to a flow on an affine path, and {type(self.recipe.objective).__name__} has none; "
                "sample this run without."
            )
        return noise(flow, path)

    @property
    def _flow(self) -> Dynamics[Tensor]:
        """The dynamics of the network, guided where the recipe says so."""
        flow = self.recipe.objective.dynamics(self.network)
        return flow if self.recipe.guidance is None else flow.over(self.recipe.guidance)

    @property
    def _learned(self) -> Any:
        """The dynamics whose density is told: without guidance, unless that is built into the network."""
        built_in = isinstance(self.recipe.guidance, Told)
        return self._flow if built_in else self.recipe.objective.dynamics(self.network)

    @property
    def _device(self) -> torch.device:
        first = next(self.network.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def _steps(self, evaluations: int | None) -> int:
        solver = self.recipe.solver
        if isinstance(solver, FixedStep):
            return solver.steps(self.recipe.evaluations if evaluations is None else evaluations)
        if evaluations is not None:
            raise InputError(
                f"{type(solver).__name__} takes as many evaluations as its tolerances need; leave the number out, or "
                "take a solver of fixed steps."
            )
        # The grid of a solver that chooses its own steps is the two ends.
        return 1

    def _labels(self, count: int, labels: Tensor | None) -> Tensor | None:
        classes = len(self.recipe.kind.classes)
        if labels is None:
            return torch.arange(count) % classes if classes else None
        if not classes:
            raise InputError("this run has no classes, so no label can be asked for.")
        whole = not labels.is_floating_point() and labels.dtype != torch.bool
        if not whole or labels.shape != (count,) or int(labels.min()) < -1 or int(labels.max()) >= classes:
            raise InputError(
                f"labels are ({count},) integers from -1 (any) to {classes - 1}, got {tuple(labels.shape)} "
                f"{labels.flatten().tolist()[:10]}."
            )
        return labels


def _as_velocity(dynamics: Any) -> Any:
    """The dynamics; of a map its flow, by the velocity on the diagonal."""
    return dynamics.flow if isinstance(dynamics, FlowMap) else dynamics


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A network in evaluation mode; afterwards each of its parts is as it was."""
    former = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in former:
            part.training = training
