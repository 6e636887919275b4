"""Copies of training images are told from honest samples, and every figure stands beside what it is held against."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rheos.core import Rng
from rheos.data import digits, split, to_unit
from rheos.evaluation import Findings, Row, Sets, code_length, measure_images
from rheos.metrics import RandomFeatures, train_classifier


@pytest.fixture(scope="module")
def real() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Digits to train on, held out, and held out once more as the samples of a perfect generator, with labels."""
    found = digits()
    training, rest = split(len(found), 0.5, seed=1)
    images, labels = found.take(torch.arange(len(found)))
    assert labels is not None
    states = to_unit(images)
    return states[training], states[rest[::2]], states[rest[1::2]], labels[rest[1::2]], labels[training]


def measured(training: Tensor, held_out: Tensor, *samples: Tensor) -> Findings:
    drawn = dict(zip((10, 5, 100), samples, strict=False))
    return measure_images(drawn, 10, Sets(training, held_out), RandomFeatures(1, 0), None, None, Rng(0))


def rows(findings: Findings) -> dict[str, Row]:
    return {row.name: row for row in findings.rows}


def test_honest_samples_are_not_accused(real: tuple[Tensor, ...]) -> None:
    training, held_out, honest, _, _ = real
    found = measured(training, held_out, honest)
    assert rows(found)["memorised"].value is False
    assert found.remarks == ()
    for name, row in rows(found).items():
        if name.startswith("distance to nearest"):
            assert row.value == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_memoriser_is_named(real: tuple[Tensor, ...], share: float) -> None:
    training, held_out, honest, _, _ = real
    copies = int(share * len(honest))
    noise = 0.02 * Rng(0).rows(torch.arange(copies)).normal(1, 8, 8)
    planted = torch.cat([training[:copies] + noise, honest[copies:]])
    found = measured(training, held_out, planted)
    assert rows(found)["memorised"].value is True
    assert rows(found)["share of near copies"].value == pytest.approx(share, abs=0.03)
    assert found.remarks == (
        "The samples lie nearer to training images than held-out images do: this model memorises.",
    )


def test_worse_samples_have_worse_figures(real: tuple[Tensor, ...]) -> None:
    training, held_out, honest, _, _ = real
    blurred = torch.nn.functional.avg_pool2d(honest, 3, 1, 1)
    good, bad = rows(measured(training, held_out, honest)), rows(measured(training, held_out, blurred))
    for name, row in good.items():
        if row.better == "lower" and row.name != "share of near copies":
            assert bad[name].value > row.value, name
            assert row.reference is not None
        if name in ("precision", "coverage", "density"):
            assert bad[name].value < row.value, name
    first = next(iter(good))
    assert first.startswith("Frechet distance (random-cnn-")
    assert good[first].meaning == "held-out images"


def test_the_curve(real: tuple[Tensor, ...]) -> None:
    training, held_out, honest, _, _ = real
    found = measured(training, held_out, honest, honest + 0.5, honest)
    ((_, curve),) = found.curves.items()
    assert [budget for budget, _ in curve] == [5, 10, 100]
    assert curve[0][1] > 2 * curve[1][1]
    assert curve[1][1] == curve[2][1] == found.rows[0].value


def test_class_agreement(real: tuple[Tensor, ...]) -> None:
    training, held_out, honest, labels, training_labels = real
    reader = train_classifier(training, training_labels, 0, held_out=(honest, labels), epochs=8)
    for asked, low, high in ((labels, 0.9, 1.0), ((labels + 1) % 10, 0.0, 0.1)):
        found = measure_images({10: honest}, 10, Sets(training, held_out), reader, reader, asked, Rng(0))
        row = rows(found)["class agreement"]
        assert low <= row.value <= high
        assert row.reference == reader.accuracy
        assert found.rows[0].name.startswith("Frechet distance (cnn-images-")


def test_code_length() -> None:
    row = code_length(torch.tensor([3.0, 5.0, 4.0, 4.0]), given_class=True)
    assert row.name == "bits per dimension given the class, 4 held-out images"
    assert row.value == 4
    assert row.reference == pytest.approx(math.sqrt(2 / 3) / 2)
    assert (row.meaning, row.better) == ("standard error", "lower")
    assert code_length(torch.tensor([3.0, 5.0]), given_class=False).name == "bits per dimension, 2 held-out images"
    assert math.isnan(code_length(torch.tensor([3.0]), given_class=False).reference or 0)


def test_data_that_lie_sorted_are_met_in_any_order() -> None:
    rows = Rng(0).rows(torch.arange(9_000))
    images = 0.2 * rows.normal(1, 4, 4) + torch.where(rows.uniform() < 0.5, -0.6, 0.6)[:, None, None, None]
    real, held_out, fake = images[:6_000], images[6_000:7_000], images[7_000:]
    order = real.mean((1, 2, 3)).argsort()
    extractor = RandomFeatures(1, Rng(0))

    def figures(training: Tensor) -> dict[str, Row]:
        found = measure_images({10: fake}, 10, Sets(training, held_out), extractor, None, None, Rng(0))
        return {row.name: row for row in found.rows}

    found = figures(real[order])
    for name in ("energy distance (pixels)", "coverage"):
        row = found[name]
        assert row.reference is not None
        assert row.value == pytest.approx(row.reference, abs=0.05), name
    # Equal numbers on both sides: coverage of honest samples is near 1 - 2**-5.
    assert found["coverage"].value > 0.93
