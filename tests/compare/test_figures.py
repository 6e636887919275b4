"""Reading a comparison's figures: by hand."""

from __future__ import annotations

import math

import pytest

from rheos.compare.figures import (
    last,
    middle,
    plain_flow,
    quality,
    quotients,
    reached,
    seconds,
    spread,
    steps,
    to_equal,
)

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


def test_equal_quality_is_the_worse_of_two_ends() -> None:
    other = {"seeds": [2, 0], "learning": {"10": [8.0, 8.0], "40": [4.0, 2.0]}}
    # Seed 0 ends at 1 and 2: the first is at 2 by step 25 of 30, the other at its end. Seed 2 ends at 3.5 and 4: the
    # first is there at its first look.
    assert to_equal(SIDE, other) == pytest.approx([25 / 30, 10 / 30])
    assert to_equal(other, SIDE) == pytest.approx([30 / 10, 30 / 25])
    assert (steps(SIDE), steps(other)) == (30, 40)
    assert to_equal(SIDE, {"seeds": [], "learning": {}}) == []


def test_the_flow_on_straight_lines_stands_for_all() -> None:
    sides = {name: {"family": family} for name, family in (("v", "diffusion"), ("flow-ot", "flow"), ("flow", "flow"))}
    assert plain_flow(sides) is sides["flow"]
    del sides["flow"]
    assert plain_flow(sides) is sides["flow-ot"]
    assert plain_flow({"v": sides["v"]}) is None


def test_quotients_are_of_equal_seeds() -> None:
    assert quotients({0: 3.0, 1: 8.0, 2: 5.0}, {2: 10.0, 0: 2.0}) == [1.5, 0.5]
    assert quotients({0: 3.0}, {0: 0.0}) == [math.inf]


def test_a_spread_is_written_where_there_is_one() -> None:
    assert spread([2.0]) == "2"
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert spread([1.0, math.inf, math.inf]) == "∞ (1 to ∞)"
