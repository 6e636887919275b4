"""Sampling plans: grids and coefficients that were fitted to one model for one number of evaluations."""

from .calibrate import calibrate
from .field import Figures
from .plan import Entry, Plan, PlanSolver, fingerprint
from .rule import Fitted, Rule

__all__ = ["Entry", "Figures", "Fitted", "Plan", "PlanSolver", "Rule", "calibrate", "fingerprint"]
