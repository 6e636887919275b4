"""Solvers of the extra ``rheos[ot]`` where it is installed; without it everything works, by SciPy.

An older release that lacks a solver counts as not installed.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from types import ModuleType


@cache
def lapx() -> ModuleType | None:
    """The module of lapx, 0.11 or later."""
    return _with("lap", "lapjvr", "lapmod")


@cache
def pot() -> ModuleType | None:
    """The module of POT, 0.9.7 or later. Importing it takes a second."""
    return _with("ot", "emd", "bsp", "partial", "unbalanced")


def _with(name: str, *solvers: str) -> ModuleType | None:
    if find_spec(name) is None:
        return None
    module = importlib.import_module(name)
    return module if all(hasattr(module, solver) for solver in solvers) else None
