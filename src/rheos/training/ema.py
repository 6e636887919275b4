r"""Averages of the weights over training, and the rebuilding of any average after it.

*Exponential*: ``ema += (1 - d) * (w - ema)`` with ``d = min(decay, (1 + n)/(10 + n))`` after n steps.

*Power function* (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", section 3):
an average at step T that weighs the weights of step t by ``(g + 1) t^g / T^(g + 1)``, which is what ``d = (1 -
1/k)^(g + 1)`` at step k gives. Its standard deviation is the same share of T at every T, its relative width
``sqrt((g + 1)/(g + 3))/(g + 2)``. Such profiles nearly span one another: an average of another width, at any step, is a
linear combination of snapshots of two widths, with the factors that bring its profile closest in least squares.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from ..core import InputError

# One call for all tensors; PyTorch offers it under this name only.
_lerp_ = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]


class Profile(NamedTuple):
    """A power-function average: its exponent g, and the step T at which it stands."""

    exponent: float
    step: float


@final
class Ema:
    """The exponential average of a module's parameters, kept in a copy that can be called like the module.

    Args:
        module: what is averaged.
        decay: the longest memory.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self._decay = decay
        self._averages: list[Tensor] = list(self.module.parameters())
        self._sources: list[Tensor] = list(module.parameters())
        self._buffers = list(zip(self.module.buffers(), module.buffers(), strict=True))

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Take in the weights after ``count`` steps."""
        weight = 1 - min(self._decay, (1 + count) / (10 + count))
        _lerp_(self._averages, self._sources, weight)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy what is not averaged, the buffers; call before the copy is used or saved."""
        for mine, source in self._buffers:
            mine.copy_(source)


@final
class PowerEma:
    """Power-function averages of a module's parameters, one a relative width.

    Args:
        module: what is averaged.
        widths: relative widths.
        stride: steps between two updates; the averages are those of every ``stride``-th state.
    """

    def __init__(self, module: nn.Module, widths: Sequence[float], stride: int) -> None:
        self.widths, self._stride = tuple(widths), stride
        self._exponents = [exponent(width) for width in widths]
        self._names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        self._sources: list[Tensor] = [p for _, p in module.named_parameters(remove_duplicate=False)]
        self._averages = [[p.detach().clone() for p in self._sources] for _ in widths]

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Take in the weights after ``count`` steps, where the stride says so."""
        if count % self._stride:
            return
        for power, averages in zip(self._exponents, self._averages, strict=True):
            _lerp_(averages, self._sources, 1 - (1 - self._stride / count) ** (power + 1))

    def tensors(self) -> dict[str, Tensor]:
        """The averages, as ``width/parameter``."""
        return {
            f"{width}/{name}": value
            for width, averages in zip(self.widths, self._averages, strict=True)
            for name, value in zip(self._names, averages, strict=True)
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave."""
        for name, value in self.tensors().items():
            value.copy_(tensors[name])


def exponent(width: float) -> float:
    """The exponent g >= 0 of relative width ``width``: the largest root of ``(g + 2)^2 (g + 3) w^2 = g + 1``.

    Raises:
        InputError: if the width lies outside (0, 12^-1/2], the widest being the flat average, g = 0.
    """
    if not 0 < width <= 12**-0.5:
        raise InputError(f"the relative width of an average lies in (0, {12**-0.5:.3f}], got {width}.")
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def overlap(a: Sequence[Profile], b: Sequence[Profile]) -> np.ndarray:
    """Inner products ``integral p_a(t) p_b(t) dt`` of profiles, float64 ``(len(a), len(b))``."""
    g, T = np.array(a, dtype=np.float64).reshape(-1, 2).T
    h, S = np.array(b, dtype=np.float64).reshape(-1, 2).T
    g, T = g[:, None], T[:, None]
    # t^(g+h) is integrated up to the earlier end; what is left of the two norms stands as ratios, which cannot
    # overflow.
    end = np.minimum(T, S)
    return (g + 1) * (h + 1) / (g + h + 1) * (end / T) ** g * (end / S) ** h * end / (T * S)


def factors(kept: Sequence[Profile], wanted: Profile) -> np.ndarray:
    """What to multiply the kept averages by so that their sum has the profile closest to ``wanted``; float64 ``(n,)``.

    Raises:
        InputError: if nothing was kept.
    """
    if not kept:
        raise InputError("no snapshots of power-function averages were kept; train with snapshots >= 1.")
    gram, right = overlap(kept, kept), overlap(kept, [wanted])[:, 0]
    scale = np.sqrt(np.diag(gram))
    # Neighbouring profiles are nearly parallel; unit norms and a cut of the smallest directions keep the factors small.
    solved = np.linalg.lstsq(gram / np.outer(scale, scale), right / scale, rcond=1e-12)[0]
    return solved / scale


@contextmanager
def lent(modules: nn.Module, weights: nn.Module) -> Iterator[None]:
    """Within the block ``modules`` hold the parameters and buffers of ``weights``, a copy of theirs; then their own
    again."""
    own = {name: value.detach().clone() for name, value in modules.state_dict().items()}
    modules.load_state_dict(weights.state_dict())
    try:
        yield
    finally:
        modules.load_state_dict(own)
