"""What is particular to the transformer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rheos.core import InputError, Rng, ShapeError
from rheos.nn import DiT, seeded
from rheos.nn.attention import attend
from rheos.nn.dit import Block, positions


def test_positions_are_sinusoids_of_column_then_row():
    table = positions((2, 3), 8)
    assert table.shape == (6, 8)
    # Token 5 stands in row 1, column 2; the two frequencies are 1 and 1/100.
    at = [(2.0, math.sin), (0.02, math.sin), (2.0, math.cos), (0.02, math.cos)]
    at += [(1.0, math.sin), (0.01, math.sin), (1.0, math.cos), (0.01, math.cos)]
    torch.testing.assert_close(table[5], torch.tensor([function(angle) for angle, function in at]))
    assert len({tuple(row.tolist()) for row in table}) == 6


def test_a_fresh_block_is_the_identity():
    with seeded(0):
        net = DiT(1, 4, 2, 16, 1, 2)
    x, c = Rng(0).normal(2, 5, 16), Rng(1).normal(2, 1, 16)
    block = net.blocks[0]
    assert isinstance(block, Block)
    assert torch.equal(block(x, c), x)


def test_each_gate_opens_its_own_branch():
    net = DiT(1, 4, 2, 16, 1, 2)
    block = net.blocks[0]
    assert isinstance(block, Block)
    for layer, value in ((block.out, 1.0), (block.second, 10.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    with torch.no_grad():
        block.modulation.bias.copy_(torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0, 3.0]).repeat_interleave(16))
    x = Rng(0).normal(2, 5, 16)
    torch.testing.assert_close(block(x, torch.zeros(2, 1, 16)), x + 2 * 1 + 3 * 10)


def test_tokens_return_to_the_place_of_their_patch():
    net = DiT(3, (4, 8), 2, 16, 1, 2)
    nn.init.eye_(net.enter.weight)
    nn.init.eye_(net.leave.weight)
    net.positions.zero_()
    x = Rng(0).normal(2, 3, 4, 8)

    # Between identities there remains the layer norm of each patch's twelve numbers and four zeros.
    def patch(image, row, column):
        return image[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1)

    out = net(x, 0.5)
    for row in range(2):
        for column in range(4):
            whole = torch.cat([patch(x, row, column), torch.zeros(2, 4)], 1)
            expected = (whole - whole.mean(1, keepdim=True)) / whole.std(1, keepdim=True, correction=0)
            torch.testing.assert_close(patch(out, row, column), expected[:, :12], atol=1e-4, rtol=1e-4)


def test_positions_tell_patches_apart():
    with seeded(0):
        net = DiT(1, 4, 2, 16, 1, 2)
        nn.init.normal_(net.leave.weight)
    out = net(torch.ones(1, 1, 4, 4), 0.5)
    assert (out[..., :2, :2] - out[..., 2:, :2]).abs().max() > 1e-2
    assert (out[..., :2, :2] - out[..., :2, 2:]).abs().max() > 1e-2


def test_attention_to_equal_keys_is_the_mean_of_values():
    qkv = Rng(0).normal(2, 5, 3, 8)
    qkv[:, :, 1] = qkv[:, :1, 1]
    mean = qkv[:, :, 2].mean(1, keepdim=True).expand(2, 5, 8)
    torch.testing.assert_close(attend(qkv.flatten(2), 2), mean)


def test_heads_do_not_mix():
    qkv = Rng(0).normal(1, 4, 3, 8)
    other = qkv.clone()
    other[..., 4:] += 1.0
    first, second = attend(qkv.flatten(2), 2), attend(other.flatten(2), 2)
    torch.testing.assert_close(first[..., :4], second[..., :4])
    assert not torch.allclose(first[..., 4:], second[..., 4:])


def test_normalised_queries_and_keys_have_no_length():
    norms = nn.RMSNorm(4, eps=1e-12), nn.RMSNorm(4, eps=1e-12)
    qkv = Rng(0).normal(1, 4, 3, 8)
    longer = qkv * torch.tensor([5.0, 3.0, 1.0])[:, None]
    torch.testing.assert_close(attend(longer.flatten(2), 2, norms), attend(qkv.flatten(2), 2, norms))
    assert not torch.allclose(attend(longer.flatten(2), 2), attend(qkv.flatten(2), 2))


def test_impossible_transformers_are_refused():
    with pytest.raises(InputError, match="tile"):
        DiT(1, 5, 2)
    with pytest.raises(InputError, match="multiple of 4"):
        DiT(1, 4, 2, 18, 1, 3)
    with pytest.raises(InputError, match="depth=0"):
        DiT(1, 4, 2, 16, 0, 2)
    with pytest.raises(ShapeError, match="8"):
        DiT(1, 4, 2, 16, 1, 2)(torch.randn(1, 1, 8, 8), 0.5)
