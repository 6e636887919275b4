"""The derivative of a network's output in time: exact, or by a difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.errors import InputError
from ..core.time import factor

Derivative = Literal["exact", "difference"]

WITHOUT = ("forward", "view size")
"""What PyTorch says of layers without a forward-mode derivative; the second of normalisation in channels-last."""

REACH = {torch.float64: 1e-5, torch.float32: 1e-3}
"""How far a difference looks to either side. In float32 a thousandth follows the fastest sinusoid of a network's time,
of 64 radians, to .07 %, and rounding adds .01 %."""


def derivative(function: Callable[[Tensor], Tensor], t: Tensor, how: Derivative) -> Tensor:
    """``d function(t) / dt``, without a gradient, one time a row.

    It is taken in the type of the times and states, whatever autocast computes in elsewhere: what a tangent or a small
    difference tells is lost in bfloat16. Attention runs without its fused kernels, which have no such derivative.

    Args:
        function: of times (B,), to (B, ...); a row of the one depends on that row of the other.
        t: the times, in [0, 1], float32 or float64.
        how: "exact" for forward-mode differentiation; "difference" for two evaluations, a little before and a little
            after. No time leaves [0, 1]: at an end the difference is one-sided.

    Raises:
        InputError: if a layer of the network has no exact derivative.
    """
    with torch.no_grad(), torch.autocast(t.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
        if how == "difference":
            before, after = (t - REACH[t.dtype]).clamp(min=0.0), (t + REACH[t.dtype]).clamp(max=1.0)
            change = function(after) - function(before)
            return change / factor(after - before, change)
        try:
            return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]
        except (RuntimeError, NotImplementedError) as error:
            if not any(words in str(error) for words in WITHOUT):
                raise
            raise InputError(
                "the network has no forward-mode derivative in the layout that it has "
                f'({str(error).splitlines()[0].rstrip(".")}); take derivative="difference".'
            ) from error
