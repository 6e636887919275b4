"""What is measured of generated images: nearness to real ones, agreement with the class asked for, and copying."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from ..core import Rng
from ..metrics import (
    Classifier,
    FeatureExtractor,
    class_agreement,
    energy_distance,
    frechet_distance,
    frechet_name,
    manifold,
    memorisation,
    mmd,
    sliced_wasserstein,
    with_floors,
)
from .report import Findings, Row

PIXELS = 4_000
"""Images whose pixels are compared by pairwise distances, at most."""


@final
@dataclass(frozen=True)
class Sets:
    """Real data to measure against: states (N, ...) that were trained on, and states that were not."""

    training: Tensor
    held_out: Tensor


def measure_images(
    drawn: Mapping[int, Tensor],
    chosen: int,
    sets: Sets,
    extractor: FeatureExtractor,
    classifier: Classifier | None,
    asked: Tensor | None,
    rng: Rng,
) -> Findings:
    """All figures of generated images.

    Args:
        drawn: samples (N, C, H, W) in [-1, 1] from the same noise, by the number of network evaluations they took.
        chosen: the number of evaluations that the figures are for; the others make the curve.
        sets: the real images.
        extractor: what gives features.
        classifier: what reads classes; ``None`` without labels.
        asked: the class asked of each sample (N,).
        rng: shuffles.
    """
    name = frechet_name(extractor)
    fake = drawn[chosen]
    features, held = extractor(sets.training), extractor(sets.held_out)
    seen = {budget: extractor(states) for budget, states in drawn.items()}
    curve = [(budget, frechet_distance(features, seen[budget])) for budget in sorted(seen)]
    whole = Row(name, dict(curve)[chosen], frechet_distance(features, held), "held-out images", "lower")
    rows = [whole, *_in_features(features, seen[chosen], extractor, rng), *_in_pixels(sets.training, fake, rng)]
    if classifier is not None and asked is not None:
        agreement = class_agreement(classifier, fake, asked)
        rows.append(Row("class agreement", agreement, classifier.accuracy, "held-out accuracy", "higher"))
    near = memorisation(fake, sets.training, sets.held_out)
    rows += [
        Row("distance to nearest training image, median, over held-out's", near.median_ratio, 1.0, "honest", "1"),
        Row("distance to nearest training image, 5th percentile, over held-out's", near.low_ratio, 1.0, "honest", "1"),
        Row("share of near copies", near.copies, near.held_out_copies, "held-out images", "lower"),
        Row("memorised", near.memorised),
    ]
    remark = "The samples lie nearer to training images than held-out images do: this model memorises."
    return Findings(tuple(rows), {name: curve}, (remark,) if near.memorised else ())


def code_length(bits: Tensor, *, given_class: bool) -> Row:
    """The mean bits per dimension beside its standard error.

    Args:
        bits: of each held-out image (N,), more than one for an error.
        given_class: whether the model was told the class of each.
    """
    name = f"bits per dimension{' given the class' if given_class else ''}, {len(bits)} held-out images"
    error = float(bits.double().std()) / math.sqrt(len(bits)) if len(bits) > 1 else math.nan
    return Row(name, float(bits.double().mean()), error, "standard error", "lower")


def _in_features(real: Tensor, fake: Tensor, extractor: FeatureExtractor, rng: Rng) -> list[Row]:
    name = frechet_name(extractor)

    def measure(a: Tensor, b: Tensor) -> dict[str, float]:
        return {f"{name}, as many of each": frechet_distance(a, b), **manifold(a, b).asdict()}

    # Twice as many real images as fakes: both halves then have the fakes' number, on which coverage depends.
    real = _some(real, 2 * len(fake), rng)
    figures = with_floors(measure, fake=fake, real=real, rng=rng.fold(0)).values()
    return [Row(f.name, f.value, f.floor, "floor", "lower" if f.name.startswith(name) else "higher") for f in figures]


def _in_pixels(real: Tensor, fake: Tensor, rng: Rng) -> list[Row]:
    def measure(a: Tensor, b: Tensor) -> dict[str, float]:
        return {
            "sliced Wasserstein (pixels)": sliced_wasserstein(a, b, rng=rng.fold(1)),
            "energy distance (pixels)": energy_distance(a, b),
            "MMD (pixels)": mmd(a, b),
        }

    real, fake = _some(real, PIXELS, rng).flatten(1), _some(fake, PIXELS, rng).flatten(1)
    figures = with_floors(measure, fake=fake, real=real, rng=rng.fold(0))
    return [Row(f.name, f.value, f.floor, "floor", "lower") for f in figures.values()]


def _some(images: Tensor, count: int, rng: Rng) -> Tensor:
    """At most ``count`` images, drawn by ``rng``: data often lie sorted by class."""
    return images if len(images) <= count else images[rng.fold(2).permutation(len(images))[:count]]
