"""A learned schedule keeps every law whatever its parameters, and can become any other one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng
from rheos.schedules import Cosine, Linear
from rheos.schedules.learned import Learned, bernstein


def trained(seed: int, degree: int = 8, scale: float = 3.0) -> Learned:
    """A schedule with parameters far from those it begins with."""
    schedule = Learned(degree)
    schedule.increments.logits.data = scale * Rng(seed).normal(2, degree)
    return schedule


def test_bernstein_polynomials() -> None:
    t = torch.tensor([[0.0, 0.25], [0.5, 1.0]], dtype=torch.float64)
    found = bernstein(2, t)
    torch.testing.assert_close(found, torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], -1), rtol=0, atol=1e-15)
    torch.testing.assert_close(bernstein(9, t).sum(-1), torch.ones_like(t), rtol=0, atol=1e-14)
    assert torch.equal(bernstein(0, t), torch.ones(2, 2, 1, dtype=torch.float64))


@pytest.mark.parametrize("schedule", [Learned(), Learned(1), trained(0), trained(1, 3), trained(2, 16)])
def test_the_laws_hold_whatever_the_parameters(schedule: Learned) -> None:
    testing.check_schedule(schedule)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 3.0, 30.0])
def test_the_ends_are_exact_whatever_the_parameters(scale: float, dtype: torch.dtype) -> None:
    for seed in range(5):
        schedule = trained(seed, scale=scale)
        alpha, sigma = schedule(torch.tensor([0.0, 1.0], dtype=dtype))
        assert alpha.tolist() == [0.0, 1.0]
        assert sigma.tolist() == [1.0, 0.0]
        assert schedule.bounded


def test_no_digit_is_lost_next_to_the_ends() -> None:
    schedule = trained(4)
    near = torch.tensor([1e-6], dtype=torch.float32)
    rise, fall = schedule.increments(near.double()).detach()
    assert float(schedule(near)[0].detach()) == pytest.approx(8 * float(rise[0]) * 1e-6, rel=1e-4)
    far = torch.tensor([1 - 2.0**-20], dtype=torch.float32)
    assert float(schedule(far)[1].detach()) == pytest.approx(8 * float(fall[-1]) * 2.0**-20, rel=1e-4)


def test_it_begins_as_the_straight_line() -> None:
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    for got, want in zip(Learned(5)(t), Linear()(t), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


def test_it_can_become_the_quarter_circle() -> None:
    schedule, t = Learned(), torch.linspace(0, 1, 101)
    optimizer = torch.optim.Adam(schedule.increments.parameters(), 0.2)

    def gap() -> Tensor:
        return torch.stack([got - want for got, want in zip(schedule(t), Cosine()(t), strict=True)])

    for _ in range(200):
        optimizer.zero_grad()
        gap().square().mean().backward()
        optimizer.step()
    assert float(gap().detach().abs().max()) < 0.01


@pytest.mark.parametrize("part", [0, 1])
def test_the_gradient_reaches_point_and_derivative(part: int) -> None:
    schedule, t = trained(3), torch.tensor([0.3, 0.8], dtype=torch.float64)
    logits = schedule.increments.logits
    schedule.increments.double()

    def total() -> Tensor:
        return (schedule(t)[part] * schedule.derivative(t)[part]).sum()

    (gradient,) = torch.autograd.grad(total(), logits)
    step = 1e-6
    for k in range(8):
        with torch.no_grad():
            logits[part, k] += step
            above = float(total().detach())
            logits[part, k] -= 2 * step
            below = float(total().detach())
            logits[part, k] += step
        assert float(gradient[part, k]) == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)
    assert not gradient[1 - part].any()


def test_bfloat16_does_not_round_it() -> None:
    t = torch.linspace(0, 1, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = trained(1)(t)
    for got, want in zip(found, trained(1)(t), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_it_is_a_value_with_a_part_that_learns() -> None:
    assert Learned(8) == trained(1)
    assert Learned(8).increments is not Learned(8).increments
    for degree in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="degree"):
            Learned(degree)  # pyright: ignore[reportArgumentType]
