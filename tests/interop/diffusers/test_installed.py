"""What needs diffusers says so where it is missing, and nothing else does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rheos.core import MissingExtraError
from rheos.interop import diffusers as ours

WITHOUT = """
import sys
sys.modules["diffusers"] = None
from rheos.interop import foreign_flow
from rheos.interop.diffusers import Foreign, discrete_schedule
from rheos.interop.diffusers.walk import Walk
from rheos.core import MissingExtraError
for name in ("PlanScheduler", "accelerate", "load", "export", "RheosPipeline"):
    try:
        __import__("rheos.interop.diffusers", fromlist=[name]).__getattr__(name)
    except MissingExtraError as error:
        assert 'pip install "rheos[diffusers]"' in str(error), error
    else:
        raise SystemExit(name)
"""


def test_without_diffusers_the_extra_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_is_there(diffusers: object) -> None:
    for name in ours.__all__:
        assert getattr(getattr(ours, name), "__name__", name) == name
    with pytest.raises(AttributeError, match="has no attribute 'Missing'"):
        _ = ours.Missing
    assert issubclass(MissingExtraError, ImportError)
