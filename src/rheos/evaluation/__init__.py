"""Evaluation: what is measured of each sort of tensor, and how it is shown."""

from .images import Sets, code_length, measure_images
from .inversion import inversion_rows
from .points import measure_points
from .report import Findings, Report, Row
from .trajectories import trajectory_rows

__all__ = [
    "Findings",
    "Report",
    "Row",
    "Sets",
    "code_length",
    "inversion_rows",
    "measure_images",
    "measure_points",
    "trajectory_rows",
]
