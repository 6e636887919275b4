"""What stands at t = 0: a function of each row's key."""

from __future__ import annotations

import pytest
import torch

from rheos.core import InputError, Rng, ShapeError
from rheos.objectives import Matching, Normal, Samples

STATES = torch.arange(5.0)[:, None] + torch.tensor([0.0, 0.5])
LIKE = torch.zeros(1, 2)


def test_each_state_is_drawn_equally_often() -> None:
    drawn = Samples(STATES)(Rng(1).rows(torch.arange(10_000)), LIKE)
    counts = torch.bincount(drawn[:, 0].long(), minlength=5)
    assert torch.equal(drawn[:, 1], drawn[:, 0] + 0.5)
    assert float((counts - 2000).abs().max()) < 5 * (10_000 * 0.2 * 0.8) ** 0.5


def test_a_row_is_a_function_of_its_key() -> None:
    source, rng = Samples(STATES), Rng(1)
    whole = source(rng.rows(torch.arange(20)), LIKE)
    assert torch.equal(source(rng.rows(torch.tensor([7, 3])), LIKE), whole[[7, 3]])
    turned = Samples(STATES, in_turn=True)(rng.rows(torch.tensor([0, 6, 4])), LIKE.double())
    assert torch.equal(turned, STATES[[0, 1, 4]].double())


def test_a_flow_from_data_has_no_score() -> None:
    objective = Matching(source=Samples(STATES))
    assert objective.dynamics(lambda x, t: x).independent is False
    assert Matching(source=Normal()).dynamics(lambda x, t: x).independent is True
    x0, _ = objective.draw(Rng(2).rows(torch.arange(6)), torch.zeros(6, 2))
    assert bool((x0[:, None] == STATES).all(2).any(1).all())


def test_states_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"source and data must have one shape, got \(2,\) and \(3,\)"):
        Samples(STATES)(Rng(1).rows(torch.arange(2)), torch.zeros(1, 3))
    with pytest.raises(InputError, match="at least one state"):
        Samples(STATES[:0])
    with pytest.raises(InputError, match="need an Rng with rows"):
        Samples(STATES, in_turn=True)(Rng(1), LIKE)
