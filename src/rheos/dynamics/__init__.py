"""Dynamics: what was learned, ready to be integrated."""

from .adjoint import integrate_adjoint
from .ancestral import Ancestral
from .diffusion import Diffusion
from .drift import ScoredDiffusion
from .flow import Flow
from .likelihood import Likelihood, likelihood, log_likelihood, sample_with_log_prob

__all__ = [
    "Ancestral",
    "Diffusion",
    "Flow",
    "Likelihood",
    "ScoredDiffusion",
    "integrate_adjoint",
    "likelihood",
    "log_likelihood",
    "sample_with_log_prob",
]
