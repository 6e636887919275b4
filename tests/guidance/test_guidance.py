"""Guidance: closed forms, the identities of its scales, what it costs, and composition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, integrate, over
from rheos.dynamics import Flow
from rheos.guidance import Autoguidance, ClassifierFree, Interval, ZeroStar
from rheos.guidance.classifier_free import Contrasted, projection
from rheos.paths import Affine, as_velocity
from rheos.solvers import Euler

X = Rng(1).normal(4, 2, dtype=torch.float64)
LABEL = torch.tensor([0, 1, 2, -1])
T = torch.tensor(0.5, dtype=torch.float64)


def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """x times 1 + label, so that no label gives 0 and label 1 twice x; plus the time."""
    label = torch.full((len(x),), -1) if cond is None else cond
    return x * (1 + label.to(x.dtype))[:, None] + (t[:, None] if t.dim() else t)


def weak(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return 0.5 * network(x, t, cond)


ALL = [
    ClassifierFree(3.0),
    ClassifierFree(1.0),
    ZeroStar(2.0),
    ZeroStar(2.0, still_until=0.5),
    Autoguidance(weak, 2.0),
    Autoguidance(weak, 1.0),
    Interval(ClassifierFree(2.0), 0.2, 0.8),
    Interval(Interval(ZeroStar(1.5), 0.4, 0.6), 0.2, 0.8),
]


@pytest.mark.parametrize("guidance", ALL)
def test_guidance_keeps_the_laws(guidance: Any) -> None:
    testing.check_guidance(guidance)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.3, 0.7, 1.0, 3.0])
def test_classifier_free_guidance_in_closed_form(scale: float) -> None:
    guided = ClassifierFree(scale)(network)(X, T, LABEL)
    unconditional, conditional = torch.full_like(X, 0.5), X * (1 + LABEL)[:, None] + 0.5
    torch.testing.assert_close(guided, unconditional + scale * (conditional - unconditional))


def test_scale_one_is_the_model_itself() -> None:
    assert ClassifierFree(1.0)(network) is network
    assert Autoguidance(weak, 1.0)(network) is network
    assert torch.equal(ClassifierFree(0.0)(network)(X, T, LABEL), network(X, T, torch.full_like(LABEL, -1)))


def test_a_vector_condition_is_contrasted_with_nan() -> None:
    seen = []

    def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        seen.append(cond)
        return x

    ClassifierFree(2.0)(model)(X, T, torch.ones(4, 3))
    assert [bool(c.isnan().all()) for c in seen] == [False, True]


def test_a_contrast_needs_a_condition() -> None:
    for guidance in (ClassifierFree(2.0), ZeroStar(2.0)):
        with pytest.raises(InputError, match="contrasts a condition with its absence: give a condition"):
            guidance(network)(X, T)


def test_the_projection_is_orthogonal() -> None:
    onto, value = Rng(2).normal(4, 3, 2, dtype=torch.float64), Rng(3).normal(4, 3, 2, dtype=torch.float64)
    scaled = value * projection(onto, value)
    assert projection(onto, value).shape == (4, 1, 1)
    torch.testing.assert_close(((onto - scaled) * value).flatten(1).sum(1), torch.zeros(4, dtype=torch.float64))
    assert projection(onto, torch.zeros_like(value)).flatten().tolist() == [1.0] * 4
    mixed = projection(onto, value * torch.tensor([0.0, 1.0, 1.0, 1.0])[:, None, None].double())
    torch.testing.assert_close(mixed[1:], projection(onto, value)[1:])


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_zero_star_scales_the_unconditional_velocity_before_it_contrasts(scale: float) -> None:
    conditional, unconditional = network(X, T, LABEL), network(X, T, torch.full_like(LABEL, -1))
    ratio = (conditional * unconditional).sum(1) / unconditional.square().sum(1)
    base = ratio[:, None] * unconditional
    torch.testing.assert_close(ZeroStar(scale)(network)(X, T, LABEL), base + scale * (conditional - base))


def test_zero_star_stands_still_at_first() -> None:
    assert ZeroStar(2.0).still_until == 0.04
    early = torch.tensor([0.0, 0.039, 0.04, 0.5], dtype=torch.float64)
    guided, moving = ZeroStar(2.0)(network)(X, early, LABEL), ZeroStar(2.0, 0.0)(network)(X, early, LABEL)
    assert torch.equal(guided[:2], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(guided[2:], moving[2:])
    assert bool((moving[:2] != 0).any())
    assert torch.equal(ZeroStar(2.0)(network)(X, early[1], LABEL), torch.zeros_like(X))
    assert torch.equal(ZeroStar(2.0)(network)(X, early[2], LABEL), ZeroStar(2.0, 0.0)(network)(X, early[2], LABEL))


def test_classifier_free_guidance_moves_from_the_start_and_does_not_project() -> None:
    zero = torch.tensor(0.0, dtype=torch.float64)
    assert torch.equal(ClassifierFree(2.0)(network)(X, zero, LABEL), 2 * network(X, zero, LABEL))
    contrast = ClassifierFree(2.0)(network)
    assert isinstance(contrast, Contrasted)
    assert (contrast.project, contrast.still_until) == (False, 0.0)


@pytest.mark.parametrize("scale", [0.0, 0.4, 2.0])
def test_autoguidance_in_closed_form_with_and_without_a_condition(scale: float) -> None:
    for cond in ((), (LABEL,)):
        strong = network(X, T, *cond)
        guided = Autoguidance(weak, scale)(network)(X, T, *cond)
        torch.testing.assert_close(guided, 0.5 * strong + scale * 0.5 * strong)


@pytest.mark.parametrize(("time", "inside"), [(0.1, False), (0.25, True), (0.5, True), (0.75, True), (0.8, False)])
def test_an_interval_guides_inside_its_closed_ends_only(time: float, inside: bool) -> None:
    guidance = Interval(ClassifierFree(2.0), 0.25, 0.75)
    t = torch.tensor(time, dtype=torch.float64)
    want = (ClassifierFree(2.0)(network) if inside else network)(X, t, LABEL)
    assert torch.equal(guidance(network)(X, t, LABEL), want)
    calls = []

    def counted(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        calls.append(0)
        return network(x, t, cond)

    guidance(counted)(X, t, LABEL)
    assert len(calls) == (2 if inside else 1)


def test_an_interval_takes_each_samples_own_clock() -> None:
    t = torch.tensor([0.1, 0.25, 0.75, 0.9], dtype=torch.float64)
    guided = Interval(ClassifierFree(2.0), 0.25, 0.75)(network)(X, t, LABEL)
    plain, strong = network(X, t, LABEL), ClassifierFree(2.0)(network)(X, t, LABEL)
    assert torch.equal(guided[[0, 3]], plain[[0, 3]])
    assert torch.equal(guided[[1, 2]], strong[[1, 2]])
    assert not torch.equal(plain[1:3], strong[1:3])


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.6, 0.5)])
def test_an_interval_has_a_length(low: float, high: float) -> None:
    with pytest.raises(InputError, match=rf"needs low < high, got \[{low}, {high}\]"):
        Interval(ClassifierFree(2.0), low, high)


@pytest.mark.parametrize(
    ("guidance", "passes"),
    [
        (ClassifierFree(1.0), 4),
        (ClassifierFree(3.0), 8),
        (ZeroStar(1.0), 8),
        (Autoguidance(weak, 2.0), 8),
        (Interval(ClassifierFree(3.0), 0.2, 0.6), 6),
        (Interval(Autoguidance(weak, 3.0), 0.0, 1.0), 8),
    ],
)
def test_an_integration_counts_evaluations_and_passes(guidance: Any, passes: int) -> None:
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    solution = integrate(Euler(), Flow(guidance(network)), X, grid, LABEL)
    assert (solution.evaluations, solution.passes) == (4, passes)


def test_guidance_composes() -> None:
    """Autoguidance of a guided model by a guided weak one is guidance of the difference."""
    both = Autoguidance(ClassifierFree(3.0)(weak), 2.0)(ClassifierFree(3.0)(network))
    torch.testing.assert_close(both(X, T, LABEL), 1.5 * ClassifierFree(3.0)(network)(X, T, LABEL))
    outer = Interval(Autoguidance(weak, 2.0), 0.2, 0.8)(ClassifierFree(3.0)(network))
    strong = ClassifierFree(3.0)(network)(X, T, LABEL)
    torch.testing.assert_close(outer(X, T, LABEL), 2 * strong - weak(X, T, LABEL))


def test_guidance_of_a_prediction_is_guidance_of_its_velocity() -> None:
    """Conversions are affine with the same state, so contrasts pass through them."""
    path = Affine()
    before = as_velocity(ClassifierFree(3.0)(network), path, "data")
    after = ClassifierFree(3.0)(as_velocity(network, path, "data"))
    torch.testing.assert_close(before(X, T, LABEL), after(X, T, LABEL))


@pytest.mark.parametrize("guidance", ALL)
def test_over_reaches_every_network(guidance: Any) -> None:
    reached = []

    def wrap(model: Any) -> Any:
        reached.append(model)
        return lambda *args: 2 * model(*args)

    guided = guidance(as_velocity(network, Affine(), "data"))
    wrapped = over(guided, wrap)
    assert network in reached
    assert set(reached) <= {network, weak}
    if isinstance(guidance, Autoguidance) and guidance.scale != 1.0:
        assert weak in reached
    assert type(wrapped) is type(guided)
    assert wrapped(X, T, LABEL).shape == X.shape


def test_over_keeps_the_settings() -> None:
    def same(model: Any) -> Any:
        return lambda *args: model(*args)

    for guidance in ALL:
        for time in (0.01, 0.3, 0.5, 0.9):
            t = torch.tensor(time, dtype=torch.float64)
            guided = guidance(network)
            assert torch.equal(over(guided, same)(X, t, LABEL), guided(X, t, LABEL))
