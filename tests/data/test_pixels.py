import pytest
import torch

from rheos.core import InputError, Rng
from rheos.data import flip, to_uint8, to_unit

BYTES = torch.arange(256, dtype=torch.uint8)


def test_round_trip_is_exact():
    unit = to_unit(BYTES)
    assert unit.dtype == torch.float32
    assert torch.equal(to_uint8(unit), BYTES)
    assert unit[0] == -1
    assert unit[-1] == 1
    assert torch.equal(unit.flip(0), -unit) or torch.allclose(unit.flip(0), -unit, atol=1e-6)


def test_outside_is_clamped_and_between_is_nearest():
    step = 2 / 255
    x = torch.tensor([-7.0, 9.0, float("inf"), -1 + 0.4 * step, -1 + 0.6 * step])
    assert to_uint8(x).tolist() == [0, 255, 255, 0, 1]
    assert to_uint8(x.double()).tolist() == [0, 255, 255, 0, 1]


def test_no_colour():
    with pytest.raises(InputError, match="1 of 2 values are NaN"):
        to_uint8(torch.tensor([0.0, float("nan")]))
    with pytest.raises(InputError, match="uint8"):
        to_unit(torch.zeros(2))


def test_flip_mirrors_half_of_the_rows_by_their_keys():
    x = torch.arange(400 * 6).reshape(400, 1, 2, 3)
    out = flip(x, Rng(0))
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    kept = (out == x).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 150 < int(mirrored.sum()) < 250
    rows = torch.arange(100, 130)
    assert torch.equal(flip(x[rows], Rng(0).rows(rows)), out[rows])
