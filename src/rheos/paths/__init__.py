"""Paths: how noise becomes data when both ends are known."""

from .affine import QUANTITIES, Affine
from .prediction import AsVelocity, Rescheduled, as_velocity

__all__ = ["QUANTITIES", "Affine", "AsVelocity", "Rescheduled", "as_velocity"]
