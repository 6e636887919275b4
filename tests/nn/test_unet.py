"""What is particular to the U-Net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rheos.core import InputError, Rng, ShapeError
from rheos.nn import UNet, parameter_count, seeded
from rheos.nn.unet import Attention, ResBlock, groups


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (4, 12)])
def test_sizes_are_free(size):
    net = UNet(3, 16, (1, 2, 2), 1, (4,), out_channels=5)
    assert net(torch.randn(2, 3, *size), 0.5).shape == (2, 5, *size)


def test_sizes_that_cannot_be_halved_are_refused():
    with pytest.raises(ShapeError, match=r"multiples of 4, got 30 x 28"):
        UNet(1, 16, (1, 2), 1, patch=2)(torch.randn(1, 1, 30, 28), 0.5)
    with pytest.raises(ShapeError, match=r"\(B, 1, H, W\)"):
        UNet(1, 16)(torch.randn(1, 3, 8, 8), 0.5)


def test_attention_stands_where_it_was_asked_for():
    def attentions(*factors: int) -> int:
        return sum(isinstance(module, Attention) for module in UNet(1, 16, (1, 2), 1, factors).modules())

    # One a block: one on the way down, two on the way up, and the middle with the last level.
    assert (attentions(), attentions(1), attentions(2), attentions(1, 2)) == (0, 3, 4, 7)


def test_a_fresh_residual_block_is_its_own_skip_path():
    x, one, zero = torch.randn(2, 8, 4, 4), torch.ones(1, 8, 1, 1), torch.zeros(1, 8, 1, 1)
    assert torch.equal(ResBlock(8, 8, 0.0)(x, one, zero), x)
    pooled = ResBlock(8, 8, 0.0, nn.AvgPool2d(2))(x, one, zero)
    torch.testing.assert_close(pooled, x.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5)))
    grown = ResBlock(8, 8, 0.0, nn.Upsample(scale_factor=2))(x, one, zero)
    assert torch.equal(grown, x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(Attention(8, 2)(x), x)


def test_scale_and_shift_act_on_the_normalised_features():
    with seeded(0):
        block = ResBlock(8, 8, 0.0)
        nn.init.dirac_(block.conv2.weight)
    x = Rng(0).normal(2, 8, 4, 4)
    scale, shift = torch.zeros(1, 8, 1, 1), torch.full((1, 8, 1, 1), 20.0)
    # Nothing is left of the features at a scale of zero; silu(20) is 20 to eight digits.
    torch.testing.assert_close(block(x, scale, shift), x + 20.0)


def test_time_at_first_changes_features_a_little_not_wholly():
    net, seen = UNet(1, 16, (1, 2), 1), []
    nn.init.zeros_(net.film.weight)
    nn.init.zeros_(net.film.bias)
    for module in net.modules():
        if isinstance(module, ResBlock):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1:]))
    net(torch.zeros(2, 1, 4, 4), torch.tensor(0.5))
    assert len(seen) == sum(isinstance(module, ResBlock) for module in net.modules())
    assert all((scale == 1).all() and (shift == 0).all() for scale, shift in seen)


def test_attention_does_not_know_the_order_of_pixels():
    with seeded(0):
        layer = Attention(8, 2)
        nn.init.normal_(layer.out.weight)
    x, order = Rng(0).normal(2, 8, 3, 4), Rng(1).permutation(12)
    mixed = x.flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(layer(mixed), layer(x).flatten(2)[..., order].reshape(x.shape), atol=1e-5, rtol=1e-5)


def test_patches_keep_the_place_of_pixels():
    """The skip paths are local: one pixel moves only outputs near it, and in a patch's own place most of all."""
    net = UNet(1, 16, (1,), 1, patch=2)
    nn.init.dirac_(net.leave.weight)
    x = torch.zeros(1, 1, 12, 12)
    moved = x.clone()
    moved[0, 0, 0, 0] = 1.0
    with torch.no_grad():
        net.norm = nn.Identity()
        change = (net(moved, 0.5) - net(x, 0.5)).abs()[0, 0]
    assert change[:4, :4].any()
    assert not change[4:].any()
    assert not change[:, 4:].any()


@pytest.mark.parametrize(
    ("features", "expected"), [(4, 1), (16, 4), (32, 8), (96, 24), (128, 32), (192, 32), (2816, 32)]
)
def test_groups_divide_and_are_published_for_wide_layers(features, expected):
    assert groups(features) == expected


def test_the_small_network_of_the_digits_is_small():
    assert 0.6e6 < parameter_count(UNet(1, 32, (1, 2), 1, classes=10)) < 0.8e6


def test_impossible_networks_are_refused():
    with pytest.raises(InputError, match=r"factors \[1, 2\].*\[4\]"):
        UNet(1, 16, (1, 2), attention=(4,))
    with pytest.raises(InputError, match="width=0"):
        UNet(1, 0)
    with pytest.raises(InputError, match="heads"):
        UNet(1, 16, (1,), attention=(1,), heads=3)
