"""Time and condition embeddings."""

from __future__ import annotations

import math

import pytest
import torch

from rheos.core import InputError
from rheos.nn import Embedding, sinusoids


def test_sinusoids_at_zero_and_at_the_ends_of_the_frequencies():
    t = torch.tensor([0.0, math.pi / 64, 1.0], dtype=torch.float64)
    out = sinusoids(t, 8)
    assert out.shape == (3, 8)
    # At t = 0 every cosine is one and every sine is zero; the fastest pair turns half round in pi / 64.
    torch.testing.assert_close(out[0], torch.tensor([1.0] * 4 + [0.0] * 4, dtype=torch.float64))
    torch.testing.assert_close(out[1, [0, 4]], torch.tensor([-1.0, 0.0], dtype=torch.float64))
    # Of the four frequencies 64, 16, 4 and 1 the slowest turns by one radian over the whole of time.
    torch.testing.assert_close(out[2, [3, 7]], torch.tensor([math.cos(1), math.sin(1)], dtype=torch.float64))
    torch.testing.assert_close(out[2, [1, 2]], torch.tensor([math.cos(16), math.cos(4)], dtype=torch.float64))


def test_pairs_have_length_one_and_narrow_times_are_widened():
    out = sinusoids(torch.rand(5).bfloat16(), 6)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[:, :3] ** 2 + out[:, 3:] ** 2, torch.ones(5, 3))


def test_an_odd_number_of_sinusoids_is_refused():
    with pytest.raises(InputError, match="even"):
        sinusoids(torch.rand(2), 5)


def test_what_all_rows_share_is_computed_once():
    embed, x = Embedding(16, 8, classes=3), torch.randn(4, 2)
    assert embed(x, torch.tensor(0.5)).shape == (1, 16)
    assert embed(x, 0.5).shape == (1, 16)
    assert embed(x, torch.rand(4)).shape == (4, 16)
    assert embed(x, torch.tensor(0.5), torch.tensor([0, 1, 2, -1])).shape == (4, 16)


def test_times_stay_wide_under_autocast():
    embed, x, t = Embedding(16, 8), torch.randn(4, 2), torch.rand(4)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = embed(x, t)
    assert torch.equal(narrow, embed(x, t))


def test_the_table_has_a_row_for_the_unknown_label_when_that_is_learned():
    assert Embedding(16, 8, classes=3).table.weight.shape == (4, 16)
    assert Embedding(16, 8, classes=3, learned_null=False).table.weight.shape == (3, 16)


def test_an_empty_batch_passes():
    assert Embedding(16, 8, classes=3)(torch.randn(0, 2), 0.5, torch.zeros(0, dtype=torch.long)).shape == (0, 16)


def test_negative_counts_are_refused():
    with pytest.raises(InputError, match="-1"):
        Embedding(16, 8, classes=-1)
