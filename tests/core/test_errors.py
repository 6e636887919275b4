"""Errors: one root, standard bases, and a hint at the nearest name."""

from __future__ import annotations

import pytest

from rheos.core import errors
from rheos.core.errors import (
    CheckpointError,
    DataError,
    InputError,
    MissingExtraError,
    RheosError,
    ShapeError,
    UndeterminedError,
)


@pytest.mark.parametrize("kind", [ShapeError, UndeterminedError, DataError, CheckpointError])
def test_every_input_error_is_a_value_error_of_rheos(kind: type[Exception]) -> None:
    assert issubclass(kind, InputError)
    assert issubclass(kind, ValueError)
    assert issubclass(kind, RheosError)


def test_a_missing_extra_is_an_import_error() -> None:
    assert issubclass(MissingExtraError, ImportError)
    assert issubclass(MissingExtraError, RheosError)


def test_nearest_suggests_one_name_and_lists_all_in_order() -> None:
    assert errors.nearest("hun", ["rk4", "heun", "euler"]) == "did you mean 'heun'? Known: euler, heun, rk4."


def test_nearest_suggests_nothing_far_away() -> None:
    assert errors.nearest("zzz", ("b", "a")) == "Known: a, b."


def test_nearest_takes_half_of_the_letters_as_near_enough() -> None:
    assert errors.nearest("abxy", ["abcd"]) == "did you mean 'abcd'? Known: abcd."
    assert errors.nearest("axyz", ["abcd"]) == "Known: abcd."
