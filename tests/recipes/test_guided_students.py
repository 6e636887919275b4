"""Students that learn a range of guidance: what they take over, how they are told, and what they are shown beside."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes.test_flow_maps import teacher
from torch import Tensor, nn

from rheos.core import InputError, Rng
from rheos.guidance import ClassifierFree, Interval, Told
from rheos.nn import MLP
from rheos.objectives import (
    FlowMapMatching,
    Matching,
    Scales,
    continuous_consistency,
    lagrangian,
    mean_flow,
    shortcut,
)
from rheos.paths import Affine
from rheos.recipes import (
    Build,
    Recipe,
    Sampler,
    as_flow_map,
    decode,
    distilled,
    encode,
    images,
    rectified,
    teaching,
    toy,
    with_teacher,
)
from rheos.schedules import Discrete, LinearBetas

SCALES = Scales(1.5, 4.5)
DIFFUSION = Matching(Affine(Discrete(LinearBetas())), predict="noise")
LABEL = torch.tensor([0, 4, 9])


def digits(**changes: Any) -> Recipe:
    return replace(images(network=MLP, width=8), **changes)


class TwoTimes(nn.Module):
    """A network that is told where a step ends, and no scale."""

    def __init__(self, two_times: bool = False) -> None:
        super().__init__()


def lively(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for place, weights in enumerate(network.parameters()):
            weights.add_(0.05 * Rng(4).fold(place).normal(*weights.shape))
    return network


@pytest.mark.parametrize("objective", [Matching(), DIFFUSION], ids=["flow", "diffusion"])
@pytest.mark.parametrize("make", [lagrangian, continuous_consistency])
def test_a_student_begins_as_its_unguided_teacher_whatever_it_is_told(
    tmp_path: Path, objective: Matching, make: Any
) -> None:
    run, network = teacher(tmp_path, digits(objective=objective))
    student = distilled(run, network, make, 1, SCALES)
    known = student.network(Rng(1))
    missing = known.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert {name.split(".")[1] for name in missing} == {"gap", "scale"}
    made = student.objective
    assert isinstance(made, FlowMapMatching)
    assert made.guided == SCALES
    x, t, s = Rng(2).normal(3, 1, 8, 8), torch.tensor(0.3), torch.tensor(0.8)
    assert student.teacher is not None
    bare = with_teacher(replace(student, teacher=replace(student.teacher, guidance=None)), network).objective
    assert isinstance(bare, FlowMapMatching)
    assert bare.teacher is not None
    want = bare.teacher(x, t, LABEL)
    for scale in (1.5, 4.0):
        told = made.dynamics(known).over(Told(scale, 1.5, 4.5))
        for end in ({}, {"s": s}):
            torch.testing.assert_close(told.average(x, t, LABEL, **end), want)


def test_a_teacher_of_scales_is_given_as_it_is_and_contrasted_by_the_objective(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, digits())
    held = with_teacher(distilled(run, network, shortcut, 1, SCALES), network).objective
    assert isinstance(held, FlowMapMatching)
    assert held.teacher is network
    asked: list[Tensor] = []

    def student(x: Tensor, t: Tensor, cond: Tensor, s: Tensor, scale: Tensor) -> Tensor:
        """What the guided teacher gives."""
        asked.append(scale)
        without = network(x, t, torch.full_like(cond, -1))
        return without + scale[:, None, None, None] * (network(x, t, cond) - without)

    x1 = Rng(5).normal(3, 1, 8, 8)
    rows = replace(held, diagonal=1.0)(student, x1, LABEL, 3).rows
    assert float(rows.max()) < 1e-10
    assert len(set(asked[0].tolist())) == 3


def test_a_student_is_sampled_at_the_middle_scale_and_stored(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, digits())
    student = distilled(run, network, shortcut, 2, Scales(1.0, 4.0, 0.2, 0.9))
    assert student.guidance == Told(2.5, 1.0, 4.0)
    assert student.teacher is not None
    assert student.teacher.guidance == Interval(ClassifierFree(2.5), 0.2, 0.9)
    assert decode(encode(student)) == student
    net = lively(student.network(Rng(1)))
    drawn = Sampler(student, net).draw(4)
    assert (drawn.evaluations, drawn.passes) == (2, 2)
    other = Sampler(replace(student, guidance=Told(3.5, 1.0, 4.0)), net).draw(4)
    assert not torch.equal(drawn.states, other.states)
    # Labels of nobody in particular are not guided.
    nobody = torch.full((4,), -1)
    assert torch.equal(
        Sampler(student, net).draw(4, nobody).states,
        Sampler(replace(student, guidance=Told(3.5, 1.0, 4.0)), net).draw(4, nobody).states,
    )


def test_the_density_of_a_student_is_that_of_what_it_is_told(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, digits())
    student = distilled(run, network, shortcut, 1, SCALES)
    net = lively(student.network(Rng(1)))
    x, rng = Rng(6).normal(3, 1, 8, 8), Rng(7)
    found = [
        Sampler(replace(student, guidance=guidance), net).log_prob(x, LABEL, rng)
        for guidance in (None, Told(1.5, 1.5, 4.5), Told(4.0, 1.5, 4.5))
    ]
    assert len({float(each.sum()) for each in found}) == 3
    plain = replace(run.recipe, guidance=None)
    stressed = replace(run.recipe, guidance=ClassifierFree(3.0))
    assert torch.equal(*(Sampler(recipe, network).log_prob(x, LABEL, rng) for recipe in (plain, stressed)))


def test_a_teacher_is_shown_under_the_scale_that_the_student_is_told(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, digits())
    student = distilled(run, network, shortcut, 1, Scales(1.0, 4.0, 0.2, 0.9))
    assert teaching(run, student).guidance == Interval(ClassifierFree(2.5), 0.2, 0.9)
    other = replace(student, guidance=Told(1.0, 1.0, 4.0))
    assert teaching(run, other).guidance == Interval(ClassifierFree(1.0), 0.2, 0.9)
    whole = distilled(run, network, shortcut, 1, SCALES)
    assert teaching(run, whole).guidance == ClassifierFree(3.0)
    one = distilled(run, network, shortcut, 1, ClassifierFree(2.0))
    assert teaching(run, one).guidance == ClassifierFree(2.0)
    assert teaching(run, distilled(run, network, shortcut, 1, None)).guidance is None


def test_an_interval_is_of_the_students_path_and_shown_on_the_teachers(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, digits())
    student = distilled(run, network, continuous_consistency, 1, Scales(1.0, 4.0, 0.25, 0.75))
    shown = teaching(run, student).guidance
    assert isinstance(shown, Interval)
    # On the circle alpha : sigma is tan(t*pi/2), on straight lines t : 1 - t.
    ratio = torch.tensor([0.25, 0.75], dtype=torch.float64).mul(torch.pi / 2).tan()
    torch.testing.assert_close(torch.tensor([shown.low, shown.high]).double(), ratio / (1 + ratio), rtol=1e-6, atol=0.0)
    single = distilled(run, network, continuous_consistency, 1, Interval(ClassifierFree(2.0), 0.25, 0.75))
    assert teaching(run, single).guidance == replace(shown, guidance=ClassifierFree(2.0))
    # A student whose teacher is guided on its own path learns the flow that is shown.
    held = with_teacher(single, network).objective
    assert isinstance(held, FlowMapMatching)
    assert held.teacher is not None
    x = Rng(2).normal(3, 1, 8, 8)
    carried = Matching(Affine()).carried(shown_flow(shown, network), held.path)
    for time in (0.2, 0.26, 0.74, 0.8):
        t = torch.tensor(time)
        torch.testing.assert_close(held.teacher(x, t, LABEL), carried(x, t, LABEL))


def shown_flow(guidance: Interval, network: nn.Module) -> Any:
    """The velocity that a shown teacher is sampled by."""
    return replace(guidance, guidance=ClassifierFree(2.0))(network)


def test_a_recipe_from_scratch_learns_scales_too() -> None:
    made = as_flow_map(digits(), partial(mean_flow, guided=Scales(1.0, 3.0)))
    assert made.network.options["guided"] is True
    assert made.guidance == Told(2.0, 1.0, 3.0)
    assert isinstance(made.objective, FlowMapMatching)
    loss = made.objective(lively(made.network(Rng(1))), Rng(5).normal(3, 1, 8, 8), LABEL, 3)
    assert bool(loss.rows.isfinite().all())
    assert "guided" not in as_flow_map(digits(), mean_flow).network.options


def test_what_cannot_learn_scales_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have no classes; leave guided out"):
        as_flow_map(toy(), partial(mean_flow, guided=SCALES))
    with pytest.raises(InputError, match="TwoTimes has no guided"):
        as_flow_map(digits(network=Build(TwoTimes)), partial(mean_flow, guided=SCALES))
    run, network = teacher(tmp_path, digits())
    with pytest.raises(InputError, match="a straighter flow follows one; give one scale"):
        rectified(run, network, 20, 1, SCALES)
    run, network = teacher(tmp_path, toy())
    with pytest.raises(InputError, match="has no classes"):
        distilled(run, network, shortcut, 1, SCALES)
