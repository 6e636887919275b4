"""A user who stops a command while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rheos.cli import distill


@contextmanager
def student_stops_at(step: int) -> Iterator[None]:
    """Within the block, Ctrl-C comes at the look of a step of ``rheos distill``."""
    look = distill._Looks.__call__

    def stopped(self: Any, at: int, average: Any) -> bool:
        if at == step:
            raise KeyboardInterrupt
        return look(self, at, average)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill._Looks, "__call__", stopped)
        yield
