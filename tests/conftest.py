"""Guards around every test: one thread a worker, no network, no real data by accident, no global randomness."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers on two cores: threads of their own would only wait for each other, in child processes too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

_connect = socket.socket.connect


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True
    host = str(address[0]).split("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _connect_locally(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX and not _is_local(address):
        raise RuntimeError(f"the tests are offline, and something wanted to connect to {address!r}.")
    _connect(self, address)


@pytest.fixture(autouse=True)
def offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets reach this machine only, unless the test is marked ``network``."""
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setattr(socket.socket, "connect", _connect_locally)


@pytest.fixture(autouse=True)
def no_data_by_accident(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick test gives the same result whether or not RHEOS_DATA is set."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.delenv("RHEOS_DATA", raising=False)


@pytest.fixture(autouse=True)
def global_generators(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that moved the global generator of torch or NumPy, unless it is marked ``global_random``."""
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state(legacy=False)
    yield
    torch_after, numpy_after = torch.random.get_rng_state(), np.random.get_state(legacy=False)
    torch.random.set_rng_state(torch_before)
    np.random.set_state(numpy_before)
    if request.node.get_closest_marker("global_random") is not None:
        return
    mend = "draw from an Rng or a generator of one's own, or mark a test that means it with pytest.mark.global_random."
    if not torch.equal(torch_before, torch_after):
        pytest.fail(f"torch's global generator was read or seeded: {mend}")
    if repr(numpy_before) != repr(numpy_after):
        pytest.fail(f"NumPy's global generator was read or seeded: {mend}")


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that RHEOS_DATA names; the test is skipped without one."""
    folder = os.environ.get("RHEOS_DATA")
    if not folder:
        pytest.skip("RHEOS_DATA names no folder of data sets")
    return Path(folder)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name parameters by what they are, without their address in memory, which differs between pytest-xdist's
    processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(val))[:100]
