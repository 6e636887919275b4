"""Matching on pairs: it asks what matching asks between the two, and straightens a flow whose paths cross."""

from __future__ import annotations

import pytest
import torch
from tests.support.normal_map import NormalMap

from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.dynamics import Flow, FlowMap
from rheos.objectives import Matching, Rectified, lagrangian
from rheos.objectives.times import LogitNormal, Uniform
from rheos.paths import Affine
from rheos.schedules import Cosine

PAIRS = Rng(1).normal(8, 2, 3, dtype=torch.float64)


def test_it_keeps_the_laws() -> None:
    testing.check_objective(Rectified(), PAIRS.float())
    testing.check_objective(Rectified(Matching(Affine(Cosine()), times=LogitNormal(), before=Matching())), PAIRS)


def test_it_is_matching_between_the_two() -> None:
    inner = Matching(Affine(Cosine()), times=Uniform(stratified=True))
    objective = Rectified(inner)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    found = objective(NormalMap(), PAIRS, None, t=t).rows
    assert torch.equal(found, inner(NormalMap(), PAIRS[:, 1], None, x0=PAIRS[:, 0], t=t).rows)
    _, times = objective.draw(Rng(3).rows(torch.arange(8)), PAIRS)
    assert torch.equal(times, inner.draw(Rng(3).rows(torch.arange(8)), PAIRS[:, 1])[1])
    assert torch.equal(objective(NormalMap(), PAIRS, None, 3).rows, objective(NormalMap(), PAIRS, None, 3).rows)


def test_it_gives_a_flow_without_a_score() -> None:
    flow = Rectified().dynamics(NormalMap())
    assert isinstance(flow, Flow)
    assert not flow.independent
    assert flow.velocity == NormalMap()
    carried = Rectified(Matching(before=Matching(Affine(Cosine()), predict="v"))).dynamics(NormalMap())
    assert carried.velocity == Matching(before=Matching(Affine(Cosine()), predict="v")).dynamics(NormalMap()).velocity


def test_a_map_is_matched_between_the_two() -> None:
    inner = lagrangian(diagonal=0.25)
    objective = Rectified(inner)
    testing.check_objective(objective, PAIRS)
    t, own, slow = torch.linspace(0.1, 0.9, 8, dtype=torch.float64), NormalMap(), NormalMap(std=1.7)
    found = objective(own, PAIRS, None, 3, t=t, state=slow)
    want = inner(own, PAIRS[:, 1], None, 3, x0=PAIRS[:, 0], t=t, state=slow)
    assert torch.equal(found.rows, want.rows)
    assert not torch.equal(found.rows, objective(own, PAIRS, None, 3, t=t).rows)
    learned = objective.dynamics(own)
    assert isinstance(learned, FlowMap)
    assert not learned.independent


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"a pair.*\(8, 3, 2\)"):
        Rectified()(NormalMap(), PAIRS.transpose(1, 2), None, 1)
    with pytest.raises(InputError, match="rng"):
        Rectified()(NormalMap(), PAIRS)
