"""Laws that a broken part is held against."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def fails(law: str, check: Callable[[], None]) -> None:
    """Assert that a check of the conformance kit names a law, by a pattern, that is broken."""
    with pytest.raises(AssertionError, match=law):
        check()
