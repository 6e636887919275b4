"""The density of a flow map, by the determinant of its way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.normal_map import NormalMap, bent
from torch import Tensor

from rheos.core import Rng
from rheos.core.time import factor
from rheos.dynamics import FlowMap, MapLikelihood, map_likelihood
from rheos.solvers import Euler
from rheos.solvers.grids import Uniform

F64 = torch.float64
EXACT = NormalMap()
X = EXACT.mean + EXACT.std * Rng(1).normal(6, 2, 3, dtype=F64)


def asked(model: Any, x: Tensor = X, steps: int = 1, **options: Any) -> MapLikelihood:
    grid = Uniform()(steps).to(F64).flip(0)
    return map_likelihood(FlowMap(model), x, solver=Euler(), grid=grid, **options)


def normal(x: Tensor) -> Tensor:
    return torch.distributions.Normal(EXACT.mean, EXACT.std).log_prob(x).flatten(1).sum(1)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_density_of_a_known_map(steps: int) -> None:
    # Of more entries than one batched backward pass covers.
    wide = EXACT.mean + EXACT.std * Rng(1).normal(6, 2, 35, dtype=F64)
    found = asked(EXACT, wide, steps)
    torch.testing.assert_close(found.log_prob, normal(wide))
    assert float(found.cycle.max()) < 1e-12
    assert not bool(found.folded.any())
    assert found.evaluations == steps
    torch.testing.assert_close(found.x, (wide - EXACT.mean) / EXACT.std)
    assert not found.log_prob.requires_grad


def test_noise_of_another_size() -> None:
    """Noise of standard deviation 2 that is carried to data by the same stretch has data twice as wide."""
    wide = asked(EXACT, scale=2.0).log_prob
    z = (X - EXACT.mean) / EXACT.std
    want = torch.distributions.Normal(0.0, 2.0).log_prob(z) - torch.tensor(EXACT.std).log()
    torch.testing.assert_close(wide, want.flatten(1).sum(1))


def test_entries_that_depend_on_one_another() -> None:
    """A rotation and a stretch: the determinant of a full matrix."""
    matrix = torch.tensor([[1.3, -0.4], [0.9, 0.8]], dtype=F64)

    def model(x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
        end = t if s is None else s
        forward = x @ matrix.T - x
        back = x @ torch.linalg.inv(matrix).T - x
        return forward if end > t else -back

    x = Rng(2).normal(5, 2, dtype=F64)
    law = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=F64), matrix @ matrix.T)
    found = asked(model, x)
    torch.testing.assert_close(found.log_prob, law.log_prob(x))
    assert float(found.cycle.max()) < 1e-12


def test_a_map_that_does_not_lead_back_says_so() -> None:
    wrong = asked(bent(torch.tensor(0.2, dtype=F64), EXACT))
    there = EXACT.carried(wrong.x, *torch.tensor([0.0, 1.0], dtype=F64))
    there = there + 0.2 * 1.5 * torch.tanh(wrong.x)
    torch.testing.assert_close(wrong.cycle, (there - X).flatten(1).square().mean(1).sqrt())
    assert float(wrong.cycle.min()) > 1e-3


def test_a_fold_is_named() -> None:
    def mirrored(x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
        flip = torch.tensor([-1.0, 1.0, 1.0], dtype=x.dtype)
        end = t if s is None else s
        return factor(end - t, x) * (x * flip - x)

    assert asked(mirrored, X[:, 0]).folded.tolist() == [True] * 6


def test_a_condition_is_told() -> None:
    def model(x: Tensor, t: Tensor, cond: Tensor, s: Tensor | None = None) -> Tensor:
        return factor(cond.to(x.dtype), x) * EXACT(x, t, None, s)

    flags = torch.tensor([1, 0, 1, 0, 1, 0])
    found = asked(model, cond=flags)
    torch.testing.assert_close(found.log_prob[::2], normal(X)[::2])
    still = torch.distributions.Normal(0.0, 1.0).log_prob(X).flatten(1).sum(1)
    torch.testing.assert_close(found.log_prob[1::2], still[1::2])
