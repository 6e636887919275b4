"""The diffusion transformer, DiT (Peebles and Xie 2023, "Scalable diffusion models with transformers").

Patches of the image are tokens with fixed positions. In every block, time and condition give six vectors, by which the
two branches are shifted, scaled and gated (adaLN-zero)::

    x = x + gate1 * attention(norm(x) * (1 + scale1) + shift1)
    x = x + gate2 * perceptron(norm(x) * (1 + scale2) + shift2)

The layers that give the six vectors, and the last layer, start at zero: a fresh network gives exactly zero, and every
block starts as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core import Cond, InputError, ShapeError
from .attention import attend
from .embedding import Embedding
from .weights import zeroed

EPSILON = 1e-6
"""Added to variances and mean squares by every normalisation, as published."""


@final
class DiT(nn.Module):
    """A diffusion transformer: ``net(x, t, cond)`` with x ``(B, channels, *size)`` gives ``(B, out_channels, *size)``.

    Args:
        channels: channels of the state.
        size: height and width of the state, or the side of a square.
        patch: side of a patch.
        width: features of a token; a multiple of 4 and of ``heads``.
        depth: the number of blocks.
        heads: heads of each attention.
        ratio: width of the perceptrons' hidden layer, in units of ``width``.
        qk_norm: normalise queries and keys to a learned root mean square (Henry et al. 2020, Dehghani et al. 2023),
            which keeps attention from saturating in long training. The published DiT has none.
        dropout: probability of dropping a feature of each branch's output.
        out_channels: channels of the output; those of the state when left out.
        classes, vector, learned_null, two_times, guided: what it is told, see :class:`~rheos.nn.embedding.Embedding`.
        frequencies: sinusoids of the time.
    """

    positions: Tensor

    def __init__(
        self,
        channels: int,
        size: int | Sequence[int],
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        *,
        ratio: float = 4.0,
        qk_norm: bool = True,
        dropout: float = 0.0,
        out_channels: int | None = None,
        classes: int = 0,
        vector: int = 0,
        learned_null: bool = True,
        two_times: bool = False,
        guided: bool = False,
        frequencies: int = 256,
    ) -> None:
        super().__init__()
        height, breadth = (size, size) if isinstance(size, int) else size
        if min(channels, height, breadth, patch, width, depth, heads) < 1:
            raise InputError(
                f"a DiT needs positive numbers, got channels={channels}, size={height} x {breadth}, patch={patch}, "
                f"width={width}, depth={depth}, heads={heads}."
            )
        if height % patch or breadth % patch:
            raise InputError(f"patches of {patch} x {patch} do not tile {height} x {breadth}; choose another patch.")
        if width % 4 or width % heads:
            raise InputError(f"width must be a multiple of 4 and of heads={heads}, got {width}.")
        self.shape, self.patch = (channels, height, breadth), patch
        self.grid = height // patch, breadth // patch
        outside = channels if out_channels is None else out_channels
        self.embedding = Embedding(width, frequencies, classes, vector, learned_null, two_times, guided)
        self.enter = nn.Linear(channels * patch**2, width)
        self.register_buffer("positions", positions(self.grid, width), persistent=False)
        hidden = int(ratio * width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, qk_norm, dropout) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, outside * patch**2)
        self._initialise()

    def _initialise(self) -> None:
        """The published first weights: Glorot and Bengio's uniform, small embeddings, zeros where the page says."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.startswith("embedding.time"):
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Block | DiT):
                zeroed(module.modulation)
        zeroed(self.leave)
        self.embedding.still()

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
        if x.shape[1:] != self.shape or not x.dim():
            raise ShapeError(f"this DiT takes images {('B', *self.shape)}, got {tuple(x.shape)}.")
        c = functional.silu(self.embedding(x, t, cond, s, scale))[:, None]
        h = self.enter(functional.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)) + self.positions
        for block in self.blocks:
            h = block(h, c)
        last = self.modulation(c).chunk(2, -1)
        h = self.leave(modulated(h, *last)).transpose(1, 2).unflatten(2, self.grid)
        return functional.pixel_shuffle(h, self.patch).to(x.dtype)


@final
class Block(nn.Module):
    """One block of the module's page."""

    def __init__(self, width: int, heads: int, hidden: int, qk_norm: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.q_norm = nn.RMSNorm(width // heads, eps=EPSILON) if qk_norm else None
        self.k_norm = nn.RMSNorm(width // heads, eps=EPSILON) if qk_norm else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c).chunk(6, -1)
        norms = None if self.q_norm is None or self.k_norm is None else (self.q_norm, self.k_norm)
        h = attend(self.qkv(modulated(x, shift1, scale1)), self.heads, norms)
        x = x + gate1 * self.dropout(self.out(h))
        h = self.second(functional.gelu(self.first(modulated(x, shift2, scale2)), approximate="tanh"))
        return x + gate2 * self.dropout(h)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``norm(x) * (1 + scale) + shift`` for tokens ``(B, N, D)``; shift and scale ``(B or 1, 1, D)``."""
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=EPSILON), 1 + scale)


def positions(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed positions ``(rows * columns, width)``: half sines and cosines of the column, half of the row.

    Frequencies go from 1 down to nearly 1/10000 in geometric progression, ``width / 4`` of them an axis.
    """
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(10_000.0) / (width // 4)))
    row, column = torch.meshgrid(*(torch.arange(float(count)) for count in grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (column, row)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], -1)
