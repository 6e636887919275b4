"""Models, schedulers and pipelines of the library diffusers.

Reading a diffusion model's schedule needs nothing installed. What builds on classes of diffusers is imported when it is first
asked for, and names the extra that brings it where it is not there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .discrete import Foreign, discrete_schedule, foreign_flow

if TYPE_CHECKING:
    from .schedulers import FastFlowScheduler, PlanScheduler, SolverScheduler

__all__ = [
    "FastFlowScheduler",
    "Foreign",
    "PlanScheduler",
    "SolverScheduler",
    "discrete_schedule",
    "foreign_flow",
]

_BUILT_ON_DIFFUSERS = {
    "FastFlowScheduler": "schedulers",
    "PlanScheduler": "schedulers",
    "SolverScheduler": "schedulers",
}


def __getattr__(name: str) -> Any:
    if name not in _BUILT_ON_DIFFUSERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_BUILT_ON_DIFFUSERS[name]}", __name__), name)
