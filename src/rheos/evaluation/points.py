"""What is measured of generated points in few dimensions: distances between clouds, each beside its floor."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..core import Rng
from ..metrics import energy_distance, manifold, mmd, sliced_wasserstein, with_floors
from .report import Findings, Row


def measure_points(drawn: Mapping[int, Tensor], chosen: int, real: Tensor, rng: Rng) -> Findings:
    """All figures of generated points.

    Args:
        drawn: samples (N, d) from the same noise, by the number of network evaluations they took.
        chosen: the number of evaluations that the figures are for; the others make the curve.
        real: points that were not trained on (M, d).
        rng: shuffles and projects.
    """

    def measure(a: Tensor, b: Tensor) -> dict[str, float]:
        return {
            "energy distance": energy_distance(a, b),
            "sliced Wasserstein": sliced_wasserstein(a, b, rng=rng.fold(1)),
            "MMD": mmd(a, b),
            **manifold(a, b).asdict(),
        }

    figures = with_floors(measure, fake=drawn[chosen], real=real, rng=rng.fold(0)).values()
    distances = ("energy distance", "sliced Wasserstein", "MMD")
    rows = tuple(Row(f.name, f.value, f.floor, "floor", "lower" if f.name in distances else "higher") for f in figures)
    curve = [(budget, energy_distance(real, drawn[budget])) for budget in sorted(drawn)]
    return Findings(rows, {"energy distance": curve})
