"""Schedules: how much data and how much noise stand in the state at each time."""

from .base import Frame, Number, Schedule
from .circular import Cosine, VariancePreserving
from .discrete import Betas, CosineBetas, Discrete, LinearBetas, ScaledBetas
from .exploding import EDM, VarianceExploding
from .learned import Learned
from .straight import Linear, Polynomial

__all__ = [
    "EDM",
    "Betas",
    "Cosine",
    "CosineBetas",
    "Discrete",
    "Frame",
    "Learned",
    "Linear",
    "LinearBetas",
    "Number",
    "Polynomial",
    "ScaledBetas",
    "Schedule",
    "VarianceExploding",
    "VariancePreserving",
]
