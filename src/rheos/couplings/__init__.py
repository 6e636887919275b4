"""Couplings: which noise goes with which data."""

from .batch_ot import BatchOT
from .conditional import Conditional
from .diagnosis import Diagnosis, diagnose
from .independent import Independent
from .pair_store import PairStore
from .semidiscrete import Semidiscrete

__all__ = ["BatchOT", "Conditional", "Diagnosis", "Independent", "PairStore", "Semidiscrete", "diagnose"]
