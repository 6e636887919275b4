"""Dynamics: what was learned, ready to be integrated."""

from .diffusion import Diffusion
from .flow import Flow
from .likelihood import Likelihood, likelihood, log_likelihood, sample_with_log_prob

__all__ = ["Diffusion", "Flow", "Likelihood", "likelihood", "log_likelihood", "sample_with_log_prob"]
