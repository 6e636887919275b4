"""A schedule of one method: everything else of it is derived."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.schedules import Cosine, Polynomial, Schedule, VarianceExploding, VariancePreserving


@dataclass(frozen=True)
class Copy(Schedule):
    """The curve of another schedule, and nothing else of it."""

    of: Schedule

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.of(t)


@dataclass(frozen=True)
class Smooth(Schedule):
    """Stands still at both ends."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = t * t * (3 - 2 * t)
        return alpha, 1 - alpha


@dataclass(frozen=True)
class Fixed(Schedule):
    """A derivative in numbers, as a subclass may give it."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * t, 3 - 3 * t

    def derivative(self, t: Tensor) -> tuple[float, float]:
        return 2.0, -3.0


@pytest.mark.parametrize(
    "schedule",
    [Copy(Cosine()), Copy(Polynomial(3)), Copy(VariancePreserving()), Copy(VarianceExploding()), Smooth(), Fixed()],
)
def test_what_is_derived_keeps_the_laws(schedule: Schedule) -> None:
    testing.check_schedule(schedule)


@pytest.mark.parametrize(
    "schedule", [Cosine(), Polynomial(3), Polynomial(0.5), VariancePreserving(), VarianceExploding()]
)
def test_the_derived_frame_is_that_of_the_closed_form(schedule: Schedule) -> None:
    t = torch.tensor([[0.1, 0.3], [0.6, 0.9]], dtype=torch.float64)
    for got, want in zip(Copy(schedule).frame(t), schedule.frame(t), strict=True):
        torch.testing.assert_close(
            torch.as_tensor(got).expand(2, 2).double(), torch.as_tensor(want).expand(2, 2).double()
        )


@pytest.mark.parametrize(
    ("schedule", "end", "expected"),
    [
        (Smooth(), 0.0, (0, 1, 0, 0, 1, 0, 0, 0)),
        (Smooth(), 1.0, (1, 0, 0, 0, 0, -1, 0, 0)),
        (Copy(VariancePreserving()), 1.0, (1, 0, 0.05, -torch.inf, 0, -1, torch.inf, 0)),
        (Fixed(), 0.0, (0, 3, 2, -3, 1 / 3, -1 / 2, 6, 18)),
        (Fixed(), 1.0, (2, 0, 2, -3, 1 / 3, -1 / 2, 6, 0)),
    ],
)
def test_the_derived_direction_is_finite_where_the_speed_is_zero_or_infinite(
    schedule: Schedule, end: float, expected: tuple[float, ...]
) -> None:
    frame = schedule.frame(torch.tensor(end, dtype=torch.float64))
    assert [float(entry) for entry in frame] == pytest.approx(expected)


def test_a_curve_that_starts_with_some_data_and_stands_still_points_by_the_identity() -> None:
    class Late(Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return 0.5 + t**2, 2 - t**2

    frame = Late().frame(torch.tensor(0.0, dtype=torch.float64))
    assert (float(frame.p), float(frame.q)) == (0.5, -2.0)
    assert float(frame.flux) == 0.0


def test_what_bisection_finds_has_a_derivative_and_none_at_an_end() -> None:
    schedule, times = Copy(Fixed()), torch.tensor([0.05, 0.3, 0.71, 0.98], dtype=torch.float64)
    ratio = Fixed()(times)[0] / Fixed()(times)[1]

    def found(ratio: Tensor) -> Tensor:
        return schedule.time_of(ratio, torch.ones_like(ratio))

    values, slope = torch.func.jvp(found, (ratio,), (torch.ones_like(ratio),))
    torch.testing.assert_close(values, times)
    difference = (found(ratio + 1e-6) - found(ratio - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-5)
    beyond = torch.tensor([0.0, 1e25], dtype=torch.float64)
    assert not torch.func.jvp(found, (beyond,), (torch.ones_like(beyond),))[1].any()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-7), (torch.float64, 1e-15)])
def test_bisection_finds_times_to_rounding(dtype: torch.dtype, error: float) -> None:
    t = torch.tensor([[0.05, 0.3], [0.71, 0.98]], dtype=dtype)
    found = Copy(Fixed()).time_of(*Fixed()(t))
    assert found.dtype == dtype
    assert found.shape == (2, 2)
    assert float((found - t).abs().max()) <= error
    zero, one = torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)
    assert float(Copy(Fixed()).time_of(zero, one)) < error
    assert float(Copy(Fixed()).time_of(one, zero)) > 1 - error


def test_bounded_is_read_off_the_derived_derivative() -> None:
    assert Copy(Cosine()).bounded
    assert Fixed().bounded
    assert not Copy(VariancePreserving()).bounded
    assert not Copy(Polynomial(0.5)).bounded


def test_a_schedule_without_a_curve_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        Schedule()  # pyright: ignore[reportAbstractUsage]
