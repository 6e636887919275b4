from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rheos.core import CheckpointError
from rheos.nn import seeded
from rheos.training import Optimizer, Training, learning_rate


def make() -> nn.Sequential:
    with seeded(0):
        return nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2))


def fill(module: nn.Module, scale: float) -> None:
    for number, parameter in enumerate(module.parameters()):
        parameter.grad = scale * torch.linspace(-1, 2, parameter.numel()).reshape(parameter.shape).sin() / (1 + number)


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    settings = Training(steps=110, warmup=10 / 110, learning_rate=1.0)
    rates = [learning_rate(settings, step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    # A third of the way down a half cosine stands at three quarters.
    assert learning_rate(Training(steps=300, warmup=0.0, learning_rate=1.0), 100) == pytest.approx(0.75)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


def test_a_constant_rate_stays() -> None:
    settings = Training(steps=100, warmup=0.0, decay="constant", learning_rate=0.3)
    assert {learning_rate(settings, step) for step in range(100)} == {0.3}


@pytest.mark.parametrize("scale", [1e-3, 50.0])
@pytest.mark.parametrize("clip", [1.0, math.inf])
def test_steps_equal_pytorchs_with_a_clip_of_its_own(
    scale: float, clip: float, weights: Callable[[nn.Module], Tensor]
) -> None:
    settings = Training(steps=4, warmup=0.0, decay="constant", learning_rate=0.01, clip=clip, weight_decay=0.1)
    ours, theirs = make(), make()
    optimizer = Optimizer(ours, settings)
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=settings.betas, foreach=False)
    for step in range(4):
        fill(ours, scale * (step + 1))
        fill(theirs, scale * (step + 1))
        norm = optimizer.norm()
        assert optimizer.step(step, 1.0, norm) == 0.01
        torch.testing.assert_close(torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip), norm)
        adam.step()
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-6)
    optimizer.forget()
    assert all(p.grad is None for p in ours.parameters())


def test_a_skipped_step_moves_nothing(weights: Callable[[nn.Module], Tensor]) -> None:
    module = make()
    optimizer = Optimizer(module, Training(steps=5))
    fill(module, 1.0)
    optimizer.step(0, 1.0, optimizer.norm())
    before, state = weights(module), {k: v.clone() for k, v in optimizer.tensors().items()}
    fill(module, math.nan)
    optimizer.step(1, 1.0, optimizer.norm(), skip=torch.ones(()))
    assert torch.equal(weights(module), before)
    assert all(torch.equal(value, state[name]) for name, value in optimizer.tensors().items())


def test_the_state_goes_to_another_optimizer_and_back(weights: Callable[[nn.Module], Tensor]) -> None:
    first, second = make(), make()
    one = Optimizer(first, Training(steps=9))
    fill(first, 1.0)
    one.step(0, 1.0, one.norm())
    second.load_state_dict(first.state_dict())
    two = Optimizer(second, Training(steps=9))
    two.load(one.tensors())
    for module, optimizer in ((first, one), (second, two)):
        fill(module, 2.0)
        optimizer.step(1, 1.0, optimizer.norm())
    assert torch.equal(weights(first), weights(second))
    two.load({})
    assert two.tensors() == {}


def test_a_foreign_state_is_refused() -> None:
    optimizer = Optimizer(make(), Training(steps=9))
    with pytest.raises(CheckpointError, match=r"'exp_avg/7\.weight'"):
        optimizer.load({"exp_avg/7.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"of shape \(5,\)"):
        optimizer.load({"exp_avg/0.weight": torch.zeros(5)})
