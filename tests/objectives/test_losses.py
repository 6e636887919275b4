"""Distances and sources in plain numbers."""

from __future__ import annotations

import math

import pytest
import torch

from rheos.core import InputError, Rng
from rheos.objectives import Normal, PseudoHuber, Squared


def test_the_squared_error_is_the_mean_over_a_rows_entries() -> None:
    prediction = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    target = torch.tensor([[[1.0, 0.0], [0.0, 4.0]], [[2.0, 2.0], [2.0, 0.0]]])
    assert Squared()(prediction, target).tolist() == [13 / 4, 3.0]


def test_the_pseudo_huber_loss_in_plain_numbers() -> None:
    prediction, target = (
        torch.tensor([[3.0, 0.0], [1.0, 1.0]]).double(),
        torch.tensor([[0.0, 4.0], [1.0, 1.0]]).double(),
    )
    c = 0.5 * math.sqrt(2)
    expected = [(math.sqrt(25 + c * c) - c) / math.sqrt(2), 0.0]
    assert PseudoHuber(0.5)(prediction, target).tolist() == pytest.approx(expected, rel=1e-12)
    images = PseudoHuber(0.5)(prediction.reshape(2, 1, 2), target.reshape(2, 1, 2))
    assert images.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_pseudo_huber_loss_is_a_square_near_by_and_a_size_far_away() -> None:
    zero = torch.zeros(1, 4, dtype=torch.float64)
    near, far = torch.full_like(zero, 1e-4), torch.full_like(zero, 1e6)
    # |e|**2/(2c)/sqrt(d) with |e|**2 = d*e**2 and c = scale*sqrt(d): e**2/(2*scale).
    assert float(PseudoHuber(2.0)(near, zero)) == pytest.approx(1e-8 / 4, rel=1e-6)
    assert float(PseudoHuber(2.0)(far, zero)) == pytest.approx(1e6, rel=1e-5)
    assert PseudoHuber().scale == 0.00054


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_the_scale_is_positive(scale: float) -> None:
    with pytest.raises(InputError, match=f"pseudo-Huber loss must be positive, got {scale}"):
        PseudoHuber(scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_noise_is_a_key_a_row_like_the_data(dtype: torch.dtype) -> None:
    rng = Rng(3).rows(torch.arange(4))
    noise = Normal()(rng, torch.zeros(4, 2, 3, dtype=dtype))
    assert torch.equal(noise, rng.normal(2, 3, dtype=dtype))
    assert noise.dtype == dtype
