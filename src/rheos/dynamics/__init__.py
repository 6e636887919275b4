"""Dynamics: what was learned, ready to be integrated."""

from .adjoint import integrate_adjoint
from .ancestral import Ancestral
from .diffusion import Diffusion
from .drift import ScoredDiffusion
from .flow import Flow
from .likelihood import Likelihood, likelihood, log_likelihood, sample_with_log_prob
from .noise import AncestralNoise, DiffusionNoise, Noise

__all__ = [
    "Ancestral",
    "AncestralNoise",
    "Diffusion",
    "DiffusionNoise",
    "Flow",
    "Likelihood",
    "Noise",
    "ScoredDiffusion",
    "integrate_adjoint",
    "likelihood",
    "log_likelihood",
    "sample_with_log_prob",
]
