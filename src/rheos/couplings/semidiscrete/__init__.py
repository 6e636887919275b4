"""Optimal transport between noise and a whole dataset."""

from .coupling import Semidiscrete

__all__ = ["Semidiscrete"]
