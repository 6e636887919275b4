"""Randomness without state: a counter hash with one key a row.

Noise for row ``i`` is a function of ``(seed, i)`` and of the streams folded in, and of nothing else: not of the batch
size, the number of processes, the order of calls, or any generator. Draw ``n`` of a key is ``mix(key + (n + 1) *
golden)`` in wrapping 64-bit integers: the Weyl sequence of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators") under a mixer of the same kind, "xor the high half into the low half, multiply",
four times over. All its shifts are by 32, because halves of a word can be read in place, while PyTorch shifts 64-bit
words ten times slower.
"""

from __future__ import annotations

import math
import sys
from enum import IntEnum
from typing import final

import torch
from torch import Tensor

from .errors import InputError, ShapeError

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xD6E8FEB86659FD93, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD = (1 << 64) - 1
_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)


class Stream(IntEnum):
    """The named streams that one key is folded into, so that no two uses of it share a number."""

    SOURCE = 1
    TIME = 2
    STEP = 3
    DROPOUT = 4
    CONDITION = 5
    COUPLING = 6
    AUGMENT = 7
    ORDER = 8
    PROBE = 9
    WEIGHTS = 10
    PATH = 11
    END = 12
    SCALE = 13


@final
class Rng:
    """A key, or a key a row, from which numbers are drawn as often as one likes with the same result.

    Args:
        seed: an integer, or int64 keys of shape ``(B,)``, one a row.
        row: for keys a row, the global row numbers ``(B,)``; stratified times read them. Counted from 0 when left out.
    """

    __slots__ = ("_base", "_row", "_salt")

    def __init__(self, seed: int | Tensor = 0, row: Tensor | None = None) -> None:
        if isinstance(seed, Tensor):
            if seed.dtype != torch.int64 or seed.dim() != 1:
                raise ShapeError(f"keys must be int64 of shape (B,), got {seed.dtype} of shape {tuple(seed.shape)}.")
            self._base: Tensor | None = seed
            self._salt = 0
            self._row = torch.arange(len(seed), device=seed.device) if row is None else row
        else:
            self._base, self._salt, self._row = None, _mix_int(int(seed) & _WORD), None

    @staticmethod
    def of(source: Rng | torch.Generator | int) -> Rng:
        """An ``Rng`` from itself, from a seed, or from one number drawn from a ``torch.Generator``."""
        if isinstance(source, Rng):
            return source
        if isinstance(source, torch.Generator):
            return Rng(int(torch.randint(1 << 62, (), generator=source, device=source.device)))
        if isinstance(source, int) and not isinstance(source, bool):
            return Rng(source)
        raise InputError(f"randomness must be an Rng, a torch.Generator or an integer seed, got {source!r}.")

    @property
    def row(self) -> Tensor | None:
        """The global row numbers ``(B,)``, or ``None`` for a single key."""
        return self._row

    @property
    def key(self) -> Tensor:
        """The key, int64 of shape ``()``, or the keys of shape ``(B,)``."""
        if self._base is None:
            return torch.tensor(_signed(self._salt))
        return _mix(self._base ^ _signed(self._salt)) if self._salt else self._base

    def fold(self, k: int | Tensor) -> Rng:
        """Another key (or keys), a function of this one and of ``k``: an integer, or an int64 tensor with one entry
        a row."""
        out = object.__new__(Rng)
        out._row = self._row
        if isinstance(k, Tensor):
            if self._row is not None and k.shape != self._row.shape:
                raise ShapeError(f"one number a row is folded: {tuple(self._row.shape)} rows, got {tuple(k.shape)}.")
            out._base = _mix((self.key.to(k.device) ^ _mix(k * _signed(_GOLDEN))) + _signed(_GOLDEN))
            out._salt = 0
            out._row = torch.arange(len(k), device=k.device) if self._row is None else self._row
        else:
            out._base = self._base
            out._salt = _mix_int((self._salt ^ _mix_int((int(k) + 1) * _GOLDEN & _WORD)) + _GOLDEN & _WORD)
        return out

    def rows(self, rows: Tensor) -> Rng:
        """A key a row, for the global row numbers ``rows`` of shape ``(B,)``. Only a single key has rows to give."""
        if self._base is not None:
            raise ShapeError("this Rng has a key a row already; call rows on the single key it came from.")
        rows = rows.to(torch.int64)
        out = object.__new__(Rng)
        out._base, out._salt, out._row = _mix(rows * _signed(_GOLDEN) + _signed(self._salt)), 0, rows
        return out

    def per_row(self, count: int, device: torch.device | None = None) -> Rng:
        """Itself when it has ``count`` keys, or the rows ``0 .. count-1`` of a single key."""
        if self._base is None:
            return self.rows(torch.arange(count, device=device))
        if len(self._base) != count:
            raise ShapeError(f"the batch has {count} rows, the Rng has {len(self._base)} keys; give one key a row.")
        return self

    def joint(self) -> Rng:
        """A single key for what all rows share: itself, or a function of the keys of all rows."""
        if self._base is None:
            return self
        words = _mix(self.key + torch.arange(1, len(self.key) + 1, device=self.key.device) * _signed(_GOLDEN))
        return Rng(int(words.sum()))

    def bits(self, *shape: int) -> Tensor:
        """Uniform int64 words, of shape ``shape``, with the rows in front when there are rows."""
        count = math.prod(shape)
        stream = self._stream()
        device = stream.device if isinstance(stream, Tensor) else None
        steps = torch.arange(1, count + 1, device=device) * _signed(_GOLDEN)
        words = _mix_(steps + stream if not isinstance(stream, Tensor) else steps + stream[:, None])
        return words.reshape((*words.shape[:-1], *shape))

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uniform numbers in the open interval (0, 1), of shape ``shape`` with the rows in front."""
        dtype = dtype or torch.get_default_dtype()
        words = self.bits(*shape)
        if dtype == torch.float64:
            return _unit64(words)
        # 24 significant bits: 23 high bits of the word and the half that keeps both ends out.
        unit = (_halves(words)[..., _HIGH] >> 9).to(torch.float32).add_(2.0**22 + 0.5).mul_(2.0**-23)
        return unit if dtype == torch.float32 else unit.to(dtype)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal numbers (Box and Muller 1958), of shape ``shape`` with the rows in front."""
        dtype = dtype or torch.get_default_dtype()
        count = math.prod(shape)
        half = (count + 1) // 2
        if dtype == torch.float64:
            first, second = self.bits(2 * half).chunk(2, -1)
            radius, turn = _unit64(first), _unit64(second).mul_(2.0 * math.pi)
        else:
            words = _halves(self.bits(half))
            radius = words[..., _HIGH].bitwise_and(0x7FFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-31)
            turn = words[..., _LOW].to(torch.float32).mul_(math.pi * 2.0**-31)
        radius = radius.log_().mul_(-2.0).sqrt_()
        out = torch.cat([turn.cos().mul_(radius), turn.sin_().mul_(radius)], -1)[..., :count]
        out = out.reshape((*out.shape[:-1], *shape))
        return out if out.dtype == dtype else out.to(dtype)

    def permutation(self, count: int) -> Tensor:
        """A uniform permutation of ``0 .. count-1`` from a single key."""
        return torch.argsort(self.bits(count), stable=True)

    def _stream(self) -> Tensor | int:
        return _signed(self._salt) if self._base is None else self.key


def _signed(word: int) -> int:
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word


def _mix_int(word: int) -> int:
    for factor in _FACTORS:
        word = (word ^ (word >> 32)) * factor & _WORD
    return word ^ (word >> 32)


def _mix(word: Tensor) -> Tensor:
    return _mix_(word.clone())


def _mix_(word: Tensor) -> Tensor:
    """:func:`_mix_int` in place, on a contiguous tensor of words."""
    halves = _halves(word)
    low, high = halves[..., _LOW], halves[..., _HIGH]
    for factor in _FACTORS:
        low.bitwise_xor_(high)
        word.mul_(_signed(factor))
    low.bitwise_xor_(high)
    return word


def _halves(word: Tensor) -> Tensor:
    """The two 32-bit halves of each word, ``(..., 2)``, sharing its memory."""
    return word.unsqueeze(-1).view(torch.int32)


def _unit64(word: Tensor) -> Tensor:
    """The 52 high bits of each word as the middle of one of ``2**52`` equal cells of (0, 1), in float64."""
    return (word >> 12).to(torch.float64).add_(2.0**51 + 0.5).mul_(2.0**-52)
