"""Solvers: rules that carry a state along a dynamics, and the grids on which they step."""

from ..core.loop import Solution, integrate, walk
from ..core.protocols import Solver, Step
from . import grids
from .adams_bashforth import AdamsBashforth
from .base import FixedStep
from .churn import Churn
from .dopri5 import Dopri5
from .dpm_solver import DPMSolver
from .euler import Euler
from .fast_flow import Bandit, FastFlow
from .grids import Grid
from .heun import Heun
from .mean_cache import MeanCache
from .midpoint import Midpoint
from .multistep import Multistep
from .rk4 import RK4
from .runge_kutta import RungeKutta, Tableau
from .stork import Stabilised, Stork
from .tea_cache import TeaCache
from .unipc import UniPC

__all__ = [
    "RK4",
    "AdamsBashforth",
    "Bandit",
    "Churn",
    "DPMSolver",
    "Dopri5",
    "Euler",
    "FastFlow",
    "FixedStep",
    "Grid",
    "Heun",
    "MeanCache",
    "Midpoint",
    "Multistep",
    "RungeKutta",
    "Solution",
    "Solver",
    "Stabilised",
    "Step",
    "Stork",
    "Tableau",
    "TeaCache",
    "UniPC",
    "grids",
    "integrate",
    "walk",
]
