"""Couplings: which noise goes with which data."""

from .batch_ot import BatchOT
from .conditional import Conditional
from .diagnosis import Diagnosis, diagnose
from .independent import Independent
from .pair_store import PairStore
from .relaxed import Partial, Unbalanced
from .semidiscrete import Semidiscrete
from .sinkhorn import Sinkhorn

__all__ = [
    "BatchOT",
    "Conditional",
    "Diagnosis",
    "Independent",
    "PairStore",
    "Partial",
    "Semidiscrete",
    "Sinkhorn",
    "Unbalanced",
    "diagnose",
]
