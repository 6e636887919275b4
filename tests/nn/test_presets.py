"""The published networks have the published numbers of parameters."""

from __future__ import annotations

import pytest
import torch

from rheos import nn


@pytest.mark.parametrize(
    ("preset", "positions", "exact", "published"),
    [
        # "published" is in millions, as the papers print them; the exact counts pin the structure behind them.
        (nn.adm64, 0, 295_904_454, 295.90),
        (nn.adm128, 0, 421_529_606, 421.53),
        (nn.adm256, 0, 553_838_086, 553.84),
        # DiT's own count includes its fixed positions, 256 tokens wide as the network; ours are a buffer.
        (nn.dit_s2, 256 * 384, 32_963_360, 33),
        (nn.dit_b2, 256 * 768, 130_512_416, 130),
        (nn.dit_l2, 256 * 1024, 458_102_816, 458),
        (nn.dit_xl2, 256 * 1152, 675_129_632, 675),
    ],
)
def test_counts(preset, positions, exact, published):
    with torch.device("meta"):
        net, flow = preset(variance=True), preset()
    assert sum(buffer.numel() for buffer in net.buffers()) == positions
    count = nn.parameter_count(net) + positions
    assert count == exact
    assert abs(count / 1e6 - published) < (0.005 if isinstance(published, float) else 0.6)
    # A flow needs no variance: half the output's channels, in the last layer only.
    assert 0 < nn.parameter_count(net) - nn.parameter_count(flow) < 2e-4 * count


def test_a_published_network_carries_images_on_the_meta_device():
    with torch.device("meta"):
        net = nn.adm64()
        assert net(torch.empty(2, 3, 64, 64), torch.empty(2), torch.empty(2, dtype=torch.long)).shape == (2, 3, 64, 64)
        assert nn.dit_s2(variance=True)(torch.empty(2, 4, 32, 32), torch.empty(())).shape == (2, 8, 32, 32)
