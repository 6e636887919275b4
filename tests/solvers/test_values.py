"""Solvers and grids are values: equal when their numbers are, and never changed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from rheos.schedules import Cosine
from rheos.solvers import (
    RK4,
    AdamsBashforth,
    Dopri5,
    DPMSolver,
    Euler,
    Heun,
    MeanCache,
    Midpoint,
    Stabilised,
    Stork,
    TeaCache,
    UniPC,
    grids,
)

MAKERS = [
    Euler,
    Heun,
    Midpoint,
    RK4,
    Dopri5,
    AdamsBashforth,
    DPMSolver,
    UniPC,
    MeanCache,
    Stabilised,
    Stork,
    TeaCache,
    grids.Uniform,
    grids.Shifted,
    grids.Cosine,
]


@pytest.mark.parametrize("make", MAKERS)
def test_equal_numbers_make_equal_values(make):
    assert make() == make()
    assert hash(make()) == hash(make())
    assert repr(make()).startswith(make.__name__)


@pytest.mark.parametrize(
    "value",
    [Dopri5(), AdamsBashforth(), DPMSolver(), UniPC(), Stork(), TeaCache(), grids.Shifted(), grids.EDM(Cosine())],
)
def test_a_value_is_never_changed(value):
    name = next(iter(value.__dataclass_fields__))
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
