"""The U-Net of ADM (Dhariwal and Nichol 2021, "Diffusion models beat GANs on image synthesis", section 3).

A residual block normalises, convolves, normalises again, and lets time and condition scale and shift the result::

    h = conv1(resample(silu(norm1(x))))
    h = conv2(silu(norm2(h) * (1 + scale) + shift))
    x = skip(resample(x)) + h

Blocks halve and double the resolution themselves; self-attention stands at the chosen resolutions. ``conv2``,
attention's output and the last convolution start at zero, so a fresh network gives exactly zero and every residual
block is its own skip path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core import Cond, InputError, ShapeError
from .attention import attend
from .embedding import Embedding
from .weights import zeroed

Film = tuple[Tensor, Tensor]
"""The factor and the shift of one block's features, each ``(B, C, 1, 1)``; B is 1 when all rows share them."""


@final
class UNet(nn.Module):
    """ADM's U-Net: ``net(x, t, cond)`` with x of shape ``(B, channels, H, W)`` gives ``(B, out_channels, H, W)``.

    H and W are free, as long as ``patch * 2**(levels - 1)`` divides them.

    ``net.to(memory_format=torch.channels_last)`` trains faster, whatever the layout of the state. In that layout
    PyTorch has no forward-mode and no vectorised derivative of group normalisation (``torch.func.jvp``, ``vmap``); in
    the layout that a fresh network has, it has both. For attention see :func:`~rheos.nn.attention.attend`.

    Args:
        channels: channels of the state.
        width: features at the first level.
        multipliers: features of each level, in units of ``width``; their number is the number of levels.
        blocks: residual blocks a level.
        attention: factors of downsampling, powers of 2, at which blocks are followed by self-attention; 1 is full
            resolution. The middle of the network attends when the last level does.
        head_width: features a head.
        heads: heads of every attention, instead of ``head_width``.
        patch: side of the patches of pixels that become channels first and pixels again last.
        dropout: probability of dropping a feature before each block's second convolution.
        out_channels: channels of the output; those of the state when left out.
        classes, vector, learned_null, two_times, guided: what it is told, see :class:`~rheos.nn.embedding.Embedding`.
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        *,
        head_width: int = 64,
        heads: int | None = None,
        patch: int = 1,
        dropout: float = 0.0,
        out_channels: int | None = None,
        classes: int = 0,
        vector: int = 0,
        learned_null: bool = True,
        two_times: bool = False,
        guided: bool = False,
    ) -> None:
        super().__init__()
        if min(channels, width, blocks, patch, len(multipliers)) < 1:
            raise InputError(
                "a UNet needs at least one channel, feature, level, block and pixel a patch; got "
                f"channels={channels}, width={width}, multipliers={tuple(multipliers)}, blocks={blocks}, patch={patch}."
            )
        factors = [2**level for level in range(len(multipliers))]
        if stray := sorted(set(attention) - set(factors)):
            raise InputError(
                f"attention stands at some of the factors {factors} of this network's levels, got {stray}."
            )
        self.channels, self.patch, self.factor = channels, patch, patch * factors[-1]
        self.embedding = Embedding(4 * width, width, classes, vector, learned_null, two_times, guided)
        outside = (channels if out_channels is None else out_channels) * patch**2

        def attends(level: int, features: int) -> list[nn.Module]:
            if factors[level] not in attention:
                return []
            return [Attention(features, heads or max(features // head_width, 1))]

        widths = [width * multiplier for multiplier in multipliers]
        last, now = len(widths) - 1, widths[0]
        self.enter = nn.Conv2d(channels * patch**2, now, 3, padding=1)
        skips = [now]
        self.down = nn.ModuleList()
        for level, features in enumerate(widths):
            if level:
                self.down.append(Stage(ResBlock(now, now, dropout, nn.AvgPool2d(2))))
                skips.append(now)
            for _ in range(blocks):
                self.down.append(Stage(ResBlock(now, features, dropout), *attends(level, features)))
                skips.append(now := features)
        self.middle = Stage(ResBlock(now, now, dropout), *attends(last, now), ResBlock(now, now, dropout))
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for block in range(blocks + 1):
                layers = [ResBlock(now + skips.pop(), now := widths[level], dropout), *attends(level, now)]
                if level and block == blocks:
                    layers.append(ResBlock(now, now, dropout, nn.Upsample(scale_factor=2, mode="nearest")))
                self.up.append(Stage(*layers))
        self.norm = nn.GroupNorm(groups(now), now)
        self.leave = zeroed(nn.Conv2d(now, outside, 3, padding=1))
        # One product gives every block its scale and shift; in the order in which the blocks run.
        self.features = [module.features for module in self.modules() if isinstance(module, ResBlock)]
        self.film = nn.Linear(4 * width, 2 * sum(self.features))

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        cond: Cond | None = None,
        s: Tensor | float | None = None,
        scale: Tensor | float | None = None,
    ) -> Tensor:
        """The output at state ``x`` and time ``t`` of shape ``()`` or ``(B,)``, in [0, 1]; of a network of two times
        for a step that ends at ``s``, of such a shape too, or at ``t`` when left out; of a guided one under guidance
        of ``scale``, of such a shape too, or 1 when left out.

        Raises:
            ShapeError: if the state, the time or the condition does not fit.
            InputError: if the condition is not of the kind that the network was built for.
        """
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ShapeError(f"this UNet takes images (B, {self.channels}, H, W), got {tuple(x.shape)}.")
        if x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ShapeError(
                f"this UNet halves images of {self.patch} x {self.patch} patches: height and width must be "
                f"multiples of {self.factor}, got {x.shape[2]} x {x.shape[3]}; resize the images, or use fewer levels."
            )
        film = self._film(self.embedding(x, t, cond, s, scale))
        h = self.enter(functional.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        skips = [h]
        for stage in self.down:
            h = stage(h, film)
            skips.append(h)
        h = self.middle(h, film)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], 1), film)
        h = self.leave(functional.silu(self.norm(h)))
        return (functional.pixel_shuffle(h, self.patch) if self.patch > 1 else h).to(x.dtype)

    def _film(self, embedding: Tensor) -> Iterator[Film]:
        scale, shift = self.film(functional.silu(embedding))[..., None, None].chunk(2, 1)
        return iter(zip((scale + 1).split(self.features, 1), shift.split(self.features, 1), strict=True))


@final
class Stage(nn.Module):
    """Blocks and attention, one after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, film: Iterator[Film]) -> Tensor:
        for layer in self.layers:
            x = layer(x, *next(film)) if isinstance(layer, ResBlock) else layer(x)
        return x


@final
class ResBlock(nn.Module):
    """The residual block of the module's page, ``features`` wide, with its resampling."""

    def __init__(self, inside: int, features: int, dropout: float, resample: nn.Module | None = None) -> None:
        super().__init__()
        self.features = features
        self.norm1 = nn.GroupNorm(groups(inside), inside)
        self.resample = resample or nn.Identity()
        self.conv1 = nn.Conv2d(inside, features, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups(features), features)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = zeroed(nn.Conv2d(features, features, 3, padding=1))
        self.skip = nn.Conv2d(inside, features, 1) if inside != features else nn.Identity()

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        h = self.conv1(self.resample(functional.silu(self.norm1(x))))
        h = torch.addcmul(shift, self.norm2(h), scale)
        h = self.conv2(self.dropout(functional.silu(h)))
        return self.skip(self.resample(x)) + h


@final
class Attention(nn.Module):
    """Self-attention over the pixels, added to its input."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        if features % heads:
            raise InputError(f"{features} features do not divide into {heads} heads; choose another number of heads.")
        self.heads = heads
        self.norm = nn.GroupNorm(groups(features), features)
        self.qkv = nn.Linear(features, 3 * features)
        self.out = zeroed(nn.Linear(features, features))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        tokens = self.out(attend(self.qkv(tokens), self.heads))
        return x + tokens.transpose(1, 2).reshape(x.shape)


def groups(features: int) -> int:
    """Groups of the normalisation: 32 as published, fewer in narrow layers so that a group has 4 features or more."""
    most = min(32, max(features // 4, 1))
    return next(count for count in range(most, 0, -1) if features % count == 0)
