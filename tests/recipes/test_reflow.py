"""Pairs that a teacher makes: from noise and from data, in shards that can be made again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.recipes.test_flow_maps import teacher
from torch import Tensor, nn

from rheos.core import CheckpointError, InputError, Rng, integrate
from rheos.guidance import ClassifierFree
from rheos.nn import MLP
from rheos.objectives import FlowMapMatching, Matching, Rectified, Samples, consistency, lagrangian, shortcut
from rheos.paths import Affine
from rheos.recipes import Run, distilled, images, made_pairs, rectified, reflow, with_teacher
from rheos.recipes.sources import starting_at
from rheos.schedules import Discrete, LinearBetas
from rheos.solvers import RK4, Euler
from rheos.solvers.grids import Uniform

DIFFUSION = Matching(Affine(Discrete(LinearBetas())), predict="v")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflow, "SHARD", 8)


@pytest.fixture(params=[Matching(), DIFFUSION], ids=["flow", "diffusion"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Run, nn.Module]:
    """A student that is to learn from 20 pairs, and its teacher's network."""
    run, network = teacher(tmp_path / "teacher", replace(images(network=MLP, width=8), objective=request.param))
    recipe = rectified(run, network, 20, 2, ClassifierFree(2.0))
    return Run(tmp_path / "student", recipe, 5, {}), network


def made(pair: tuple[Run, nn.Module]) -> tuple[Tensor, Tensor]:
    run, network = pair
    found = made_pairs(run, network, run.recipe.kind.open(None))
    assert isinstance(found.cond, Tensor)
    return found.x, found.cond


def test_a_pair_is_a_noise_and_where_the_teacher_leads_it(pair: tuple[Run, nn.Module]) -> None:
    run, network = pair
    x, labels = made(pair)
    assert x.shape == (20, 2, 1, 8, 8)
    flow = run.recipe.objective.dynamics(network).over(ClassifierFree(2.0))
    with torch.no_grad():
        ends = integrate(RK4(), flow, x[:, 0], Uniform()(128), labels).x
    # As near as 32 evaluations of Adams-Bashforth 3 come.
    assert float((ends - x[:, 1]).norm() / x[:, 1].norm()) < 0.02
    training = run.recipe.kind.open(None).training
    values, own = training.take(torch.arange(10))
    states = run.recipe.kind.read(values, Rng(0).rows(torch.arange(10)))
    assert torch.equal(x[::2, 1], states)
    assert isinstance(own, Tensor)
    assert torch.equal(labels, own.repeat_interleave(2))
    noise = run.recipe.objective.prior(Rng(5).fold(reflow.NOISES).rows(torch.arange(20)), torch.empty(20, 1, 8, 8))
    assert torch.equal(x[1::2, 0], noise[1::2])
    # A student is looked at from other noises than it learned from.
    shown = run.recipe.objective.prior(Rng(5).rows(torch.arange(20)), torch.empty(20, 1, 8, 8))
    assert not (x[:, :1] == shown[:, None]).flatten(1).any()
    # Those from data begin somewhere else, which is noise all the same.
    assert not torch.equal(x[::2, 0], noise[::2])


def test_shards_are_made_once_and_again_where_one_is_missing(pair: tuple[Run, nn.Module]) -> None:
    run, network = pair
    whole = made(pair)
    shards = sorted(p.name for p in (run.folder / "reflow").iterdir())
    assert shards == ["shard-00000", "shard-00001", "shard-00002"]
    shutil.rmtree(run.folder / "reflow" / shards[1])
    told: list[str] = []
    again = made_pairs(run, network, run.recipe.kind.open(None), told.append)
    assert told == ["16 of 20 pairs"]
    assert torch.equal(again.x, whole[0])


def test_a_damaged_shard_and_another_teacher_are_refused(pair: tuple[Run, nn.Module]) -> None:
    run, network = pair
    made(pair)
    file = run.folder / "reflow/shard-00001/pairs.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="shard-00001"):
        made(pair)
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    with pytest.raises(CheckpointError, match="distil anew"):
        made(pair)


def test_noise_makes_the_pairs_where_there_are_too_few_data(
    pair: tuple[Run, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, network = pair
    splits = run.recipe.kind.open(None)
    few = type(splits)(splits.training.subset(torch.arange(3)), splits.held_out, splits.fingerprint)  # type: ignore[attr-defined]
    x = made_pairs(run, network, few).x
    noise = run.recipe.objective.prior(Rng(5).fold(reflow.NOISES).rows(torch.arange(20)), torch.empty(20, 1, 8, 8))
    same = (x[:, 0] == noise).flatten(1).all(1)
    assert same.tolist() == [row % 2 == 1 or row >= 6 for row in range(20)]


def test_a_straighter_flow_can_be_straightened_again(pair: tuple[Run, nn.Module], tmp_path: Path) -> None:
    run, network = pair
    assert isinstance(run.recipe.objective, Rectified)
    assert (run.recipe.solver, run.recipe.evaluations, run.recipe.guidance) == (Euler(), 2, None)
    again = rectified(run, network, 7, 1, None)
    assert again.objective == run.recipe.objective
    with pytest.raises(InputError, match="at least one pair, got 0"):
        rectified(run, network, 0, 1, None)


def test_the_map_of_a_straighter_flow_is_learned_on_its_own_pairs(pair: tuple[Run, nn.Module], tmp_path: Path) -> None:
    straight, network = pair
    recipe = distilled(straight, network, lagrangian, 1, None, 9)
    run = Run(tmp_path / "map", recipe, 2, {})
    assert isinstance(recipe.objective, Rectified)
    assert isinstance(recipe.objective.inner, FlowMapMatching)
    x, labels = made((run, network))
    assert len(x) == 9
    with torch.no_grad():
        ends = integrate(RK4(), straight.recipe.objective.dynamics(network), x[:, 0], Uniform()(128), labels).x
    assert float((ends - x[:, 1]).norm() / x[:, 1].norm()) < 0.02
    held = with_teacher(recipe, network).objective
    assert isinstance(held, Rectified)
    assert isinstance(held.inner, FlowMapMatching)
    assert held.inner.teacher is not None
    flow, t = straight.recipe.objective.dynamics(network), torch.tensor(0.4)
    torch.testing.assert_close(held.inner.teacher(ends, t, labels), flow.velocity(ends, t, labels))
    # Noise and data belong together: nothing restarts, and a map to the data only takes one step.
    assert distilled(straight, network, consistency, 1, None).noise is None
    with pytest.raises(InputError, match="2 steps of a map that leads to the data only"):
        distilled(straight, network, consistency, 2, None)
    with pytest.raises(InputError, match="at least one pair, got 0"):
        distilled(straight, network, shortcut, 1, None, 0)
    again = Run(tmp_path / "again", recipe, 0, {})
    for make in (lambda: distilled(again, network, shortcut, 1, None), lambda: rectified(again, network, 5, 1, None)):
        with pytest.raises(InputError, match="was trained by FlowMapMatching"):
            make()


def test_a_straightened_source_is_within(tmp_path: Path) -> None:
    source = Samples(torch.zeros(3, 1, 8, 8))
    run, network = teacher(tmp_path, images(network=MLP, width=8))
    held = starting_at(rectified(run, network, 5, 1, None), source).objective
    assert isinstance(held, Rectified)
    assert held.source is source
