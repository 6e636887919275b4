"""Does a generator copy its training data? Held-out data say how near to it an honest sample lies.

Let ``d(x)`` be the distance of ``x`` to the nearest training example. Held-out data are drawn from the same
distribution and cannot have been copied, so the distances of honest samples have the same law as theirs; copies lie
nearer. Both are measured against the same training set, hence its size does not matter. (Meehan et al. 2020 test the
same null hypothesis with a rank statistic; quantiles are kept here because a user can read them.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from .pairwise import nearest_distance

RATIO = 0.95
"""A quantile of the samples' distances below this share of the held-out one is suspicious."""

COPY = 0.5
"""A near copy lies nearer than this share of the 5th percentile of the held-out distances."""

COPIES = 0.01
"""A share of near copies that exceeds the held-out one by this much is suspicious."""

ERRORS = 3.0
"""What is suspicious is flagged when it is this many standard errors away from chance."""


@final
@dataclass(frozen=True)
class Memorisation:
    """Distances of samples to the nearest training example, against those of held-out data.

    Attributes:
        median_ratio: median over the samples divided by the median over the held-out data; 1 when honest.
        low_ratio: the same of the 5th percentiles.
        copies: the share of samples that are near copies (nearer than half the held-out 5th percentile).
        held_out_copies: the share of held-out data that are, for comparison.
        memorised: whether at least one of three holds, beyond three standard errors of chance: ``median_ratio < .95``;
            ``low_ratio < .95``; ``copies > held_out_copies + .01``.
    """

    median_ratio: float
    low_ratio: float
    copies: float
    held_out_copies: float
    memorised: bool


def memorisation(samples: Tensor, training: Tensor, held_out: Tensor) -> Memorisation:
    """Compare the distances ``samples -> training`` with ``held_out -> training``, in whatever space the points are.

    The standard errors are free of the distribution: when both sides follow one law, the share of N samples below the
    q-quantile of M held-out distances has variance ``q(1 - q)(1/N + 1/M)``. So a ratio of .9 on 50 points is not
    flagged, the same ratio on 5,000 is.

    Args:
        samples: ``(N, ...)``.
        training: ``(T, ...)``, all that was trained on.
        held_out: ``(M, ...)``, disjoint from the training data.

    Raises:
        ShapeError: if the shapes differ after the first axis.
        InputError: if a number is not finite.
    """
    near = nearest_distance(samples, training)
    honest = nearest_distance(held_out, training).to(near.device)
    error = math.sqrt(1.0 / len(near) + 1.0 / len(honest))
    suspicious = [_lower(near, honest, q, error) for q in (0.5, 0.05)]
    threshold = COPY * honest.quantile(0.05)
    copies, expected = (float((side <= threshold).double().mean()) for side in (near, honest))
    pooled = (copies * len(near) + expected * len(honest)) / (len(near) + len(honest))
    excess = copies - expected
    many = excess > COPIES and excess > ERRORS * error * math.sqrt(pooled * (1.0 - pooled))
    return Memorisation(
        median_ratio=_ratio(near, honest, 0.5),
        low_ratio=_ratio(near, honest, 0.05),
        copies=copies,
        held_out_copies=expected,
        memorised=many or any(suspicious),
    )


def _ratio(near: Tensor, honest: Tensor, q: float) -> float:
    """The ratio of two quantiles; 1 when both are zero, as in data full of duplicates."""
    top, bottom = float(near.quantile(q)), float(honest.quantile(q))
    return top / bottom if bottom > 0.0 else (1.0 if top == 0.0 else math.inf)


def _lower(near: Tensor, honest: Tensor, q: float, error: float) -> bool:
    """Whether the q-quantile lies below the held-out one by more than the allowed ratio and more than chance."""
    share = float((near < honest.quantile(q)).double().mean())
    return _ratio(near, honest, q) < RATIO and share - q > ERRORS * error * math.sqrt(q * (1.0 - q))
