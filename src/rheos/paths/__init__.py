"""Paths: how noise becomes data when both ends are known."""

from .affine import QUANTITIES, Affine
from .bridge import Bridge, BridgeVelocity
from .learned import Correction, LearnedInterpolant
from .metric import LAND, RBF
from .prediction import AsVelocity, Preconditioned, Rescheduled, as_velocity
from .spline import Chain, Curve, Spline

__all__ = [
    "LAND",
    "QUANTITIES",
    "RBF",
    "Affine",
    "AsVelocity",
    "Bridge",
    "BridgeVelocity",
    "Chain",
    "Correction",
    "Curve",
    "LearnedInterpolant",
    "Preconditioned",
    "Rescheduled",
    "Spline",
    "as_velocity",
]
