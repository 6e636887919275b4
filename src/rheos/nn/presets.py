"""Published networks by name.

ADM (Dhariwal and Nichol 2021): 296 M, 422 M and 554 M parameters for class-conditional ImageNet. DiT (Peebles and Xie
2023, table 1): 33 M, 130 M, 458 M and 675 M for latents of 256 x 256 images. Both were trained to predict noise and a
variance, twice the channels of the state: ``variance=True`` gives that output and the published counts; a flow has no
variance to predict, and needs the default.
"""

from __future__ import annotations

from collections.abc import Sequence

from .dit import DiT
from .unet import UNet


def adm64(classes: int = 1000, *, channels: int = 3, variance: bool = False, dropout: float = 0.1) -> UNet:
    """ADM for ImageNet at 64 x 64: three blocks a level, attention at 32, 16 and 8."""
    return _adm(192, (1, 2, 3, 4), 3, (2, 4, 8), None, channels, classes, variance, dropout)


def adm128(classes: int = 1000, *, channels: int = 3, variance: bool = False, dropout: float = 0.0) -> UNet:
    """ADM for ImageNet at 128 x 128: attention at 32, 16 and 8, of four heads."""
    return _adm(256, (1, 1, 2, 3, 4), 2, (4, 8, 16), 4, channels, classes, variance, dropout)


def adm256(classes: int = 1000, *, channels: int = 3, variance: bool = False, dropout: float = 0.0) -> UNet:
    """ADM for ImageNet at 256 x 256: attention at 32, 16 and 8."""
    return _adm(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), None, channels, classes, variance, dropout)


def dit_s2(classes: int = 1000, *, channels: int = 4, size: int = 32, variance: bool = False) -> DiT:
    """DiT-S/2."""
    return _dit(384, 12, 6, channels, size, classes, variance)


def dit_b2(classes: int = 1000, *, channels: int = 4, size: int = 32, variance: bool = False) -> DiT:
    """DiT-B/2."""
    return _dit(768, 12, 12, channels, size, classes, variance)


def dit_l2(classes: int = 1000, *, channels: int = 4, size: int = 32, variance: bool = False) -> DiT:
    """DiT-L/2."""
    return _dit(1024, 24, 16, channels, size, classes, variance)


def dit_xl2(classes: int = 1000, *, channels: int = 4, size: int = 32, variance: bool = False) -> DiT:
    """DiT-XL/2."""
    return _dit(1152, 28, 16, channels, size, classes, variance)


def _adm(
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    heads: int | None,
    channels: int,
    classes: int,
    variance: bool,
    dropout: float,
) -> UNet:
    return UNet(
        channels,
        width,
        multipliers,
        blocks,
        attention,
        heads=heads,
        dropout=dropout,
        out_channels=2 * channels if variance else None,
        classes=classes,
        # ADM has no unconditional mode, and its table no row for one.
        learned_null=False,
    )


def _dit(width: int, depth: int, heads: int, channels: int, size: int, classes: int, variance: bool) -> DiT:
    out_channels = 2 * channels if variance else None
    return DiT(channels, size, 2, width, depth, heads, qk_norm=False, out_channels=out_channels, classes=classes)
