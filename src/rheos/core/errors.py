"""What goes wrong for a user, in classes that callers can catch.

Every message says three things: what was expected, what came, and how to mend it. The command line turns any
:class:`RheosError` into one sentence on standard error and exit code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RheosError(Exception):
    """The root of all errors that a request, a file or an argument can cause."""


class InputError(RheosError, ValueError):
    """An argument has a value that cannot be used."""


class ShapeError(InputError):
    """A tensor has a shape that does not fit."""


class UndeterminedError(InputError):
    """A quantity was asked for that what is known does not determine."""


class DataError(InputError):
    """A file or a folder of data cannot be used."""


class CheckpointError(InputError):
    """A run folder or a checkpoint is damaged, foreign, or of another recipe."""


class DivergedError(RheosError):
    """A training, or the samples of what it left, did not stay finite."""


class MissingExtraError(RheosError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message for an unknown name: the nearest known one, and all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(known)}."
