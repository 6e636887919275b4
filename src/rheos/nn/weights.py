"""Weights: drawn from a key, and counted.

PyTorch's layers draw their first weights from the global generator. :func:`seeded` lends that generator to a block of
code, started from a key, and puts back the state that it found: so weights are a function of the key alone, and nothing
outside the block notices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from ..core import InputError, Rng, Stream

L = TypeVar("L", nn.Linear, nn.Conv2d)


@contextmanager
def seeded(rng: Rng | torch.Generator | int) -> Iterator[None]:
    """Build networks whose first weights are a function of ``rng``; the global generator is left as it was found.

    Only the CPU's generator is lent: build a network on the CPU and move it, and one key gives the same weights on
    every device.

    >>> with seeded(7):
    ...     net = nn.Linear(2, 2)

    Raises:
        InputError: if ``rng`` has a key a row; a network needs a single one.
    """
    key = Rng.of(rng)
    if key.row is not None:
        raise InputError(f"a network is drawn from a single key, got an Rng of {len(key.row)} rows; give one seed.")
    generator = torch.default_generator
    found = generator.get_state()
    generator.manual_seed(int(key.fold(Stream.WEIGHTS).key))
    try:
        yield
    finally:
        generator.set_state(found)


def parameter_count(module: nn.Module) -> int:
    """The number of parameters, shared ones once. Buffers, such as fixed position embeddings, are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def zeroed(layer: L) -> L:
    """The layer with weight and bias at zero: what it feeds starts as if the layer were not there."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
