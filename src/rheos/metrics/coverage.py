"""Fidelity and diversity by k-nearest-neighbour balls in a feature space.

Each real point carries a ball that reaches to its k-th nearest real neighbour; the union of the balls stands for the
real manifold. Likewise for the fakes.

- *precision*: the share of fakes inside the real manifold (Kynkaanniemi et al. 2019).
- *recall*: the share of reals inside the fake manifold (the same).
- *density*: how many real balls hold a fake, on average, over k. Unlike precision it is not won by one outlier's
  huge ball; it may exceed 1 (Naeem et al. 2020).
- *coverage*: the share of real balls that hold a fake (the same); a mode that is missing lowers it.

For two samples of one distribution, density is 1 in expectation and coverage ``1 - 2^-k`` in the limit of equal sizes:
.97 for k = 5.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import final

import torch
from torch import Tensor

from .pairwise import BLOCK, neighbour_radius, pair, squared_blocks

TIE = 1e-12
"""Squared distances that differ by less than this share of the largest squared norm are equal; a ball is closed."""


@final
@dataclass(frozen=True)
class Manifold:
    """Precision, recall and coverage in [0, 1]; density is 0 or more, and near 1 for equal distributions."""

    precision: float
    recall: float
    density: float
    coverage: float

    def asdict(self) -> dict[str, float]:
        """The four figures by name."""
        return asdict(self)


def manifold(real_features: Tensor, fake_features: Tensor, k: int = 5, *, block: int = BLOCK) -> Manifold:
    """Precision, recall, density and coverage of fakes against reals.

    Args:
        real_features: ``(N, ...)``, N > k.
        fake_features: ``(M, ...)``, M > k. The figures depend on N and M: compare at equal sizes.
        k: the neighbour to which a ball reaches.
        block: distances held at once; the result does not depend on it.

    Raises:
        ShapeError: if the shapes differ after the first axis.
        InputError: if a side has no k-th neighbour, or a number is not finite.
    """
    real, fake = pair(real_features, fake_features, ("real_features", "fake_features"))
    centre = real.mean(0)
    real, fake = real - centre, fake - centre
    tie = TIE * float(torch.maximum(real.square().sum(1).max(), fake.square().sum(1).max()))
    real_radius = neighbour_radius(real, k, block) + tie
    fake_radius = neighbour_radius(fake, k, block) + tie
    inside, balls = 0, 0
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered = torch.zeros_like(recalled)
    for rows, squared in squared_blocks(fake, real, block):
        in_real = squared <= real_radius
        inside += int(in_real.any(1).sum())
        balls += int(in_real.sum())
        covered |= in_real.any(0)
        recalled |= (squared <= fake_radius[rows, None]).any(0)
    return Manifold(
        precision=inside / len(fake),
        recall=float(recalled.double().mean()),
        density=balls / (k * len(fake)),
        coverage=float(covered.double().mean()),
    )
