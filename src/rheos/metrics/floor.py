"""Every figure stands beside its floor: the same measure between two disjoint halves of real data.

Estimates from finite samples are not zero for equal distributions, and their bias depends on the sizes. So value and
floor are taken at equal sizes against one reference. The real data are shuffled and cut into a *reference* half and
an *other* half; with ``m = min(size of the other half, number of fakes)``

    value = measure(reference, m fakes),      floor = measure(reference, m of the other half).

A perfect generator's value and floor have one law. The cost is that the value sees half of the real data; call the
measure itself for a figure at full size, which then has no floor of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..core import Rng, ShapeError


@final
@dataclass(frozen=True)
class Figure:
    """A measured value beside its floor.

    Attributes:
        name: of the measure, with the extractor's where there is one.
        value: between the reference half of the real data and the fakes.
        floor: between the reference half and the other half.
        samples: m, the fakes (or other reals) that were compared.
        reference: the real data they were compared with.
    """

    name: str
    value: float
    floor: float
    samples: int
    reference: int

    @property
    def ratio(self) -> float:
        """``value / floor``: 1 is as good as real data. 1 too when both are zero."""
        if self.floor == 0.0:
            return 1.0 if self.value == 0.0 else math.copysign(math.inf, self.value)
        return self.value / self.floor

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g} (floor {self.floor:.4g})"


def with_floor(
    measure: Callable[[Tensor, Tensor], float],
    *,
    fake: Tensor,
    real: Tensor,
    rng: Rng | torch.Generator | int,
    name: str,
) -> Figure:
    """One figure beside its floor.

    Args:
        measure: called as ``measure(real, fake)``, with points or features; it must not depend on their order.
        fake: ``(M, ...)``.
        real: ``(N, ...)``, N at least 2.
        rng: shuffles the real data and picks among the fakes; figures that are compared should share it.
        name: of the figure.

    Raises:
        ShapeError: if there are fewer than two real points, or no fake.
    """
    return with_floors(lambda a, b: {name: measure(a, b)}, fake=fake, real=real, rng=rng)[name]


def with_floors(
    measure: Callable[[Tensor, Tensor], Mapping[str, float]],
    *,
    fake: Tensor,
    real: Tensor,
    rng: Rng | torch.Generator | int,
) -> dict[str, Figure]:
    """Figures that are measured together, each beside its floor, by name; otherwise as :func:`with_floor`."""
    if len(real) < 2 or len(fake) < 1:
        raise ShapeError(f"a floor needs at least two real points and one fake, got {len(real)} and {len(fake)}.")
    rng = Rng.of(rng)
    order = rng.fold(0).permutation(len(real)).to(real.device)
    half = len(real) // 2
    reference, other = real[order[:half]], real[order[half:]]
    size = min(len(other), len(fake))
    chosen = fake[rng.fold(1).permutation(len(fake))[:size].to(fake.device)]
    with torch.no_grad():
        value, floor = measure(reference, chosen), measure(reference, other[:size])
    return {name: Figure(name, float(value[name]), float(floor[name]), size, half) for name in value}
