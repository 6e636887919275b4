"""Schedules: how much data and how much noise stand in the state at each time."""

from .base import Frame, Number, Schedule
from .circular import Cosine, VariancePreserving
from .exploding import VarianceExploding
from .learned import Learned
from .straight import Linear, Polynomial

__all__ = [
    "Cosine",
    "Frame",
    "Learned",
    "Linear",
    "Number",
    "Polynomial",
    "Schedule",
    "VarianceExploding",
    "VariancePreserving",
]
