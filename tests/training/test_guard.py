from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rheos.training.guard import Guard, seed_gradient

CPU = torch.device("cpu")


def judge(guard: Guard, norm: float) -> bool:
    """Whether the step may move, by the path that the guard takes on its device."""
    value = torch.tensor(norm)
    return not bool(guard.verdict(value)) if guard.deferred else guard.admits(value)


@pytest.fixture(params=[False, True], ids=["host", "deferred"])
def guard(request: pytest.FixtureRequest) -> Guard:
    guard = Guard(CPU)
    guard.deferred = request.param
    guard.reset()
    return guard


def test_bad_steps_are_skipped_and_counted(guard: Guard) -> None:
    norms = [1.0, math.nan, math.inf, 2.0, -math.inf, 0.0]
    assert [judge(guard, norm) for norm in norms] == [True, False, False, True, False, True]
    assert guard.row == 0
    assert not guard.tripped


def test_three_in_a_row_latch_until_reset(guard: Guard) -> None:
    for _ in range(3):
        assert not guard.tripped
        judge(guard, math.nan)
    assert guard.tripped
    assert not judge(guard, 1.0)
    assert guard.tripped
    guard.reset()
    assert judge(guard, 1.0)


def test_a_row_goes_on_after_a_resume(guard: Guard) -> None:
    guard.resume(2)
    judge(guard, math.nan)
    assert guard.tripped


def test_a_loss_that_is_not_finite_is_a_bad_step_though_its_gradient_is_fine() -> None:
    guard = Guard(CPU)
    assert not guard.admits(torch.tensor(1.0), [torch.tensor(0.5), torch.tensor(math.inf)])
    assert guard.admits(torch.tensor(1.0), [torch.tensor(0.5), torch.tensor(0.5)])


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_poisons_every_gradient(loss: float) -> None:
    weight = torch.ones(3, requires_grad=True)
    # A gradient that is finite beside a loss that is not.
    total: Tensor = weight.sum() + loss
    total.backward(seed_gradient(total, 0.5))
    assert weight.grad is not None
    assert weight.grad.isnan().all()


def test_a_finite_loss_starts_from_its_share() -> None:
    weight = torch.ones(3, requires_grad=True)
    weight.sum().backward(seed_gradient(weight.sum(), 0.25))
    assert weight.grad is not None
    assert weight.grad.tolist() == [0.25] * 3
