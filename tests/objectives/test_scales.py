"""Guidance built into flow maps: no loss at the map of the guided flow, for every scale, and which rows are guided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.support.guided_map import MEANS, GuidedMap
from tests.support.normal_map import NormalMap
from torch import Tensor

from rheos.core import InputError, Rng, integrate
from rheos.dynamics import Flow
from rheos.guidance import ClassifierFree, Interval
from rheos.objectives import (
    Compositional,
    Eulerian,
    FlowMapMatching,
    Identity,
    Lagrangian,
    Matching,
    Scales,
    mean_flow,
)
from rheos.objectives.scales import Given
from rheos.paths import Affine
from rheos.schedules import Cosine
from rheos.solvers import RK4

F64 = torch.float64
EXACT = GuidedMap()
IDENTITIES: list[Identity] = [Eulerian(), Eulerian(improved=True), Lagrangian(), Compositional()]
COUNT = 96
X1, X0, T = Rng(3).normal(COUNT, 2, dtype=F64), Rng(4).normal(COUNT, 2, dtype=F64), Rng(5).uniform(COUNT, dtype=F64)
LABEL = torch.arange(COUNT) % 3 - 1


def teacher(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Knows nothing of scales."""
    return EXACT(x, t, cond)


def misled(amount: float, exact: GuidedMap = EXACT) -> Any:
    """The map of a scale that is off by some amount."""

    def model(x: Tensor, t: Tensor, cond: Tensor, s: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        assert scale is not None
        return exact(x, t, cond, s, scale + amount)

    return model


def rows_of(objective: FlowMapMatching, model: Any, label: Tensor = LABEL, state: Any = None) -> Tensor:
    return objective(model, X1, label, 7, x0=X0, t=T, state=state).rows


def told(objective: FlowMapMatching, label: Tensor, rng: Any = 7) -> tuple[Tensor, Tensor, Tensor]:
    """The scale that each row is told, and where its step starts and ends."""
    seen = []

    def model(x: Tensor, t: Tensor, cond: Tensor, s: Tensor, scale: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            seen.append((scale, t, s))
        return x

    objective(model, torch.zeros(len(label), 1), label, rng)
    return seen[0]


def test_the_exact_map_is_that_of_the_guided_flow() -> None:
    """What the other tests lean on: a fine integration of the contrasted velocity, piece by piece, leads where the map
    does, forward and backward."""
    ends = torch.tensor([0.1, 0.3, 0.7, 0.9], dtype=F64)
    scale = torch.where(LABEL < 0, 1.0, 2.5)
    for forward in (True, False):
        order = ends if forward else ends.flip(0)
        x, first, last = X0, order[0], order[-1]
        for piece, guided in enumerate((False, True, False)):
            grid = torch.lerp(*order[piece : piece + 2], torch.linspace(0, 1, 21, dtype=F64))
            x = integrate(RK4(), Flow(ClassifierFree(2.5 if guided else 1.0)(teacher)), x, grid, LABEL).x
        found = X0 + (last - first) * GuidedMap(0.3, 0.7)(X0, first, LABEL, last, scale)
        torch.testing.assert_close(found, x, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.25, 0.7)])
@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
def test_the_guided_map_has_no_loss_and_that_of_another_scale_has(
    identity: Identity, ends: tuple[float, float]
) -> None:
    objective = FlowMapMatching(identity, teacher=teacher, diagonal=0.3, guided=Scales(1.5, 4.0, *ends))
    exact = GuidedMap(*ends)
    assert float(rows_of(objective, exact).max()) < 1e-18
    wrong = rows_of(objective, misled(0.1, exact))[LABEL >= 0]
    # Outside the interval no scale acts; and any map composes with itself, so there the diagonal alone tells.
    share = 0.1 if isinstance(identity, Compositional) or ends != (0.0, 1.0) else 0.99
    assert float((wrong > 1e-6).double().mean()) > share
    unguided = rows_of(objective, lambda x, t, cond, s, scale: exact(x, t, cond, s))[LABEL >= 0]
    assert float(unguided.median()) > 1e-3 or share < 0.5


@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
def test_each_row_has_a_scale_of_its_own(identity: Identity) -> None:
    """Scales that are passed on to the neighbouring rows are wrong ones."""
    objective = FlowMapMatching(identity, teacher=teacher, diagonal=0.3, guided=Scales(0.5, 4.0))
    label = LABEL.abs()

    def passed_on(x: Tensor, t: Tensor, cond: Tensor, s: Tensor, scale: Tensor) -> Tensor:
        return EXACT(x, t, cond, s, scale.roll(1))

    assert float(rows_of(objective, EXACT, label).max()) < 1e-18
    share = 0.15 if isinstance(identity, Compositional) else 0.9
    assert float((rows_of(objective, passed_on, label) > 1e-6).double().mean()) > share


def test_a_rows_scale_is_a_function_of_its_key_alone() -> None:
    objective = FlowMapMatching(Compositional(), guided=Scales(2.0, 5.0))
    rng, order = Rng(11), torch.arange(40).flip(0)
    whole = told(objective, torch.zeros(40, dtype=torch.int64), rng.rows(torch.arange(40)))
    again = told(objective, torch.zeros(40, dtype=torch.int64), rng.rows(order))
    assert all(torch.equal(one[order], other) for one, other in zip(whole, again, strict=True))
    part = told(objective, torch.zeros(3, dtype=torch.int64), rng.rows(torch.tensor([5, 30, 2])))
    assert torch.equal(part[0], whole[0][[5, 30, 2]])


def test_scales_are_drawn_apart_from_everything_else() -> None:
    objective = FlowMapMatching(Compositional(), diagonal=0.2, backward=0.3, guided=Scales(2.0, 5.0))
    scale, t, s = told(objective, torch.zeros(20_000, dtype=torch.int64))
    for other in (t, s, (s == t).float(), (s < t).float()):
        assert abs(float(torch.corrcoef(torch.stack([scale, other]))[0, 1])) < 0.05


def test_scales_are_uniform_and_rows_without_a_class_are_told_one() -> None:
    label = torch.arange(6000) % 3 - 1
    scales, *_ = told(FlowMapMatching(Compositional(), guided=Scales(2.0, 6.0)), label)
    assert bool((scales[label < 0] == 1.0).all())
    kept = scales[label >= 0]
    assert 2.0 < float(kept.min()) < 2.05
    assert 5.95 < float(kept.max()) < 6.0
    assert float(kept.mean()) == pytest.approx(4.0, abs=0.06)
    assert float(kept.std()) == pytest.approx(4 / 12**0.5, abs=0.04)


@pytest.mark.parametrize("taught", [True, False])
def test_rows_without_a_class_are_never_guided(taught: bool) -> None:
    """They have the loss that they have without guidance, exactly."""
    nobody = torch.full_like(LABEL, -1)
    plain = FlowMapMatching(Lagrangian(), teacher=teacher if taught else None)
    guided = replace(plain, guided=Scales(2.0, 5.0))

    def model(x: Tensor, t: Tensor, cond: Tensor, s: Tensor, scale: Tensor | None = None) -> Tensor:
        return torch.tanh(EXACT(x, t, cond, s, scale))

    assert torch.equal(rows_of(guided, model, nobody), rows_of(plain, model, nobody))
    mixed = rows_of(guided, model, LABEL)
    assert torch.equal(mixed[LABEL < 0], rows_of(plain, model, LABEL)[LABEL < 0])
    assert bool((mixed != rows_of(plain, model, LABEL))[LABEL >= 0].all())


@pytest.mark.parametrize(("time", "acts"), [(0.19, False), (0.2, True), (0.9, True), (0.91, False)])
def test_guidance_acts_between_its_closed_ends(time: float, acts: bool) -> None:
    """As the guidance does that samples a teacher so."""
    t, scale = torch.full((COUNT,), time, dtype=F64), torch.full((COUNT,), 3.0)
    scales = Scales(1.0, 5.0, 0.2, 0.9)
    found = scales.contrast(teacher(X0, t, LABEL), teacher(X0, t, -torch.ones_like(LABEL)), scale, t)
    torch.testing.assert_close(found, Interval(ClassifierFree(3.0), 0.2, 0.9)(teacher)(X0, t, LABEL))
    assert torch.equal(found, teacher(X0, t, LABEL)) != acts


@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
def test_data_teach_the_guided_map_in_the_mean(identity: Identity) -> None:
    """From scratch, what the map gives without a class takes the place of the teacher's: at the truth the gradient has
    no mean, and at a wrong scale it points back."""
    count = 60_000
    label = torch.arange(count) % 2
    rows = Rng(8).rows(torch.arange(count))
    x1 = MEANS[label][:, None] + 0.4 * rows.normal(1, dtype=F64)
    objective = FlowMapMatching(identity, diagonal=0.3, guided=Scales(1.0, 3.0, 0.1, 0.8))
    exact = GuidedMap(0.1, 0.8)
    x0, t = objective.draw(Rng(9).rows(torch.arange(count)), x1)
    slopes = []
    for amount in (0.0, -0.4, 0.4):
        error = torch.tensor(amount, dtype=F64, requires_grad=True)

        def model(x: Tensor, t: Tensor, cond: Tensor, s: Tensor, scale: Tensor, error: Tensor = error) -> Tensor:
            return exact(x, t, cond, s, scale + error)

        loss = objective(model, x1, label, 9, x0=x0, t=t.double(), state=exact)
        slopes.append(float(torch.autograd.grad(loss.rows.mean(), error)[0]))
    assert abs(slopes[0]) < 0.03
    assert slopes[1] < -0.1
    assert slopes[2] > 0.1


def test_what_is_contrasted_from_scratch_is_the_average_without_a_class_and_without_a_gradient() -> None:
    asked: list[tuple[Tensor, Tensor]] = []

    def average(x: Tensor, t: Tensor, cond: Tensor, s: Tensor, scale: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert bool((s == t).all())
        asked.append((cond, scale))
        return EXACT(x, t, cond, s, scale)

    objective = FlowMapMatching(diagonal=1.0, guided=Scales(2.0, 5.0))
    rows_of(objective, EXACT, LABEL, average)
    ((cond, scale),) = asked
    assert bool((cond == -1).all())
    assert bool((scale == 1.0).all())
    # Without an average it is the network itself, as in MeanFlow.
    assert torch.equal(
        rows_of(mean_flow(diagonal=1.0, guided=Scales(2.0, 5.0)), EXACT, LABEL), rows_of(objective, EXACT, LABEL, EXACT)
    )


def test_a_scale_passes_by_what_the_network_was_before() -> None:
    """A network that goes on from another path has the end of a step on its own clock, and its scale as it is."""
    seen = []

    def network(x: Tensor, t: Tensor, cond: Tensor, s: Tensor, scale: Tensor) -> Tensor:
        seen.append((s, scale))
        return x

    for before in (Matching(), Matching(predict="data", data_std=0.5)):
        seen.clear()
        objective = FlowMapMatching(Compositional(), Affine(Cosine()), before=before, guided=Scales(2.0, 5.0))
        rows_of(objective, network, LABEL.abs())
        assert all(bool((scale == 1).all() or ((scale >= 2) & (scale <= 5)).all()) for _, scale in seen)
        assert all(bool(((end >= 0) & (end <= 1)).all()) for end, _ in seen)


def test_a_mapping_of_conditions_is_guided_where_anything_is_known() -> None:
    cond = {
        "label": torch.tensor([0, -1, -1, 2]),
        "vector": torch.tensor([[0.0, 1], [0, 1], [float("nan")] * 2, [1, 2]]),
    }
    drawn = Scales(2.0, 3.0).draw(Rng(1).rows(torch.arange(4)), Given(cond))
    assert drawn.scale is not None
    assert (drawn.scale == 1.0).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((2.0, 2.0), r"low < high, got \[2.0, 2.0\]"),
        ((3.0, 1.0), r"low < high"),
        ((1.0, float("inf")), r"low < high"),
        ((1.0, 2.0, 0.5, 0.5), r"start < end"),
        ((1.0, 2.0, -0.1, 0.5), r"two times of \[0, 1\]"),
        ((1.0, 2.0, 0.5, 1.1), r"two times of \[0, 1\]"),
    ],
)
def test_what_is_no_range_is_refused(wrong: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Scales(*wrong)


def test_rows_of_no_condition_at_all_cannot_learn_guidance() -> None:
    with pytest.raises(InputError, match="give a condition"):
        FlowMapMatching(guided=Scales(1.0, 2.0))(NormalMap(), X1, None, 7, x0=X0, t=T)
