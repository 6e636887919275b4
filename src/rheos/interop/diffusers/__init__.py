"""Models, schedulers and pipelines of the library diffusers.

Reading a diffusion model's schedule needs nothing installed. What builds on classes of diffusers is imported when it is
first asked for, and names the extra that brings it where it is not there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .discrete import Foreign, discrete_schedule, foreign_flow

if TYPE_CHECKING:
    from .acceleration import accelerate, recheck, use_plan
    from .families import FAMILIES, Family, Loaded, load
    from .folders import export, open_pipeline, save
    from .pipeline import RheosNetwork, RheosPipeline
    from .schedulers import FastFlowScheduler, PlanScheduler, SolverScheduler

__all__ = [
    "FAMILIES",
    "Family",
    "FastFlowScheduler",
    "Foreign",
    "Loaded",
    "PlanScheduler",
    "RheosNetwork",
    "RheosPipeline",
    "SolverScheduler",
    "accelerate",
    "discrete_schedule",
    "export",
    "foreign_flow",
    "load",
    "open_pipeline",
    "recheck",
    "save",
    "use_plan",
]

_BUILT_ON_DIFFUSERS = {
    "FAMILIES": "families",
    "Family": "families",
    "FastFlowScheduler": "schedulers",
    "Loaded": "families",
    "PlanScheduler": "schedulers",
    "RheosNetwork": "pipeline",
    "RheosPipeline": "pipeline",
    "SolverScheduler": "schedulers",
    "accelerate": "acceleration",
    "export": "folders",
    "load": "families",
    "open_pipeline": "folders",
    "recheck": "acceleration",
    "save": "folders",
    "use_plan": "acceleration",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _BUILT_ON_DIFFUSERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_BUILT_ON_DIFFUSERS[name]}", __name__), name)
