"""Entropic transport of many points: the coupling, its plan, and what finds the potentials."""

from .coupling import Sinkhorn
from .plan import Plan

__all__ = ["Plan", "Sinkhorn"]
