"""diffusers, and transformers for its pipelines. Without them these tests are skipped, unless RHEOS_ORACLES=required
says that they must be there."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest


def _peer(name: str) -> ModuleType:
    if os.environ.get("RHEOS_ORACLES") == "required":
        return importlib.import_module(name)
    return pytest.importorskip(name, exc_type=ImportError)


@pytest.fixture(scope="session")
def diffusers() -> ModuleType:
    """diffusers (Apache 2.0)."""
    return _peer("diffusers")


@pytest.fixture(scope="session")
def pipelines(diffusers: ModuleType) -> ModuleType:
    """diffusers with the pipelines that need transformers (Apache 2.0)."""
    _peer("transformers")
    return diffusers
