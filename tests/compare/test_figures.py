"""Reading a comparison's figures: by hand."""

from __future__ import annotations

import math

import pytest

from rheos.compare.figures import last, middle, quality, quotients, reached, seconds, spread

SIDE = {
    "seeds": [0, 2],
    "ways": {
        "own": {"quality": {"10": [3.0, 5.0]}, "sampling seconds": {"10": [1.0, 2.0]}},
        "other": {"quality": {"10": [1.0, 1.5]}, "sampling seconds": {"10": [4.0, 8.0]}},
    },
    "learning": {"10": [16.0, 4.0], "20": [4.0, 3.0], "30": [1.0, 3.5]},
}


def test_figures_go_by_seed_and_by_the_own_sampler_unless_another_is_named() -> None:
    assert quality(SIDE, 10) == {0: 3.0, 2: 5.0}
    assert quality(SIDE, 10, "other") == {0: 1.0, 2: 1.5}
    assert quality(SIDE, 20) == quality(SIDE, 10, "nobody's") == {}
    assert seconds(SIDE, 10) == {0: 1.0, 2: 2.0}
    assert seconds(SIDE, 10, "other") == {0: 4.0, 2: 8.0}
    assert (middle(SIDE, 10), middle(SIDE, 20)) == (4.0, None)
    assert last(SIDE) == {0: 1.0, 2: 3.5}
    assert last({"seeds": [], "learning": {}}) == {}


def test_a_goal_is_reached_between_two_looks() -> None:
    # Seed 0 falls from 16 to 4 in ten steps: to 8 in half of them. Seed 2 is there at the first look.
    assert reached(SIDE, {0: 8.0, 2: 4.5}) == pytest.approx({0: 15.0, 2: 10.0})
    assert reached(SIDE, {0: 4.0, 2: 3.0}) == pytest.approx({0: 20.0, 2: 20.0})
    assert reached(SIDE, {0: 0.5, 1: 1.0}) == {0: math.inf}


def test_quotients_are_of_equal_seeds() -> None:
    assert quotients({0: 3.0, 1: 8.0, 2: 5.0}, {2: 10.0, 0: 2.0}) == [1.5, 0.5]
    assert quotients({0: 3.0}, {0: 0.0}) == [math.inf]


def test_a_spread_is_written_where_there_is_one() -> None:
    assert spread([2.0]) == "2"
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert spread([1.0, math.inf, math.inf]) == "∞ (1 to ∞)"
