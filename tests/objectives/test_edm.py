"""EDM as matching: the preconditioned network in the paper's own symbols, on any path, and the loss on its output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, integrate
from rheos.objectives import EDMWeight, Matching
from rheos.objectives.times import LogitNormal
from rheos.paths import Affine, Preconditioned, Rescheduled
from rheos.recipes.serial import decode, encode
from rheos.schedules import EDM, Cosine, Linear, Schedule, VariancePreserving
from rheos.solvers import Dopri5

S = 0.5
T = torch.tensor([0.15, 0.4, 0.6, 0.85], dtype=torch.float64)
X0, X1 = Rng(1).normal(4, 3, dtype=torch.float64), S * Rng(2).normal(4, 3, dtype=torch.float64)


def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return torch.tanh(x + t[:, None]) + 0.1 * x.flip(1)


def test_it_is_the_papers_preconditioning() -> None:
    """Karras et al., table 1, with x = x1 + level*x0."""
    path = Affine(EDM(80.0))
    level = path.schedule(T)[1][:, None]
    x = X1 + level * X0
    skip, out = S**2 / (level**2 + S**2), level * S / (level**2 + S**2).sqrt()
    want = skip * x + out * network(x / (level**2 + S**2).sqrt(), 1 / (1 + level[:, 0]))
    torch.testing.assert_close(Preconditioned(network, path, S)(x, T), want)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VariancePreserving(), EDM()], ids=repr)
def test_input_and_target_have_unit_variance_at_every_level(schedule: Schedule) -> None:
    path, count = Affine(schedule), 20_000
    seen: list[Tensor] = []

    def spy(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    for time in (0.05, 0.5, 0.9):
        t = torch.full((count,), time, dtype=torch.float64)
        x1 = S * Rng(3).normal(count, 1, dtype=torch.float64)
        objective = Matching(path, predict="data", weight=EDMWeight(S), data_std=S)
        rows = objective(spy, x1, x0=Rng(4).normal(count, 1, dtype=torch.float64), t=t).rows
        # With a network of zeros the loss on its output is the target's square.
        assert float(seen[-1].var()) == pytest.approx(1, abs=0.05)
        assert float(rows.mean()) == pytest.approx(1, abs=0.05)


def test_the_loss_is_on_the_networks_own_output() -> None:
    path = Affine()
    objective = Matching(path, predict="data", weight=EDMWeight(S), data_std=S)
    alpha, sigma = (part[:, None] for part in path.schedule(T))
    norm = (alpha**2 * S**2 + sigma**2).sqrt()
    x = alpha * X1 + sigma * X0
    target = (X1 - alpha * S**2 / norm**2 * x) / (sigma * S / norm)
    plain = (network(x / norm, T) - target).square().mean(1)
    torch.testing.assert_close(objective(network, X1, x0=X0, t=T).rows, plain)
    for predict in ("noise", "velocity"):
        given = Matching(path, predict=predict, weight=EDMWeight(S))
        data = path.convert(network(x, T), x, T, given=predict, want="data")
        want = (norm / (sigma * S)).square()[:, 0] * (data - X1).square().mean(1)
        torch.testing.assert_close(given(network, X1, x0=X0, t=T).rows, want)


def test_a_network_that_was_trained_on_one_path_samples_on_another() -> None:
    """The same denoiser, read on two curves, is one flow in the words of two schedules."""
    flows = [Matching(Affine(s), predict="data", data_std=S).dynamics(network) for s in (Linear(), Cosine())]
    again = Rescheduled(flows[0].velocity, Linear(), Cosine())
    t = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    torch.testing.assert_close(flows[1].rate(X0, t), again(X0, t), rtol=1e-9, atol=1e-9)
    grid = torch.tensor([0.0, 0.999], dtype=torch.float64)

    def ends(flow: Any) -> Tensor:
        return integrate(Dopri5(1e-9, 1e-9), flow.over(lambda m: lambda x, t: m(x, t.expand(len(x)))), X0, grid).x

    torch.testing.assert_close(ends(flows[0]), ends(flows[1]), rtol=1e-2, atol=1e-2)


def test_it_keeps_the_laws_and_is_kept_with_a_run() -> None:
    objective = Matching(
        Affine(), predict="data", times=LogitNormal(mean=-1.2, std=1.2), weight=EDMWeight(S), data_std=S
    )
    testing.check_objective(objective)
    assert decode(encode(objective)) == objective
    wrapped = objective.dynamics(network).over(lambda model: model)
    torch.testing.assert_close(wrapped.rate(X0, T), objective.dynamics(network).rate(X0, T))
    bare = Preconditioned(network, Affine(), S).over(lambda model: lambda x, t: 0 * x)
    alpha, sigma = (part[:, None] for part in Linear()(T))
    torch.testing.assert_close(bare(X0, T), alpha * S**2 / (alpha**2 * S**2 + sigma**2) * X0)


def test_what_cannot_be_preconditioned_is_refused() -> None:
    for options in ({"data_std": 0.5}, {"data_std": 0.0, "predict": "data"}, {"data_std": 0.5, "predict": "noise"}):
        with pytest.raises(InputError, match="a preconditioned network is one that predicts data"):
            Matching(**options)
    with pytest.raises(InputError, match="must be positive, got 0"):
        EDMWeight(0)
