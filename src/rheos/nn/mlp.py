"""A residual perceptron for states that are vectors, or small enough to be flattened into one.

Every layer is told the time and the condition anew::

    h = h + layer(silu(h + shift(t, cond)))

The last layer starts at zero, so a fresh network gives exactly zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from ..core import Cond, InputError, ShapeError
from .embedding import Embedding
from .weights import zeroed


@final
class MLP(nn.Module):
    """A residual perceptron: ``net(x, t, cond)`` with x of shape ``(B, *shape)`` gives the same shape.

    Args:
        shape: the shape of one state, or its dimension.
        width: features of the hidden layers.
        depth: the number of hidden layers.
        dropout: probability of dropping a feature before each layer.
        classes, vector, learned_null, two_times, guided: what it is told, see :class:`~rheos.nn.embedding.Embedding`.
        frequencies: sinusoids of the time.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        width: int = 256,
        depth: int = 4,
        *,
        dropout: float = 0.0,
        classes: int = 0,
        vector: int = 0,
        learned_null: bool = True,
        two_times: bool = False,
        guided: bool = False,
        frequencies: int = 64,
    ) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if min(*self.shape, width, depth, 1) < 1 or not self.shape:
            raise InputError(
                "an MLP needs a state of at least one number, one feature and one layer; got "
                f"shape={self.shape}, width={width}, depth={depth}."
            )
        size = math.prod(self.shape)
        self.embedding = Embedding(width, frequencies, classes, vector, learned_null, two_times, guided)
        self.enter = nn.Linear(size, width)
        self.shift = nn.Linear(width, depth * width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.leave = zeroed(nn.Linear(width, size))

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
            raise ShapeError(f"this MLP takes states {('B', *self.shape)}, got {tuple(x.shape)}.")
        shifts = self.shift(functional.silu(self.embedding(x, t, cond, s, scale))).chunk(len(self.layers), -1)
        h = self.enter(x.flatten(1))
        for layer, shift in zip(self.layers, shifts, strict=True):
            h = h + layer(self.dropout(functional.silu(h + shift)))
        return self.leave(functional.silu(h)).reshape(x.shape).to(x.dtype)
