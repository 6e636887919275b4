"""Recipes of flow maps, and of students."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rheos.core import CheckpointError, InputError, Rng
from rheos.couplings import BatchOT
from rheos.dynamics import RestartNoise
from rheos.guidance import ClassifierFree
from rheos.nn import MLP
from rheos.objectives import (
    Compositional,
    FlowMapMatching,
    Matching,
    consistency,
    consistency_flow_matching,
    continuous_consistency,
    lagrangian,
    mean_flow,
    shortcut,
)
from rheos.objectives.times import LogitNormal, Uniform
from rheos.paths import Affine
from rheos.recipes import Build, Recipe, Run, as_flow_map, distilled, images, toy, with_teacher
from rheos.schedules import Cosine, Discrete, LinearBetas
from rheos.solvers import Euler
from rheos.training import checkpoint


class OneTime(nn.Module):
    """A network of one time."""


def test_a_map_takes_over_what_the_flow_had() -> None:
    recipe = toy()
    own = replace(recipe.objective, path=Affine(), times=Uniform(stratified=True))
    made = as_flow_map(replace(recipe, objective=own), lagrangian)
    assert made.objective == lagrangian(times=Uniform(stratified=True))
    chosen = partial(mean_flow, times=LogitNormal(mean=-0.4))
    assert as_flow_map(recipe, chosen).objective == chosen()
    assert (made.solver, made.evaluations, made.network.options["two_times"]) == (Euler(), 1, True)
    with pytest.raises(InputError, match="OneTime has no two_times"):
        as_flow_map(replace(recipe, network=Build(OneTime)), shortcut)


def test_a_map_that_leads_to_data_only_is_sampled_with_restarts() -> None:
    made = as_flow_map(toy(), consistency)
    assert made.noise == RestartNoise()
    assert as_flow_map(toy(), continuous_consistency).objective == continuous_consistency(
        times=Uniform(stratified=True)
    )
    segmented = as_flow_map(toy(), consistency_flow_matching)
    assert (segmented.noise, segmented.evaluations) == (None, 2)
    coupled = replace(toy(), objective=Matching(coupling=BatchOT()))
    assert as_flow_map(coupled, consistency).noise is None


def test_a_student_on_a_path_of_its_own_begins_as_its_teacher(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, toy())
    student = distilled(run, network, continuous_consistency, 1, None)
    made = student.objective
    assert isinstance(made, FlowMapMatching)
    assert (made.path, made.before) == (Affine(Cosine()), Matching())
    held = with_teacher(student, network).objective
    assert isinstance(held, FlowMapMatching)
    assert held.teacher is not None
    x, t = Rng(2).normal(5, 2), torch.tensor(0.3)
    want = Matching(Affine(Cosine()), before=Matching()).dynamics(network).rate(x, t)
    torch.testing.assert_close(held.teacher(x, t), want)


def test_segments_of_a_student_are_its_steps(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, toy())
    student = distilled(run, network, consistency_flow_matching, 4, None)
    assert isinstance(student.objective, FlowMapMatching)
    assert (student.objective.segments, student.evaluations) == (4, 4)


def test_images_whose_derivative_is_exact_keep_their_layout() -> None:
    assert not as_flow_map(images(), lagrangian).training.channels_last
    assert as_flow_map(images(), shortcut).training.channels_last
    assert isinstance(as_flow_map(images(), shortcut).objective, FlowMapMatching)
    assert isinstance(shortcut().identity, Compositional)


def teacher(folder: Path, recipe: Recipe) -> tuple[Run, nn.Module]:
    run = Run(folder, recipe, 0, {})
    network = run.network()
    with torch.no_grad():
        for place, weights in enumerate(network.parameters()):
            weights.add_(0.05 * Rng(3).fold(place).normal(*weights.shape))
    return run, network


DIFFUSION = Matching(Affine(Discrete(LinearBetas())), predict="noise")


@pytest.mark.parametrize("objective", [Matching(), DIFFUSION], ids=["flow", "diffusion"])
def test_a_student_begins_as_the_flow_that_its_teacher_is(tmp_path: Path, objective: Matching) -> None:
    run, network = teacher(tmp_path, replace(toy(), objective=objective))
    student = distilled(run, network, lagrangian, 2, None)
    assert student.evaluations == 2
    made = student.objective
    assert isinstance(made, FlowMapMatching)
    assert made.before == (None if objective == Matching() else objective)
    assert made.diagonal == 0.25
    known = student.network(Rng(1))
    missing = known.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert all(name.startswith("embedding.gap.") for name in missing)
    x, t, s = Rng(2).normal(5, 2), torch.tensor(0.3), torch.tensor(0.8)
    flow = objective.dynamics(network)
    velocity = flow if made.before is None else Matching(before=made.before).dynamics(network)
    for end in (None, s):
        torch.testing.assert_close(made.dynamics(known).rate(x, t, end), velocity.rate(x, t))
    held = with_teacher(student, network).objective
    assert isinstance(held, FlowMapMatching)
    assert held.teacher is not None
    torch.testing.assert_close(held.teacher(x, t), velocity.rate(x, t))


def test_a_teacher_is_guided_as_asked(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, images(network=MLP, width=8))
    student = distilled(run, network, shortcut, 1, ClassifierFree(3.0))
    held = with_teacher(student, network).objective
    assert isinstance(held, FlowMapMatching)
    x, t, label = Rng(2).normal(3, 1, 8, 8), torch.full((3,), 0.4), torch.tensor([0, 4, 9])

    def velocity(label: Tensor) -> Tensor:
        return network(x, t, label)

    assert held.teacher is not None
    without = velocity(torch.full((3,), -1))
    torch.testing.assert_close(held.teacher(x, t, label), without + 3 * (velocity(label) - without))
    assert student.guidance is None


def test_another_teacher_is_refused(tmp_path: Path) -> None:
    run, network = teacher(tmp_path, toy())
    student = distilled(run, network, shortcut, 1, None)
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    with pytest.raises(CheckpointError, match="restore it, or distil anew"):
        with_teacher(student, network)
    assert checkpoint.steps(tmp_path / "checkpoints") == []
