"""Schedules against closed forms written down a second time, and against their limits at both ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate

from rheos import testing
from rheos.core import InputError
from rheos.schedules import EDM, Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving


def preserving(low: float, high: float) -> Callable[[float], tuple[float, float]]:
    def curve(t: float) -> tuple[float, float]:
        rate, _ = integrate.quad(lambda tau: low + (high - low) * tau, 0, 1 - t, epsabs=1e-13, epsrel=1e-13)
        return math.exp(-rate / 2), math.sqrt(-math.expm1(-rate))

    return curve


def exploding(low: float, high: float) -> Callable[[float], tuple[float, float]]:
    return lambda t: (1.0, math.exp((1 - t) * math.log(high) + t * math.log(low)))


CURVES: list[tuple[Schedule, Callable[[float], tuple[float, float]]]] = [
    (Linear(), lambda t: (t, 1 - t)),
    (Cosine(), lambda t: (math.sin(math.pi * t / 2), math.cos(math.pi * t / 2))),
    (Polynomial(), lambda t: (t * t, 1 - t * t)),
    (Polynomial(1), lambda t: (t, 1 - t)),
    (Polynomial(3.5), lambda t: (t**3.5, 1 - t**3.5)),
    (Polynomial(0.5), lambda t: (math.sqrt(t), 1 - math.sqrt(t))),
    (VariancePreserving(), preserving(0.1, 20.0)),
    (VariancePreserving(1.0, 5.0), preserving(1.0, 5.0)),
    (VariancePreserving(3.0, 3.0), preserving(3.0, 3.0)),
    (VarianceExploding(), exploding(0.01, 50.0)),
    (VarianceExploding(0.1, 2.0), exploding(0.1, 2.0)),
    (EDM(), lambda t: (1.0, 80 * (1 - t))),
]
SCHEDULES = [schedule for schedule, _ in CURVES]
TIMES = torch.tensor([0.013, 0.25, 0.5, 0.77, 0.96], dtype=torch.float64)
INF = math.inf


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_built_in_schedules_keep_the_laws(schedule: Schedule) -> None:
    testing.check_schedule(schedule)


@pytest.mark.parametrize(("schedule", "curve"), CURVES)
def test_alpha_and_sigma_are_the_closed_forms(
    schedule: Schedule, curve: Callable[[float], tuple[float, float]]
) -> None:
    alpha, sigma = schedule(TIMES)
    for t, a, s in zip(TIMES.tolist(), alpha.tolist(), sigma.tolist(), strict=True):
        assert (a, s) == pytest.approx(curve(t), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize(("schedule", "curve"), CURVES)
def test_derivatives_are_those_of_the_closed_forms(
    schedule: Schedule, curve: Callable[[float], tuple[float, float]]
) -> None:
    h = 1e-5
    d_alpha, d_sigma = (torch.as_tensor(d).expand(5) for d in schedule.derivative(TIMES))
    for n, t in enumerate(TIMES.tolist()):
        ahead, behind = curve(t + h), curve(t - h)
        assert float(d_alpha[n]) == pytest.approx((ahead[0] - behind[0]) / (2 * h), rel=1e-6, abs=1e-7)
        assert float(d_sigma[n]) == pytest.approx((ahead[1] - behind[1]) / (2 * h), rel=1e-6, abs=1e-7)


_A0 = math.exp(-20.1 / 4)
_S0 = math.sqrt(1 - _A0**2)
_FALL = math.log(5000)
ENDS = [
    (Linear(), 0.0, (0, 1, 1, -1, 1, -1, 1, 1)),
    (Linear(), 1.0, (1, 0, 1, -1, 1, -1, 1, 0)),
    (Cosine(), 0.0, (0, 1, math.pi / 2, 0, 1, 0, math.pi / 2, math.pi / 2)),
    (Cosine(), 1.0, (1, 0, 0, -math.pi / 2, 0, -1, math.pi / 2, 0)),
    (Polynomial(), 0.0, (0, 1, 0, 0, 1, -1, 0, 0)),
    (Polynomial(), 1.0, (1, 0, 2, -2, 1, -1, 2, 0)),
    (Polynomial(0.5), 0.0, (0, 1, INF, -INF, 1, -1, INF, INF)),
    (Polynomial(0.5), 1.0, (1, 0, 0.5, -0.5, 1, -1, 0.5, 0)),
    (VariancePreserving(), 0.0, (_A0, _S0, 10 * _A0, -10 * _A0**2 / _S0, _S0, -_A0, 10 * _A0 / _S0, 10 * _A0)),
    (VariancePreserving(), 1.0, (1, 0, 0.05, -INF, 0, -1, INF, 0.05)),
    (VarianceExploding(), 0.0, (1, 50, 0, -50 * _FALL, 0, -1, 50 * _FALL, 2500 * _FALL)),
    (VarianceExploding(), 1.0, (1, 0.01, 0, -0.01 * _FALL, 0, -1, 0.01 * _FALL, 0.0001 * _FALL)),
]


@pytest.mark.parametrize(("schedule", "end", "expected"), ENDS)
def test_the_frame_at_the_ends_is_its_limit(schedule: Schedule, end: float, expected: tuple[float, ...]) -> None:
    for shape in ((), (1,), (2, 3)):
        frame = schedule.frame(torch.full(shape, end, dtype=torch.float64))
        for entry, value in zip(frame, expected, strict=True):
            numbers = entry.unique().tolist() if isinstance(entry, torch.Tensor) else [entry]
            assert numbers == pytest.approx([value], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("schedule", "end", "expected"), ENDS)
def test_the_limits_are_those_of_the_interior(schedule: Schedule, end: float, expected: tuple[float, ...]) -> None:
    inside = schedule.frame(torch.tensor(abs(end - 1e-9), dtype=torch.float64))
    for value, limit in zip(inside, expected, strict=True):
        if math.isfinite(limit):
            assert float(value) == pytest.approx(limit, rel=1e-3, abs=1e-3)
        else:
            assert float(value) * limit > 0
            assert abs(float(value)) > 1e3


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Polynomial(), Polynomial(0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_and_data_are_met_exactly(schedule: Schedule, dtype: torch.dtype) -> None:
    alpha, sigma = schedule(torch.tensor([0.0, 1.0], dtype=dtype))
    assert alpha.tolist() == [0.0, 1.0]
    assert sigma.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("schedule", "bounded"),
    [
        (Linear(), True),
        (Cosine(), True),
        (Polynomial(1), True),
        (Polynomial(2), True),
        (Polynomial(0.99), False),
        (VariancePreserving(), False),
        (VarianceExploding(), True),
    ],
)
def test_bounded_says_whether_a_velocity_can_be_predicted(schedule: Schedule, bounded: bool) -> None:
    assert schedule.bounded is bounded


def test_ratios_that_a_schedule_never_has_are_held_at_its_nearer_end() -> None:
    ratio = torch.tensor([0.0, 1e-9, 1e9, INF], dtype=torch.float64)
    one = torch.ones_like(ratio)
    for schedule in (VariancePreserving(), VarianceExploding()):
        assert schedule.time_of(ratio[:3], one[:3]).tolist() == pytest.approx([0.0, 0.0, 1.0])
        assert float(schedule.time_of(one[0], torch.zeros((), dtype=torch.float64))) == 1.0
        assert float(schedule.time_of(torch.zeros((), dtype=torch.float64), one[0])) == 0.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_time_of_is_exact_to_rounding(schedule: Schedule) -> None:
    alpha, sigma = schedule(TIMES)
    torch.testing.assert_close(schedule.time_of(alpha, sigma), TIMES, rtol=0, atol=2e-13)
    torch.testing.assert_close(schedule.time_of(7 * alpha, 7 * sigma), TIMES, rtol=0, atol=2e-13)


def test_defaults_are_the_published_ones() -> None:
    assert Polynomial().n == 2.0
    assert (VariancePreserving().beta_min, VariancePreserving().beta_max) == (0.1, 20.0)
    assert (VarianceExploding().sigma_min, VarianceExploding().sigma_max) == (0.01, 50.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Polynomial(0), "must be positive, got 0"),
        (lambda: Polynomial(-1.0), r"must be positive, got -1\.0"),
        (lambda: Polynomial(float("nan")), "must be positive, got nan"),
        (lambda: VariancePreserving(0.0, 1.0), r"0 < beta_min <= beta_max is needed, got 0\.0 and 1\.0"),
        (lambda: VariancePreserving(-1.0, 1.0), r"got -1\.0 and 1\.0"),
        (lambda: VariancePreserving(2.0, 1.0), r"got 2\.0 and 1\.0"),
        (lambda: VarianceExploding(0.0, 1.0), r"0 < sigma_min < sigma_max is needed, got 0\.0 and 1\.0"),
        (lambda: VarianceExploding(1.0, 1.0), r"got 1\.0 and 1\.0"),
        (lambda: VarianceExploding(2.0, 1.0), r"got 2\.0 and 1\.0"),
    ],
)
def test_parameters_that_make_no_schedule_are_refused(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_small_parameters_are_allowed() -> None:
    assert Polynomial(0.25).n == 0.25
    assert VariancePreserving(0.5, 1.0).beta_min == 0.5
    assert VarianceExploding(0.5, 1.0).sigma_min == 0.5
