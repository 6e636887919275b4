"""Weights: the same loss in the words of another quantity, row by row."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng
from rheos.core.protocols import Quantity
from rheos.objectives import Matching, MinSNR, VelocityWeight
from rheos.objectives.weights import data_error
from rheos.paths import QUANTITIES, Affine
from rheos.schedules import Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving

SCHEDULES = [Linear(), Cosine(), Polynomial(), VariancePreserving(), VarianceExploding(0.1, 3.0)]
T = torch.tensor([0.15, 0.4, 0.6, 0.85], dtype=torch.float64)
X0, X1 = Rng(1).normal(4, 3, dtype=torch.float64), Rng(2).normal(4, 3, dtype=torch.float64)
GUESS = Rng(3).normal(4, 3, dtype=torch.float64)


def squares(path: Affine, given: Quantity, want: Quantity) -> Tensor:
    """The mean squared error in ``want`` of a network whose guess is of the quantity ``given``."""
    x = path.sample(X0, X1, T).x
    error = path.convert(GUESS, x, T, given=given, want=want) - path.target(want, X0, X1, T)
    return error.square().mean(1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("predict", QUANTITIES)
def test_the_velocity_weight_makes_any_loss_the_loss_on_the_velocity(schedule: Schedule, predict: Quantity) -> None:
    path = Affine(schedule)
    if predict == "velocity" and not schedule.bounded:
        pytest.skip("no network can predict it")
    objective = Matching(path, predict=predict, weight=VelocityWeight(1e12))
    rows = objective(lambda x, t: GUESS, X1, x0=X0, t=T).rows
    torch.testing.assert_close(rows, squares(path, predict, "velocity"), rtol=1e-10, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("predict", QUANTITIES)
def test_min_snr_is_one_loss_on_the_data_whatever_is_predicted(schedule: Schedule, predict: Quantity) -> None:
    path = Affine(schedule)
    if predict == "velocity" and not schedule.bounded:
        pytest.skip("no network can predict it")
    objective = Matching(path, predict=predict, weight=MinSNR(gamma=0.7))
    alpha, sigma = schedule(T)
    snr = torch.tensor([min((a / s) ** 2, 0.7) for a, s in zip(alpha.tolist(), sigma.tolist(), strict=True)])
    rows = objective(lambda x, t: GUESS, X1, x0=X0, t=T).rows
    torch.testing.assert_close(rows, snr.double() * squares(path, predict, "data"), rtol=1e-6, atol=0)
    if predict != "velocity":
        same = Matching(path, predict="data", weight=MinSNR(gamma=0.7))
        x = path.sample(X0, X1, T).x
        data = path.convert(GUESS, x, T, given=predict, want="data")
        torch.testing.assert_close(same(lambda x, t: data, X1, x0=X0, t=T).rows, rows, rtol=1e-10, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("predict", QUANTITIES)
def test_the_error_in_the_data_is_that_of_the_conversion(schedule: Schedule, predict: Quantity) -> None:
    path = Affine(schedule)
    x = path.sample(X0, X1, T).x
    one = path.convert(GUESS, x, T, given=predict, want="data")
    other = path.convert(GUESS + 1, x, T, given=predict, want="data")
    torch.testing.assert_close(data_error(path, T, predict), (other - one).abs()[:, 0], rtol=1e-10, atol=0)


LIMITS: list[tuple[Schedule, Quantity, float, float]] = [
    (Linear(), "data", 0.0, 1.0),
    (Linear(), "data", 1.0, 400.0),
    (Linear(), "noise", 0.0, 400.0),
    (Linear(), "noise", 1.0, 1.0),
    (Linear(), "score", 0.0, 400.0),
    (Linear(), "score", 1.0, 0.0),
    (Linear(), "v", 0.0, 1.0),
    (Linear(), "v", 1.0, 1.0),
    (Linear(), "velocity", 0.0, 1.0),
    (Linear(), "velocity", 1.0, 1.0),
    (Polynomial(), "data", 0.0, 0.0),
    (Polynomial(), "v", 1.0, 4.0),
    (VariancePreserving(), "v", 1.0, 400.0),
    (VariancePreserving(), "noise", 1.0, 400.0),
]


@pytest.mark.parametrize(("schedule", "predict", "time", "expected"), LIMITS)
def test_the_velocity_weight_at_the_ends_is_its_limit_or_its_ceiling(
    schedule: Schedule, predict: Quantity, time: float, expected: float
) -> None:
    weight = VelocityWeight()(Affine(schedule), torch.full((2,), time), predict)
    assert weight.tolist() == [expected, expected]


def test_the_velocity_weight_has_a_ceiling() -> None:
    t = torch.tensor([0.5, 0.8, 0.9, 0.99])
    weight = VelocityWeight(50.0)(Affine(), t, "data")
    torch.testing.assert_close(weight, torch.tensor([4.0, 25.0, 50.0, 50.0]))
    assert VelocityWeight().ceiling == 400.0


def test_min_snr_at_both_ends_of_data_prediction() -> None:
    weight = MinSNR()(Affine(), torch.tensor([0.0, 0.5, 0.75, 1.0]), "data")
    torch.testing.assert_close(weight, torch.tensor([0.0, 1.0, 5.0, 5.0]))
    assert MinSNR().gamma == 5.0
    assert MinSNR()(Affine(), torch.tensor([1.0]), "noise").tolist() == [0.0]
    assert MinSNR()(Affine(), torch.tensor([1.0]), "v").tolist() == [0.0]


def test_a_weight_is_one_number_a_row_and_as_wide_as_the_times() -> None:
    for weight in (MinSNR(), VelocityWeight()):
        for schedule in SCHEDULES:
            for predict in QUANTITIES:
                for dtype in (torch.float32, torch.float64):
                    out = weight(Affine(schedule), T.to(dtype), predict)
                    assert out.shape == (4,)
                    assert out.dtype == dtype


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_bounds_are_positive(value: float) -> None:
    with pytest.raises(InputError, match=f"gamma of the min-SNR weight must be positive, got {value}"):
        MinSNR(value)
    with pytest.raises(InputError, match=f"the ceiling of a weight must be positive, got {value}"):
        VelocityWeight(value)
    assert MinSNR(0.5).gamma == VelocityWeight(0.5).ceiling == 0.5


@pytest.mark.parametrize(("weight", "name"), [(MinSNR(), "gamma"), (VelocityWeight(), "ceiling")])
def test_a_weight_is_never_changed(weight, name):
    with pytest.raises(FrozenInstanceError):
        setattr(weight, name, 1.0)
