"""Dynamics: what was learned, ready to be integrated."""

from .adjoint import integrate_adjoint
from .ancestral import Ancestral
from .diffusion import Diffusion
from .drift import ScoredDiffusion
from .flow import Flow
from .flow_map import FlowMap
from .likelihood import Likelihood, likelihood, log_likelihood, sample_with_log_prob
from .map_density import MapLikelihood, map_likelihood
from .noise import AncestralNoise, DiffusionNoise, Noise, RestartNoise
from .restarted import Restarted

__all__ = [
    "Ancestral",
    "AncestralNoise",
    "Diffusion",
    "DiffusionNoise",
    "Flow",
    "FlowMap",
    "Likelihood",
    "MapLikelihood",
    "Noise",
    "RestartNoise",
    "Restarted",
    "ScoredDiffusion",
    "integrate_adjoint",
    "likelihood",
    "log_likelihood",
    "map_likelihood",
    "sample_with_log_prob",
]
