"""A warning of couplings that do not look at the condition."""

from __future__ import annotations

import sys
import warnings

_warned: set[tuple[str, int]] = set()


def warn_ignored(transport: str, coupling: str) -> None:
    """Warn at the caller's caller, once for each place, whatever filters are set.

    Args:
        transport: what ignores the condition, in words.
        coupling: its class.
    """
    frame = sys._getframe(2)
    place = frame.f_code.co_filename, frame.f_lineno
    if place not in _warned:
        warnings.warn(
            f"{transport} ignores the condition: it ties noise to labels, and conditional samples suffer. Use "
            f"couplings.Conditional({coupling}()), couplings.Independent(), or train without labels.",
            stacklevel=3,
        )
        _warned.add(place)
