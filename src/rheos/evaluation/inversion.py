"""How well a flow map leads data to noise, and how likely it finds them, as rows of a report."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..dynamics import MapLikelihood
from .report import Row


def inversion_rows(found: Mapping[int, MapLikelihood], by_flow: Tensor) -> tuple[Row, ...]:
    """The log-density and the cycle error of a map by its number of steps.

    Args:
        found: of the same data, by the steps of the way back.
        by_flow: log-densities (N,) of these data by the velocity of the map, integrated.
    """
    rows: list[Row] = []
    for steps, back in found.items():
        way = f"{steps} step{'s' if steps > 1 else ''}"
        density = Row(
            f"log-density by the map, {way}, nats of {len(by_flow)} held-out data",
            float(back.log_prob.double().mean()),
            float(by_flow.double().mean()),
            "its flow",
            "higher",
        )
        cycle = float(back.cycle.double().square().mean().sqrt())
        rows += [density, Row(f"cycle error, {way} back and as many forward", cycle, 0.0, "exact", "lower")]
    return tuple(rows)
