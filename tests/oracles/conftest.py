"""The peers. Without them these tests are skipped, unless RHEOS_ORACLES=required says that they must be there."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest

from rheos.core import Rng


def _peer(name: str) -> ModuleType:
    if os.environ.get("RHEOS_ORACLES") == "required":
        return importlib.import_module(name)
    return pytest.importorskip(name, exc_type=ImportError)


@pytest.fixture(scope="session")
def torchcfm() -> ModuleType:
    """TorchCFM (MIT): Tong et al. 2024."""
    return _peer("torchcfm.conditional_flow_matching")


@pytest.fixture(scope="session")
def torchdiffeq() -> ModuleType:
    """torchdiffeq (MIT): Chen et al. 2018."""
    return _peer("torchdiffeq")


@pytest.fixture(scope="session")
def pot() -> ModuleType:
    """POT, Python Optimal Transport (MIT): Flamary et al. 2021."""
    return _peer("ot")


@pytest.fixture(scope="session")
def meta_path() -> ModuleType:
    """Meta's flow_matching (CC BY-NC): paths and schedulers."""
    _peer("flow_matching.path.scheduler")
    return _peer("flow_matching.path")


@pytest.fixture(scope="session")
def meta_scheduler(meta_path: ModuleType) -> ModuleType:
    """The schedulers of Meta's flow_matching, and their change."""
    return _peer("flow_matching.path.scheduler")


@pytest.fixture(scope="session")
def meta_solver() -> ModuleType:
    """The solvers of Meta's flow_matching."""
    return _peer("flow_matching.solver")


@pytest.fixture(scope="session")
def diffusers() -> ModuleType:
    """diffusers (Apache 2.0): its schedulers."""
    return _peer("diffusers")


@pytest.fixture
def rng() -> Rng:
    return Rng(2024)
