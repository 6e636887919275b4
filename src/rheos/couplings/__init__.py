"""Couplings: which noise goes with which data."""

from .batch_ot import BatchOT
from .independent import Independent

__all__ = ["BatchOT", "Independent"]
