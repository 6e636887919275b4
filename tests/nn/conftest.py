"""Layers draw their first weights, and dropout its zeros, from torch's global generator: lend it to each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rheos.nn import seeded


@pytest.fixture(autouse=True)
def lent() -> Iterator[None]:
    with seeded(0):
        yield
