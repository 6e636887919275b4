"""TorchCFM: points and conditional velocities of the straight and the circular path, and the exact assignment."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from rheos import couplings, paths, schedules
from rheos.core import Rng

PAIRS = [
    ("ConditionalFlowMatcher", schedules.Linear()),
    ("VariancePreservingConditionalFlowMatcher", schedules.Cosine()),
]
SHAPES = [(1, 1), (5, 2), (3, 3), (8, 3, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("theirs", "schedule"), PAIRS)
@pytest.mark.global_random
def test_point_and_velocity(
    torchcfm: ModuleType, rng: Rng, theirs: str, schedule: schedules.Schedule, shape: tuple[int, ...]
) -> None:
    x0, x1 = (rng.fold(k).normal(*shape, dtype=torch.float64) for k in (0, 1))
    t = torch.linspace(0, 1, shape[0], dtype=torch.float64)
    _, point, velocity = getattr(torchcfm, theirs)(sigma=0.0).sample_location_and_conditional_flow(x0, x1, t=t)
    ours = paths.Affine(schedule).sample(x0, x1, t)
    torch.testing.assert_close(ours.x, point, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.target, velocity, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [2, 17, 64])
def test_assignment_costs_what_the_exact_plan_costs(torchcfm: ModuleType, pot: ModuleType, rng: Rng, n: int) -> None:
    x0, x1 = (rng.fold(k).normal(n, 3, dtype=torch.float64) for k in (0, 1))
    plan = torchcfm.OTPlanSampler(method="exact").get_map(x0, x1)
    exact = float((torch.as_tensor(plan) * torch.cdist(x0, x1).square()).sum())
    pairs = couplings.BatchOT()(x0, x1)
    assert float((pairs.x0 - pairs.x1).square().sum(1).mean()) == pytest.approx(exact, abs=1e-12)
    # The optimum is unique here, so the plan is the same permutation and not only as cheap.
    assert (torch.as_tensor(plan)[pairs.i, pairs.j] > 0).all()
