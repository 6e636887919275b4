"""Diffusion as the special case: one mixture, one noise, two schedules, and the same samples with the same density."""

from __future__ import annotations

import itertools

import pytest
import torch

from rheos.core import Rng, integrate
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Ancestral, Flow, likelihood
from rheos.paths import Affine, as_velocity
from rheos.schedules import Cosine, Discrete, Linear, LinearBetas, Schedule, VarianceExploding, VariancePreserving
from rheos.solvers import Dopri5

F64 = torch.float64
MIX = GaussianMixture(
    torch.tensor([1.0, 2.0, 1.5], dtype=F64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3], [0.2, 1.2]], dtype=F64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.4]], [[0.1, 0.0], [0.0, 0.2]]], dtype=F64),
)
DIFFUSIONS = [VariancePreserving(), VarianceExploding(0.01, 5.0), Discrete(LinearBetas()), Cosine()]
SOLVER = Dopri5(1e-9, 1e-9)
NEAR = 0.999
"""Where a discrete schedule ends its last but one step: beyond it sigma falls like a root, which takes many steps."""


def flow(schedule: Schedule) -> Flow:
    """The exact flow, by the noise that a diffusion model of this schedule would predict."""
    path = Affine(schedule)
    score = MIX.score(path)

    def noise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return path.convert(score(x, t), x, t, given="score", want="noise")

    return Flow(as_velocity(noise, path, "noise"))


@pytest.mark.parametrize("schedule", DIFFUSIONS, ids=repr)
def test_from_matched_noise_a_diffusion_and_a_flow_end_in_the_same_samples(schedule: Schedule) -> None:
    start, end = (torch.tensor(time, dtype=F64) for time in (0.02, NEAR))
    x0 = states_at(schedule, start)
    # The same signal-to-noise ratio on straight lines, and the same state up to scale.
    straight = Linear()
    first, last = (straight.time_of(*schedule(time)) for time in (start, end))
    scale = float(straight(first)[1] / schedule(start)[1])
    one = integrate(SOLVER, flow(schedule), x0, torch.stack([start, end])).x
    other = integrate(SOLVER, Flow(MIX.velocity(Affine(straight))), scale * x0, torch.stack([first, last])).x
    ratio = float(straight(last)[0] / schedule(end)[0])
    torch.testing.assert_close(ratio * one, other, rtol=1e-5, atol=1e-5)


def states_at(schedule: Schedule, t: torch.Tensor) -> torch.Tensor:
    """States at a time, drawn by the path itself."""
    alpha, sigma = schedule(t)
    return alpha * MIX.sample(64, 1) + sigma * Rng(2).normal(64, 2, dtype=F64)


@pytest.mark.parametrize("schedule", DIFFUSIONS, ids=repr)
def test_their_likelihoods_are_the_mixtures_own(schedule: Schedule) -> None:
    """The change of log-density along either flow is the difference of the exact densities at its ends."""
    x1 = MIX.sample(32, 3)
    found = []
    for each in (schedule, Linear()):
        start = each.time_of(*(torch.tensor(v, dtype=F64) for v in (0.02, 1.0)))
        end = each.time_of(*(torch.tensor(v, dtype=F64) for v in (1.0, 0.02)))
        (a, s), (alpha, sigma) = each(start), each(end)
        state = alpha * x1 + sigma * Rng(5).normal(32, 2, dtype=F64)
        grid = torch.stack([end, start])
        told = likelihood(flow(each), state, solver=SOLVER, grid=grid)
        normal = -0.5 * told.x.square().sum(1) - torch.log(torch.tensor(2 * torch.pi, dtype=F64))
        change = told.log_prob - normal
        exact = marginal(alpha, sigma).log_prob(state) - marginal(a, s).log_prob(told.x)
        torch.testing.assert_close(change, exact, rtol=1e-5, atol=1e-5)
        # In units of the data both are one law of data with a fiftieth of noise.
        found.append(marginal(a, s).log_prob(told.x) + change + 2 * alpha.log())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def marginal(alpha: torch.Tensor, sigma: torch.Tensor) -> GaussianMixture:
    """The law of ``alpha*x1 + sigma*x0``."""
    return GaussianMixture(
        MIX.weights, alpha * MIX.means, alpha**2 * MIX.covariances + sigma**2 * torch.eye(2, dtype=F64)
    )


def test_ddim_takes_the_same_steps_on_every_schedule() -> None:
    """Holding the data prediction is exact on any curve through the same ratios (Song, Meng and Ermon 2021)."""
    ratios = torch.tensor([5.0, 2.0, 0.8, 0.3, 0.05], dtype=F64)
    ends = []
    for schedule in (Linear(), Cosine(), VariancePreserving()):
        grid = schedule.time_of(torch.ones_like(ratios), ratios)
        path = Affine(schedule)
        dynamics = Ancestral(Flow(MIX.velocity(path)), path, 0.0)
        alpha, sigma = schedule(grid)
        x = sigma[0] * Rng(2).normal(8, 2, dtype=F64)
        for t, s in itertools.pairwise(grid):
            x = dynamics.move(x, dynamics.rate(x, t), t, s)
        ends.append(x / alpha[-1])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-9, atol=1e-9)
