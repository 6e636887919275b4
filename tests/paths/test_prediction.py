"""A network's output as a velocity, and a velocity on another schedule than its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import Rng, ShapeError, integrate, over
from rheos.core.protocols import Quantity, Solver, Step
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Flow
from rheos.paths import QUANTITIES, Affine, AsVelocity, Rescheduled, as_velocity
from rheos.schedules import Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving

MIX = GaussianMixture(
    torch.tensor([1.0, 2.0], dtype=torch.float64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3]], dtype=torch.float64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.4]]], dtype=torch.float64),
)
X = Rng(1).normal(5, 2, dtype=torch.float64)
SCHEDULES = [Linear(), Cosine(), Polynomial(), VariancePreserving(), VarianceExploding(0.02, 20.0)]


class RK4(Solver[Tensor]):
    """The classical rule, written for these tests."""

    def step(self, dynamics: Any, x: Tensor, t: Tensor, s: Tensor, memory: Any = (), rng: Any = None) -> Step[Tensor]:
        half = (t + s) / 2
        a = dynamics.rate(x, t, s)
        b = dynamics.rate(dynamics.move(x, a, t, half), half, s)
        c = dynamics.rate(dynamics.move(x, b, t, half), half, s)
        d = dynamics.rate(dynamics.move(x, c, t, s), s, s)
        return Step(dynamics.move(x, (a + 2 * b + 2 * c + d) / 6, t, s), s)


@pytest.mark.parametrize("predict", QUANTITIES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_prediction_stands_for_the_exact_velocity(predict: Quantity, schedule: Schedule) -> None:
    path = Affine(schedule)
    exact, score = MIX.velocity(path), MIX.score(path)

    def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert cond == "label"
        return path.convert(score(x, t), x, t, given="score", want=predict)

    for t in (torch.tensor(0.4, dtype=torch.float64), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)):
        got = as_velocity(network, path, predict)(X, t, "label")
        torch.testing.assert_close(got, exact(X, t), rtol=1e-10, atol=1e-10)


def test_a_velocity_is_returned_as_it_is() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return x

    assert as_velocity(network, Affine(), "velocity") is network
    wrapped = as_velocity(network, Affine(Cosine()), "data")
    assert isinstance(wrapped, AsVelocity)
    assert (wrapped.network, wrapped.path, wrapped.predict) == (network, Affine(Cosine()), "data")


def test_over_reaches_the_network_inside() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return x

    def doubled(model: Any) -> Any:
        return lambda *args: 2 * model(*args)

    t = torch.tensor(0.5, dtype=torch.float64)
    # x0 = (x - t*x1)/(1 - t), so a doubled prediction of the data 2x gives the velocity 2x - (x - x)/.5 = 2x.
    torch.testing.assert_close(over(as_velocity(network, Affine(), "data"), doubled)(X, t), 2 * X)
    moved = Rescheduled(network, Linear(), Cosine())
    plain, twice = moved(X, t), over(moved, doubled)(X, t)
    still = Rescheduled(lambda x, t: torch.zeros_like(x), Linear(), Cosine())(X, t)
    torch.testing.assert_close(twice - still, 2 * (plain - still))
    nested = Rescheduled(as_velocity(network, Affine(), "data"), Linear(), Cosine())
    tally = []

    def counted(model: Any) -> Any:
        return lambda *args: (tally.append(model), model(*args))[1]

    over(nested, counted)(X, t)
    assert tally == [network]


@pytest.mark.parametrize("own", SCHEDULES)
@pytest.mark.parametrize("new", SCHEDULES)
def test_a_rescheduled_velocity_is_the_exact_one_of_the_new_path(own: Schedule, new: Schedule) -> None:
    moved = Rescheduled(MIX.velocity(Affine(own)), own, new)
    exact = MIX.velocity(Affine(new))
    for t in (torch.tensor(0.55, dtype=torch.float64), torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7], dtype=torch.float64)):
        want = exact(X, t)
        torch.testing.assert_close(moved(X, t), want, rtol=1e-10, atol=1e-10 * (1 + float(want.abs().max())))


@pytest.mark.parametrize("new", SCHEDULES)
def test_a_clock_an_element_is_rescheduled_element_by_element(new: Schedule) -> None:
    """For independent data of variance 0.3, whose velocity is known at every clock."""

    def exact(schedule: Schedule) -> Any:
        def field(x: Tensor, t: Tensor) -> Tensor:
            frame = schedule.frame(t)
            pull = (frame.d_alpha * frame.alpha * 0.3 + frame.d_sigma * frame.sigma) / (
                frame.alpha**2 * 0.3 + frame.sigma**2
            )
            return pull.reshape(pull.shape + (1,) * (x.dim() - pull.dim())) * x

        return field

    x = Rng(3).normal(3, 2, 4, dtype=torch.float64)
    for shape in ((), (3,), (3, 2), (3, 2, 4)):
        t = 0.25 + 0.5 * Rng(4).uniform(*shape, dtype=torch.float64)
        got = Rescheduled(exact(Cosine()), Cosine(), new)(x, t)
        torch.testing.assert_close(got, exact(new)(x, t), rtol=1e-10, atol=1e-10)
    with pytest.raises(ShapeError):
        Rescheduled(exact(Cosine()), Cosine(), new)(x, torch.full((2,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("new", [Cosine(), Polynomial()])
def test_samples_do_not_depend_on_the_schedule(new: Schedule) -> None:
    grid = torch.linspace(0, 1, 81, dtype=torch.float64)
    velocity = MIX.velocity(Affine())
    straight = integrate(RK4(), Flow(velocity), X, grid).x
    moved = integrate(RK4(), Flow(Rescheduled(velocity, Linear(), new)), X, grid).x
    torch.testing.assert_close(moved, straight, rtol=1e-4, atol=1e-4)


def test_a_ratio_that_the_own_schedule_never_has_is_read_at_its_nearer_end() -> None:
    """Variance preservation starts with a little data in the noise, and the linear path with none."""
    moved = Rescheduled(MIX.velocity(Affine(VariancePreserving())), VariancePreserving(), Linear())
    for dtype in (torch.float64, torch.float32):
        x, t = X.to(dtype), torch.zeros((), dtype=dtype)
        got = moved(x.double(), t) if dtype == torch.float32 else moved(x, t)
        torch.testing.assert_close(
            got, MIX.velocity(Affine())(X, torch.zeros((), dtype=torch.float64)), rtol=0, atol=0.05
        )


def test_numbers_condition_and_dtype_pass_through() -> None:
    seen = []

    def network(x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        seen.append((x.dtype, t.dtype, cond))
        return x

    x = X.float()
    out = Rescheduled(network, Linear(), Cosine())(x, torch.tensor(0.5, dtype=torch.float64), "label")
    assert out.dtype == torch.float32
    assert Rescheduled(network, Linear(), Cosine())(x, 0.5).dtype == torch.float32  # pyright: ignore[reportArgumentType]
    assert [cond for *_, cond in seen] == [("label",), ()]
