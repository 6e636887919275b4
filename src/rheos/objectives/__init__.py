"""Objectives: a path, a coupling and a model become a loss."""

from . import losses, sources, times, weights
from .bridge import SchroedingerBridge, Twin
from .flow_map import (
    FlowMapMatching,
    consistency,
    consistency_flow_matching,
    continuous_consistency,
    improved_mean_flow,
    lagrangian,
    mean_flow,
    shortcut,
)
from .identities import Compositional, Consistency, Eulerian, Identity, Lagrangian
from .learned import KineticEnergy, LearnedMatching, MetricEnergy
from .losses import PseudoHuber, Squared
from .matching import Matching
from .rectified import Rectified
from .scales import Scales
from .simulated import SimulatedLikelihood
from .snapshots import Snapshots, trajectories
from .sources import Normal, Samples
from .weights import EDMWeight, MinSNR, VelocityWeight

__all__ = [
    "Compositional",
    "Consistency",
    "EDMWeight",
    "Eulerian",
    "FlowMapMatching",
    "Identity",
    "KineticEnergy",
    "Lagrangian",
    "LearnedMatching",
    "Matching",
    "MetricEnergy",
    "MinSNR",
    "Normal",
    "PseudoHuber",
    "Rectified",
    "Samples",
    "Scales",
    "SchroedingerBridge",
    "SimulatedLikelihood",
    "Snapshots",
    "Squared",
    "Twin",
    "VelocityWeight",
    "consistency",
    "consistency_flow_matching",
    "continuous_consistency",
    "improved_mean_flow",
    "lagrangian",
    "losses",
    "mean_flow",
    "shortcut",
    "sources",
    "times",
    "trajectories",
    "weights",
]
