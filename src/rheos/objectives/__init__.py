"""Objectives: a path, a coupling and a model become a loss."""

from . import losses, sources, times, weights
from .losses import PseudoHuber, Squared
from .matching import Matching
from .sources import Normal
from .weights import MinSNR, VelocityWeight

__all__ = [
    "Matching",
    "MinSNR",
    "Normal",
    "PseudoHuber",
    "Squared",
    "VelocityWeight",
    "losses",
    "sources",
    "times",
    "weights",
]
