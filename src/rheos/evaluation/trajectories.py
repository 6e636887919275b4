"""How straight the trajectories of a run are, as rows of its report."""

from __future__ import annotations

from ..metrics.trajectories import TrajectoryFigures
from .report import Row


def trajectory_rows(figures: TrajectoryFigures) -> tuple[Row, ...]:
    """The figures of :mod:`rheos.metrics.trajectories`, one a row. No flow that joins the same ends has less
    kinetic energy than their displacement."""
    return (
        Row("kinetic energy of trajectories", figures.kinetic_energy, figures.displacement, "straight", "lower"),
        Row("straightness", figures.straightness, 0.0, "straight", "lower"),
        Row("curvature (straightness over displacement)", figures.curvature, 0.0, "straight", "lower"),
        Row("length excess", figures.length_excess, 0.0, "straight", "lower"),
        Row("turning, radians", figures.turning, 0.0, "straight", "lower"),
    )
