"""Objectives: a path, a coupling and a model become a loss."""

from . import losses, sources, times, weights
from .bridge import SchroedingerBridge, Twin
from .learned import KineticEnergy, LearnedMatching, MetricEnergy
from .losses import PseudoHuber, Squared
from .matching import Matching
from .simulated import SimulatedLikelihood
from .snapshots import Snapshots, trajectories
from .sources import Normal, Samples
from .weights import EDMWeight, MinSNR, VelocityWeight

__all__ = [
    "EDMWeight",
    "KineticEnergy",
    "LearnedMatching",
    "Matching",
    "MetricEnergy",
    "MinSNR",
    "Normal",
    "PseudoHuber",
    "Samples",
    "SchroedingerBridge",
    "SimulatedLikelihood",
    "Snapshots",
    "Squared",
    "Twin",
    "VelocityWeight",
    "losses",
    "sources",
    "times",
    "trajectories",
    "weights",
]
