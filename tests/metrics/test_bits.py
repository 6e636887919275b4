"""Bits per dimension of densities whose bits are known."""

from __future__ import annotations

import math

import pytest
import torch

from rheos.core import InputError, Rng
from rheos.metrics import bits_per_dimension, dequantise


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 256.0)])
def test_uniform_noise_has_eight_bits(low: float, high: float) -> None:
    log_prob = torch.full((3,), -192 * math.log(high - low), dtype=torch.float64)
    assert bits_per_dimension(log_prob, 192, low=low, high=high).tolist() == pytest.approx([8.0] * 3, abs=1e-12)


def test_a_sure_level_has_no_bits() -> None:
    # All mass uniform on one cell of width 2/17.
    log_prob = torch.tensor([64 * math.log(17 / 2)], dtype=torch.float64)
    assert float(bits_per_dimension(log_prob, 64, levels=17)) == pytest.approx(0.0, abs=1e-12)


def test_one_bit_of_log_density_is_one_bit() -> None:
    bits = bits_per_dimension(torch.tensor([0.0, -math.log(2.0)], dtype=torch.float64), 1)
    assert float(bits[1] - bits[0]) == pytest.approx(1.0, abs=1e-12)


def test_dequantised_levels_fill_their_cells() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(40, 1)
    x = dequantise(images, 0)
    assert x.dtype == torch.float32
    assert float(x.min()) >= -1.0
    assert float(x.max()) <= 1.0
    place = (x.double() + 1) * 128 - images
    assert float(place.min()) > -1e-4
    assert float(place.max()) < 1 + 1e-4
    assert float(place.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(place.var()) == pytest.approx(1 / 12, abs=0.005)


def test_each_row_has_its_own_noise_whatever_its_batch() -> None:
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    whole = dequantise(images, 5)
    assert torch.equal(dequantise(images[2:4], Rng(5).rows(torch.tensor([2, 3]))), whole[2:4])
    assert not torch.equal(whole[0], whole[1])


def test_refusals() -> None:
    with pytest.raises(InputError, match="integers"):
        dequantise(torch.zeros(2, 3), 0)
    with pytest.raises(InputError, match=r"0 \.\. 16"):
        dequantise(torch.tensor([[17]]), 0, levels=17)
    with pytest.raises(InputError, match="dims"):
        bits_per_dimension(torch.zeros(1), 0)
    with pytest.raises(InputError, match="high > low"):
        bits_per_dimension(torch.zeros(1), 1, low=1.0, high=1.0)
