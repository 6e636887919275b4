"""From a trained network to samples. Sample i of a seed is one function of (seed, i), whatever the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from ..core import InputError, Rng, integrate
from ..solvers import FixedStep
from .recipe import Recipe


class Drawn(NamedTuple):
    """Samples: states (N, ...), their labels (N,) where there are classes, and what one sample cost."""

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
    """

    recipe: Recipe
    network: nn.Module
    seed: int = 0
    batch: int = 500

    @property
    def evaluations(self) -> int:
        """Network evaluations a sample when nothing else is asked."""
        return self.recipe.evaluations

    def __call__(self, labels: Tensor | None, count: int, evaluations: int) -> Tensor:
        """``count`` states with these labels, in at most so many network evaluations."""
        return self.draw(count, labels, evaluations=evaluations).states

    def draw(
        self, count: int, labels: Tensor | None = None, *, evaluations: int | None = None, steps: int | None = None
    ) -> Drawn:
        """``count`` samples, number 0 upward.

        Args:
            count: how many.
            labels: the class of each (count,), -1 for none in particular; the classes in turn when left out.
            evaluations: at most so many evaluations of the network a sample.
            steps: so many steps of the solver, instead.
        """
        if count < 1:
            raise InputError(f"at least one sample must be asked for, got {count}.")
        recipe = self.recipe
        if steps is None:
            steps = self._steps(recipe.evaluations if evaluations is None else evaluations)
        labels = self._labels(count, labels)
        device = next(self.network.parameters()).device
        grid = recipe.grid(steps, device=device)
        flow = recipe.objective.dynamics(self.network)
        if recipe.guidance is not None:
            flow = flow.over(recipe.guidance)
        states, cost = [], (0, 0)
        training = self.network.training
        self.network.eval()
        for first in range(0, count, self.batch):
            rows = torch.arange(first, min(first + self.batch, count), device=device)
            rng = Rng(self.seed).rows(rows)
            like = torch.empty(len(rows), *recipe.kind.shape, device=device)
            cond = None if labels is None else labels[rows.cpu()].to(device)
            with torch.no_grad():
                start = recipe.objective.prior(rng, like)
                solution = integrate(recipe.solver, flow, start, grid, cond, rng)
            states.append(solution.x.cpu())
            cost = solution.evaluations, solution.passes
        self.network.train(training)
        return Drawn(torch.cat(states), labels, *cost)

    def _steps(self, evaluations: int) -> int:
        solver = self.recipe.solver
        # An adaptive solver takes the steps it needs; its grid is the two ends.
        return solver.steps(evaluations) if isinstance(solver, FixedStep) else 1

    def _labels(self, count: int, labels: Tensor | None) -> Tensor | None:
        classes = len(self.recipe.kind.classes)
        if labels is None:
            return torch.arange(count) % classes if classes else None
        if not classes:
            raise InputError("this run has no classes, so no label can be asked for.")
        if labels.shape != (count,) or int(labels.min()) < -1 or int(labels.max()) >= classes:
            raise InputError(
                f"labels are ({count},) numbers from -1 (any) to {classes - 1}, got {labels.tolist()[:10]}."
            )
        return labels
