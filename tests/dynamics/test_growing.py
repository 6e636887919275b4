"""The protocol holds for states that grow: a toy dynamics that flows and inserts, walked by the same loop and Euler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Ragged, Rng, integrate
from rheos.solvers import Euler, Heun

Rate = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Growing:
    """Each element flows for one unit of time after its birth, and bears neighbours at the model's rate.

    Args:
        model: ``model(x, times)`` gives velocities (B, L, 2) and insertion rates (B, L).
    """

    model: Callable[..., Rate]

    def over(self, wrap: Callable[[Any], Any]) -> Growing:
        return replace(self, model=wrap(self.model))

    def rate(self, x: Ragged, t: Tensor, s: Tensor | None = None) -> Rate:
        return self.model(x, x.times(t))

    def move(self, x: Ragged, rate: Rate, t: Tensor, s: Tensor, rng: Rng | None = None) -> Ragged:
        if rng is None:
            raise InputError("a growing state needs randomness.")
        velocity, births = rate
        rng = rng.per_row(len(x.lengths))
        gap = x.times(s) - x.times(t)
        moved = replace(x, values=x.values + gap[..., None] * velocity)
        width = x.values.shape[1]
        # Each number is a function of its place alone, so that padding changes nothing.
        chance = -torch.expm1(-births * (s - t)[:, None] if s.dim() else -births * (s - t))
        after = rng.fold(0).uniform(width, dtype=torch.float64) < chance
        noise = torch.special.ndtri(rng.fold(1).uniform(width, 2, dtype=torch.float64))
        return moved.insert(after, noise.to(x.values.dtype), s)

    def determined(self, t: Tensor) -> Tensor | None:
        return None


def start(lengths: list[int], width: int) -> Ragged:
    values = Rng(3).rows(torch.arange(len(lengths))).uniform(width, 2, dtype=torch.float64)
    return Ragged(values, torch.tensor(lengths), torch.zeros(len(lengths), width, dtype=torch.float64))


def steady(rate: float) -> Growing:
    return Growing(lambda x, t: (torch.full_like(x.values, 3.0), torch.full_like(x.born, rate)))


def test_the_toy_keeps_the_laws_of_a_dynamics() -> None:
    testing.check_dynamics(steady(2.0), start([1, 3, 2], 3), times=(0.25, 0.75))


def test_every_element_flows_for_its_own_unit_of_time() -> None:
    """The clock runs from 0 to 2; whoever is born by 1 has flowed to the end, the others as far as they are old."""
    grid = torch.linspace(0, 2, 33, dtype=torch.float64)
    marked = Growing(lambda x, t: (torch.full_like(x.values, 3.0), torch.full_like(x.born, 0.8)))
    solution = integrate(Euler(), marked, start([1, 2, 1], 2), grid, rng=1, trajectory=True)
    assert solution.evaluations == solution.passes == 32
    x = solution.x
    assert int(x.lengths.max()) > 8
    age = (2 - x.born).clamp(0, 1)
    torch.testing.assert_close(x.times(torch.tensor(2.0, dtype=torch.float64)), age)
    assert solution.trajectory is not None
    for b in range(3):
        for i in range(int(x.lengths[b])):
            birth = float(x.born[b, i])
            step = round(birth * 16)
            assert birth == pytest.approx(step / 16)
            state = solution.trajectory[step]
            origin = x.values[b, i] - 3.0 * age[b, i]
            there = [place for place in range(int(state.lengths[b])) if torch.allclose(state.values[b, place], origin)]
            assert len(there) == 1
            assert float(state.born[b, there[0]]) == birth


def test_the_number_of_elements_grows_as_it_should() -> None:
    """Each element bears another with chance 1 - exp(-h) a step: the mean is (2 - exp(-h))**N, the law of Yule."""
    count, steps, h = 1200, 8, 1 / 8
    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    x = integrate(Euler(), steady(1.0), start([1] * count, 1), grid, rng=4).x
    mean = (2 - math.exp(-h)) ** steps
    error = float(x.lengths.double().std()) / math.sqrt(count)
    assert abs(float(x.lengths.double().mean()) - mean) < 4 * error
    assert error < 0.08


def test_a_sample_does_not_depend_on_its_batch() -> None:
    grid = torch.linspace(0, 2, 17, dtype=torch.float64)
    state = start([1, 4, 2], 4)
    whole = integrate(Euler(), steady(0.7), state, grid, rng=Rng(6)).x
    rows = Rng(6).rows(torch.arange(3))
    for b in range(3):
        alone = Ragged(state.values[b : b + 1], state.lengths[b : b + 1], state.born[b : b + 1])
        x = integrate(Euler(), steady(0.7), alone, grid, rng=Rng(rows.key[b : b + 1])).x
        length = int(x.lengths[0])
        assert length == int(whole.lengths[b])
        torch.testing.assert_close(x.values[0, :length], whole.values[b, :length])
        torch.testing.assert_close(x.born[0, :length], whole.born[b, :length])


def test_a_clock_a_sample_grows_each_by_its_own() -> None:
    dynamics, state = steady(50.0), start([2, 2], 2)
    clock, later = torch.tensor([0.0, 0.5], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    moved = dynamics.move(state, dynamics.rate(state, clock), clock, later, Rng(0))
    assert moved.lengths.tolist() == [2, 4]
    assert moved.born[1, :4].tolist() == [0.0, 1.0, 0.0, 1.0]
    torch.testing.assert_close(moved.values[0, :2], state.values[0])
    torch.testing.assert_close(moved.values[1, [0, 2]], state.values[1] + 1.5)


def test_solvers_of_several_stages_refuse_a_growing_state() -> None:
    with pytest.raises(InputError, match="growing state"):
        integrate(Heun(), steady(1.0), start([1, 2], 2), torch.tensor([0.0, 1.0], dtype=torch.float64), rng=1)
