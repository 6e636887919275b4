"""Every file is decoded once before training, so that a bad one is found now and not in the middle of an epoch.

A few bad files among many are left out and named; more than one in twenty means that more is wrong, and raises.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from torch import Tensor

from ..core import DataError
from .decode import decode, probe
from .source import Source

R = TypeVar("R")

TOLERATED = 0.05
"""The share of unreadable files above which data are refused."""

BLOCK = 1024
SHOWN = 3

Progress = Callable[[int, int], None]
"""Called with the number of files done and the number of all."""


@final
@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be used, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@final
@dataclass(frozen=True)
class Report:
    """What the check found.

    Attributes:
        found: the number of images met.
        unreadable: those that are left out.
        ignored: the number of other files met.
    """

    found: int
    unreadable: tuple[Unreadable, ...] = ()
    ignored: int = 0

    @property
    def readable(self) -> int:
        return self.found - len(self.unreadable)

    def __str__(self) -> str:
        head = f"{self.readable} of {self.found} images can be read"
        tail = f"; {self.ignored} other files ignored" if self.ignored else ""
        return head + tail + "".join(f"\n  left out: {item}" for item in self.unreadable)


@final
@dataclass(frozen=True, eq=False)
class Checked:
    """The outcome of a check.

    Attributes:
        members: the entries that can be read, ascending int64.
        digests: the SHA-256 of each member's encoded bytes.
        pixels: uint8 ``(N, C, size, size)`` for all N entries (those that are no members hold nothing), or ``None``.
        size, channels: those of the decoded images.
        report: the counts, and the files left out.
    """

    members: Tensor
    digests: list[bytes]
    pixels: Tensor | None
    size: int
    channels: int
    report: Report


def check(
    source: Source,
    where: str,
    size: int | None,
    channels: int | None,
    cache_bytes: int,
    progress: Progress | None = None,
) -> Checked:
    """Decode every image of a source, and keep the pixels if all of them fit into ``cache_bytes``.

    Args:
        source: the encoded images.
        where: what holds them, for messages.
        size: the side of the decoded squares; :func:`common_size` of the images' shorter sides when left out.
        channels: 1 or 3; 1 if all images are grey and 3 otherwise when left out.

    Raises:
        DataError: if more than 5 % of the images are unreadable; the first few are named.
    """
    count = len(source.names)
    bad: dict[int, str] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        if size is None or channels is None:
            headers = _good(_each(pool, range(count), lambda entry: _header(source, entry)), bad)
            shapes = [shape for _, shape in headers]
            _refuse(source, where, bad)
            size = size or common_size([side for side, _ in shapes])
            channels = channels or (1 if all(grey for _, grey in shapes) else 3)
        keep = (count - len(bad)) * channels * size**2 <= cache_bytes
        pixels = torch.empty(count, channels, size, size, dtype=torch.uint8) if keep else None
        fixed_size, fixed_channels = size, channels

        def work(entry: int) -> bytes:
            data = source.read(entry)
            image = decode(data, fixed_size, fixed_channels)
            if pixels is not None:
                pixels[entry] = torch.from_numpy(image)
            return hashlib.sha256(data).digest()

        members, digests = [], []
        for entry, digest in _good(_each(pool, [i for i in range(count) if i not in bad], work), bad):
            members.append(entry)
            digests.append(digest)
            if progress:
                progress(len(members) + len(bad), count)
    report = _refuse(source, where, bad)
    return Checked(torch.tensor(members, dtype=torch.int64), digests, pixels, size, channels, report)


def common_size(sides: list[int]) -> int:
    """The most common shorter side, made friendly to networks that halve it.

    Up to 64 it is rounded down to a multiple of 4 (below 4 it stays); above, to a power of two of at most 256. Of
    equally common sides the smallest counts.
    """
    counts = Counter(sides)
    side = min(counts, key=lambda side: (-counts[side], side))
    if side > 64:
        return min(1 << (side.bit_length() - 1), 256)
    return side - side % 4 if side >= 4 else side


def reason_of(error: Exception) -> str:
    """The first line of an error, or its kind when it has nothing to say."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _header(source: Source, entry: int) -> tuple[int, bool]:
    with source.open(entry) as file:
        return probe(file)


def _each(
    pool: ThreadPoolExecutor, entries: range | list[int], work: Callable[[int], R]
) -> Iterator[tuple[int, R | str]]:
    """The result of ``work`` for every entry in order, or the reason why it failed."""

    def attempt(entry: int) -> R | str:
        # Decoders of hostile bytes raise errors of nearly any class; whichever it is, this file is unreadable.
        try:
            return work(entry)
        except Exception as error:
            return reason_of(error)

    for begin in range(0, len(entries), BLOCK):
        block = entries[begin : begin + BLOCK]
        yield from zip(block, pool.map(attempt, block), strict=True)


def _good(results: Iterator[tuple[int, R | str]], bad: dict[int, str]) -> Iterator[tuple[int, R]]:
    """The results that are none of failure; the others are written into ``bad``."""
    for entry, result in results:
        if isinstance(result, str):
            bad[entry] = result
        else:
            yield entry, result


def _refuse(source: Source, where: str, bad: dict[int, str]) -> Report:
    unreadable = tuple(Unreadable(source.names[entry], bad[entry]) for entry in sorted(bad))
    found = len(source.names)
    if len(unreadable) > TOLERATED * found:
        more = f", and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
        raise DataError(
            f"{where}: {len(unreadable)} of {found} images cannot be read, more than {TOLERATED:.0%}: "
            f"{', '.join(str(item) for item in unreadable[:SHOWN])}{more}; mend or remove them."
        )
    return Report(found, unreadable, source.ignored)
