"""Counting what training and sampling cost, and what errors of the network do to samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rheos.compare import contender
from rheos.compare.cost import EVALUATIONS, SAMPLES, _Held, sampling_cost, training_cost
from rheos.compare.stress import Perturbed, stressed
from rheos.recipes import Build, Recipe, toy

CPU = torch.device("cpu")


class Line(nn.Module):
    """One matrix, which is all that it costs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return x @ self.weight


class Double(nn.Module):
    """Twice the state."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 2 * x


def recipe(name: str = "flow") -> Recipe:
    plain = toy(width=8)
    plain = replace(plain, network=Build(Line), training=replace(plain.training, batch=32))
    return contender(name, plain).recipe


def test_a_step_is_one_pass_and_its_products_are_counted() -> None:
    given = recipe()
    splits = given.kind.open(given.data.path)
    found = training_cost(given, splits, CPU)
    # Forward and the gradient of the weight, a product of (32, 2) and (2, 2) each; two operations a multiplication.
    assert (found["passes"], found["operations"]) == (1, 2 * 2 * 32 * 2 * 2)
    assert found == training_cost(given, splits, CPU)
    wide = replace(given, training=replace(given.training, batch=320))
    assert training_cost(wide, splits, CPU)["bytes"] > 5 * found["bytes"]


def test_sampling_is_as_many_passes_as_evaluations() -> None:
    found = sampling_cost(recipe(), Line())
    assert found["operations"] == EVALUATIONS * 2 * SAMPLES * 2 * 2
    # Noise, a state and some rates live at once, not one for each step.
    assert found["bytes"] < 20 * SAMPLES * 2 * 4


def test_what_is_let_go_is_held_no_longer() -> None:
    with _Held([]) as held:
        for _ in range(5):
            x = torch.ones(1000)
            y = x * 2
            del x, y
    assert held.most == 8000
    with _Held([]) as held:
        kept = [torch.ones(1000) for _ in range(5)]
    assert held.most == 20_000
    view = kept[0][:10]
    with _Held([]) as held:
        view.reshape(2, 5)
    assert held.most == 4000


def test_noise_is_of_the_size_asked_for_and_fresh_each_time() -> None:
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(1))
    noisy = Perturbed(Double(), 0.1)
    first, second = noisy(x, torch.tensor(0.5)) - 2 * x, noisy(x, torch.tensor(0.5)) - 2 * x
    scale = 0.1 * float((2 * x).square().mean().sqrt())
    assert float(first.std()) == pytest.approx(scale, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.05
    again = Perturbed(Double(), 0.1)
    assert torch.equal(again(x, torch.tensor(0.5)) - 2 * x, first)


def test_samples_move_in_proportion_to_the_error() -> None:
    found = stressed(recipe(), Line(), 64, 0)
    assert found["same seed, same bits"] is True
    small, large = found["noise of 1%"], found["noise of 5%"]
    assert 0 < small < 0.02
    assert large == pytest.approx(5 * small, rel=0.05)
    assert 0 < found["bfloat16"] < 0.05
    assert found == stressed(recipe(), Line(), 64, 0)


@pytest.mark.parametrize("name", ["ddpm", "edm", "vp"])
def test_every_side_can_be_counted_and_stressed(name: str) -> None:
    given = recipe(name)
    splits = given.kind.open(given.data.path)
    assert training_cost(given, splits, CPU)["passes"] == 1
    assert sampling_cost(given, Line())["operations"] > 0
    assert stressed(given, Line(), 16, 0)["noise of 5%"] > 0
