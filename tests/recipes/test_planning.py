"""Plans of a recipe: what they are fitted to, for which guidance, and the recipe that uses them."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from rheos import nn
from rheos.core import InputError
from rheos.dynamics import Flow
from rheos.guidance import ClassifierFree, ZeroStar
from rheos.recipes import Sampler, decode, encode, images, planning, toy
from rheos.recipes.planning import affordable, compiled, guidance_scale, planned
from rheos.solvers.plans import field, fingerprint


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged on few draws, and followed at few points, for speed."""
    for place in (planning, importlib.import_module("rheos.solvers.plans.calibrate")):
        monkeypatch.setattr(place, "JUDGED", 12)
    monkeypatch.setattr(field, "KEPT", 16)


def test_a_fit_may_take_half_a_minute_of_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(0.05 * n for n in range(100))
    monkeypatch.setattr(planning.time, "perf_counter", lambda: next(clock))
    seen: list[int] = []

    def velocity(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x * label[:, None]

    flow, noise, labels = Flow(velocity), torch.zeros(300, 2), torch.arange(300) % 3
    # 256 states in .05 s are 153,600 in half a minute.
    assert affordable(flow, noise, labels) == 2**17
    assert set(seen) == {256}
    slow = iter(100.0 * n for n in range(100))
    monkeypatch.setattr(planning.time, "perf_counter", lambda: next(slow))
    assert affordable(flow, noise, labels) == 2**14
    monkeypatch.setattr(planning.time, "perf_counter", lambda: 1e-6 * next(slow))
    assert affordable(flow, noise, labels) == 400_000


def test_a_network_of_classes_under_guidance() -> None:
    recipe = images(network=nn.MLP, width=16)
    network = recipe.network(3)
    # A new network gives zeros; this one gives something of each class.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    plan = compiled(recipe, network, (3,), guidance=(3.0, 1.0), draws=8, effort=0)
    assert (plan.guidance, plan.model) == ((1.0, 3.0), fingerprint(network))
    assert plan == compiled(recipe, network, (3,), guidance=(1.0, 3.0), draws=8, effort=0)
    assert plan != compiled(recipe, network, (3,), guidance=(1.0, 3.0), draws=8, effort=0, seed=1)
    guided = replace(recipe, guidance=ClassifierFree(2.0))
    by_plan, entry = planned(guided, plan, 10)
    assert (by_plan.evaluations, entry.evaluations) == (3, 3)
    assert decode(encode(by_plan)) == by_plan
    drawn = Sampler(by_plan, network).draw(4)
    assert (drawn.evaluations, drawn.passes) == (3, 6)
    finer = Sampler(replace(guided, evaluations=64), network).draw(4).states
    far = Sampler(replace(guided, evaluations=3), network).draw(4).states
    assert float((drawn.states - finer).norm()) < float((far - finer).norm())


def test_guidance_of_another_kind_is_not_planned() -> None:
    recipe = images(width=8)
    assert guidance_scale(recipe) == 1.0
    assert guidance_scale(replace(recipe, guidance=ClassifierFree(4.0))) == 4.0
    odd = replace(recipe, guidance=ZeroStar(4.0))
    assert guidance_scale(odd) is None
    with pytest.raises(InputError, match="this run has another; sample it without a plan"):
        compiled(odd, recipe.network(0), (3,), draws=8, effort=0)


def test_nothing_to_guide_is_refused() -> None:
    with pytest.raises(InputError, match="this run has no classes"):
        compiled(toy(width=8), toy(width=8).network(0), (3,), guidance=(4.0,), draws=8, effort=0)
