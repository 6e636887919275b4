"""Affine paths against closed forms in plain numbers: every quantity, schedule, batch and dimension."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.core.protocols import Quantity
from rheos.paths import QUANTITIES, Affine
from rheos.schedules import Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving

Numbers = tuple[float, float, float, float]
SIZES = (1, 2, 3, 5, 8)


def cosine(t: float) -> Numbers:
    half = math.pi / 2
    return math.sin(half * t), math.cos(half * t), half * math.cos(half * t), -half * math.sin(half * t)


def preserving(t: float) -> Numbers:
    """sigma**2 = 1 - alpha**2, so that sigma*d_sigma = -alpha*d_alpha."""
    rate = (0.1 + 20.0) / 2 - (20.0 - 0.1) * t**2 / 2 - 0.1 * t + 0.1 * t**2 / 2 - (20.0 - 0.1) * t
    tau = 1 - t
    rate = 0.1 * tau + 19.9 * tau**2 / 2
    alpha, sigma = math.exp(-rate / 2), math.sqrt(1 - math.exp(-rate))
    d_alpha = alpha * (0.1 + 19.9 * tau) / 2
    return alpha, sigma, d_alpha, -alpha * d_alpha / sigma


def exploding(t: float) -> Numbers:
    sigma = 3.0 * (0.1 / 3.0) ** t
    return 1.0, sigma, 0.0, sigma * math.log(0.1 / 3.0)


CURVES: list[tuple[Schedule, Callable[[float], Numbers]]] = [
    (Linear(), lambda t: (t, 1 - t, 1.0, -1.0)),
    (Cosine(), cosine),
    (Polynomial(), lambda t: (t**2, 1 - t**2, 2 * t, -2 * t)),
    (Polynomial(0.5), lambda t: (t**0.5, 1 - t**0.5, 0.5 * t**-0.5, -0.5 * t**-0.5)),
    (VariancePreserving(), preserving),
    (VarianceExploding(0.1, 3.0), exploding),
]


def quantities(x0: float, x1: float, numbers: Numbers) -> dict[Quantity, float]:
    alpha, sigma, d_alpha, d_sigma = numbers
    return {
        "velocity": d_alpha * x1 + d_sigma * x0,
        "data": x1,
        "noise": x0,
        "score": -x0 / sigma,
        "v": alpha * x0 - sigma * x1,
    }


def elementwise(x0: Tensor, x1: Tensor, t: Tensor, curve: Callable[[float], Numbers]) -> dict[str, Tensor]:
    """Every quantity and the state, element by element in Python's numbers."""
    spread = t.reshape(t.shape + (1,) * (x0.dim() - t.dim())).expand(x0.shape)
    rows = []
    for n, d, time in zip(x0.flatten().tolist(), x1.flatten().tolist(), spread.flatten().tolist(), strict=True):
        numbers = curve(time)
        rows.append({**quantities(n, d, numbers), "x": numbers[0] * d + numbers[1] * n})
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64).reshape(x0.shape) for name in rows[0]}


@pytest.mark.parametrize(("schedule", "curve"), CURVES)
@pytest.mark.parametrize("batch", SIZES)
def test_every_quantity_follows_from_every_other(
    schedule: Schedule, curve: Callable[[float], Numbers], batch: int
) -> None:
    path = Affine(schedule)
    for size in SIZES:
        x0, x1 = Rng(1).normal(batch, size, dtype=torch.float64), Rng(2).normal(batch, size, dtype=torch.float64)
        for shape in ((), (batch,), (batch, size)):
            t = 0.2 + 0.6 * Rng(3).uniform(*shape, dtype=torch.float64)
            want = elementwise(x0, x1, t, curve)
            sample = path.sample(x0, x1, t)
            assert sample.t is t
            torch.testing.assert_close(sample.x, want["x"], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(sample.target, want["velocity"], rtol=1e-12, atol=1e-12)
            for given in QUANTITIES:
                torch.testing.assert_close(path.target(given, x0, x1, t), want[given], rtol=1e-12, atol=1e-12)
                for wanted in QUANTITIES:
                    got = path.convert(want[given], want["x"], t, given=given, want=wanted)
                    scale = float(want[given].abs().max() + want[wanted].abs().max() + want["x"].abs().max())
                    torch.testing.assert_close(got, want[wanted], rtol=1e-12, atol=3e-13 * (1 + scale))


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in CURVES])
def test_built_in_paths_keep_the_laws(schedule: Schedule) -> None:
    testing.check_path(Affine(schedule))


@pytest.mark.parametrize(("rise", "fall"), [(1.0, 3.0), (2.0, 1.0), (1.0, 0.5), (0.5, 1.0), (2.0, 3.0)])
def test_a_straight_schedule_of_any_slope_keeps_the_laws(rise: float, fall: float) -> None:
    """Derivatives that are plain numbers, 1 and -1 among them."""

    class Straight(Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return rise * t, fall * (1 - t)

        def derivative(self, t: Tensor) -> tuple[float, float]:
            return rise, -fall

    testing.check_path(Affine(Straight()))


def test_a_path_is_linear_unless_told_otherwise() -> None:
    assert Affine() == Affine(Linear())
    assert QUANTITIES == ("velocity", "data", "noise", "score", "v")


@pytest.mark.parametrize(
    ("schedule", "scale"),
    [(Linear(), 1.0), (Cosine(), 1.0), (VarianceExploding(), 50.0), (VarianceExploding(0.1, 3), 3.0)],
)
def test_sampling_starts_from_noise_at_its_weight(schedule: Schedule, scale: float) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x0 = torch.tensor([[1.0, -2.0]], dtype=dtype)
        start = Affine(schedule).prior(x0)
        assert start.dtype == dtype
        assert start.tolist() == [[scale, -2 * scale]]


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in CURVES])
def test_float32_stays_float32_and_agrees_with_float64(schedule: Schedule) -> None:
    path = Affine(schedule)
    x0, x1 = Rng(1).normal(4, 3), Rng(2).normal(4, 3)
    for t in (torch.tensor(0.4), torch.tensor([0.3, 0.4, 0.5, 0.6]), torch.full((4,), 0.4, dtype=torch.float64)):
        sample = path.sample(x0, x1, t)
        for given in QUANTITIES:
            value = path.target(given, x0, x1, t)
            assert value.dtype == torch.float32
            for want in QUANTITIES:
                got = path.convert(value, sample.x, t, given=given, want=want)
                assert got.dtype == torch.float32
                exact = path.target(want, x0.double(), x1.double(), t.double())
                torch.testing.assert_close(got.double(), exact, rtol=2e-4, atol=2e-4)


DETERMINED = [
    (Linear(), {"data": [1, 1, 0], "noise": [0, 1, 1], "score": [0, 1, 1], "v": [1, 1, 1]}),
    (Cosine(), {"data": [1, 1, 0], "noise": [0, 1, 1], "score": [0, 1, 1], "v": [1, 1, 1]}),
    (Polynomial(), {"data": [1, 1, 0], "noise": [0, 1, 1], "score": [0, 1, 1], "v": [1, 1, 1]}),
    (Polynomial(0.5), {"data": [0, 1, 0], "noise": [0, 1, 1], "score": [0, 1, 1], "v": [0, 1, 1]}),
    (VariancePreserving(), {"data": [1, 1, 0], "noise": [1, 1, 0], "score": [1, 1, 1], "v": [1, 1, 0]}),
    (VarianceExploding(), {"data": [1, 1, 1], "noise": [1, 1, 1], "score": [1, 1, 1], "v": [1, 1, 1]}),
]


@pytest.mark.parametrize(("schedule", "table"), DETERMINED)
def test_determined_says_where_a_quantity_gives_the_velocity(
    schedule: Schedule, table: dict[Quantity, list[int]]
) -> None:
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    for given, expected in {**table, "velocity": [1, 1, 1]}.items():
        found = Affine(schedule).determined(times, given)
        assert found.dtype == torch.bool
        assert found.tolist() == [bool(e) for e in expected]
        assert [bool(Affine(schedule).determined(t, given)) for t in times] == found.tolist()
        assert Affine(schedule).determined(times[:, None].expand(3, 2), given).shape == (3, 2)


def test_names_that_are_no_quantity_are_refused_with_the_nearest() -> None:
    x = torch.zeros(2, 3)
    for given, want in (("velocty", "data"), ("data", "velocty")):
        with pytest.raises(InputError, match=r"'velocty' is no quantity of a path; did you mean 'velocity'\?"):
            Affine().convert(x, x, torch.tensor(0.5), given=given, want=want)  # pyright: ignore[reportArgumentType]


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"noise and data must have one shape, got \(2, 3\) and \(2, 1\)"):
        Affine().sample(torch.zeros(2, 3), torch.zeros(2, 1), torch.tensor(0.5))
    with pytest.raises(ShapeError, match=r"a prediction and its state must have one shape, got \(2, 1\) and \(2, 3\)"):
        Affine().convert(torch.zeros(2, 1), torch.zeros(2, 3), torch.tensor(0.5), given="data", want="noise")


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 1), (2, 3, 1)])
def test_times_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    x, t = torch.zeros(2, 3), torch.full(shape, 0.5)
    for schedule, _ in CURVES:
        path = Affine(schedule)
        with pytest.raises(ShapeError):
            path.sample(x, x, t)
        with pytest.raises(ShapeError):
            path.convert(x, x, t, given="data", want="noise")
        with pytest.raises(ShapeError):
            path.target("v", x, x, t)


def test_what_is_given_is_returned_as_it_is() -> None:
    x, value = torch.ones(2, 3), torch.full((2, 3), float("inf"))
    assert Affine().convert(value, x, torch.tensor(0.0), given="score", want="score") is value
    assert Affine().target("data", x, value, torch.tensor(0.0)) is value
    assert Affine().target("noise", value, x, torch.tensor(0.0)) is value
