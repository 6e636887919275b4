"""Training times against analytic distribution functions, and the evenness of stratified ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import Tensor

from rheos.core import InputError, Rng, ShapeError
from rheos.objectives.times import LogitNormal, LogNormal, Mode, Shifted, Steps, Times, Uniform
from rheos.schedules import CosineBetas, Discrete

COUNT = 20_000


def logit_normal(mean: float, std: float) -> Callable[[Any], Any]:
    """P(time <= t), where logit(1 - time) is normal."""
    return lambda t: stats.norm.sf(np.log((1 - t) / t), mean, std)


def mode(scale: float) -> Callable[[Any], Any]:
    """Esser et al.: f(u) is the amount of noise; P(time <= t) = P(f(u) >= 1 - t), and f falls."""

    def noise(u: float) -> float:
        return 1 - u - scale * (math.cos(math.pi * u / 2) ** 2 - 1 + u)

    @np.vectorize
    def distribution(t: float) -> float:
        return float(optimize.brentq(lambda u: noise(u) - (1 - t), 0, 1))

    return distribution


def shifted(shift: float) -> Callable[[Any], Any]:
    """The amount of noise is s*n/(1 + (s - 1)*n) for uniform n."""
    return lambda t: 1 - (1 - t) / (shift - (shift - 1) * (1 - t))


LAWS = [
    (Uniform(), lambda t: t),
    (LogitNormal(), logit_normal(0, 1)),
    (LogitNormal(mean=-1.2, std=1.2), logit_normal(-1.2, 1.2)),
    (LogitNormal(mean=0.5, std=0.3), logit_normal(0.5, 0.3)),
    (LogNormal(), lambda t: stats.norm.sf(np.log(80 * (1 - t)), -1.2, 1.2)),
    (LogNormal(mean=0.5, std=0.3, sigma_max=10.0), lambda t: stats.norm.sf(np.log(10 * (1 - t)), 0.5, 0.3)),
    (Mode(), mode(1.29)),
    (Mode(scale=-1.0), mode(-1.0)),
    (Mode(scale=0.0), lambda t: t),
    (Shifted(), shifted(3.0)),
    (Shifted(shift=0.4), shifted(0.4)),
    (Shifted(shift=1.0), lambda t: t),
]


@pytest.mark.parametrize(("times", "distribution"), LAWS)
def test_times_have_their_density(times: Times, distribution: Callable[[Any], Any]) -> None:
    drawn = times(Rng(3).rows(torch.arange(COUNT)))
    assert drawn.shape == (COUNT,)
    assert drawn.dtype == torch.float32
    assert 0 < float(drawn.min()) < float(drawn.max()) < 1
    # Through its distribution function, every fourth draw; brentq is slow.
    assert stats.kstest(distribution(drawn[::4].double().numpy()), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("times", "distribution"), LAWS)
def test_warp_is_the_quantile_function(times: Times, distribution: Callable[[Any], Any]) -> None:
    u = torch.tensor([0.01, 0.2, 0.5, 0.77, 0.99], dtype=torch.float64)
    np.testing.assert_allclose(distribution(times.warp(u).numpy()), u.numpy(), rtol=1e-9, atol=1e-9)
    assert times.warp(u).dtype == torch.float64


def test_an_independent_time_is_a_function_of_the_key_alone() -> None:
    rows = Rng(3).rows(torch.arange(8))
    whole = Uniform()(rows)
    assert torch.equal(whole, rows.uniform(dtype=torch.float32))
    assert torch.equal(Uniform()(Rng(rows.key[2:5])), whole[2:5])


@pytest.mark.parametrize("first", [0, 1, 1000, 123_456])
def test_stratified_times_are_evenly_spread(first: int) -> None:
    for count in (16, 128):
        drawn = Uniform(stratified=True)(Rng(1).rows(torch.arange(first, first + count))).sort().values.double()
        rank = torch.arange(count, dtype=torch.float64)
        discrepancy = float(torch.maximum(drawn - rank / count, (rank + 1) / count - drawn).max())
        assert discrepancy < 3 / count


def test_stratified_times_turn_by_the_golden_ratio() -> None:
    rows = [0, 1, 5, 1000, 2**31]
    drawn = Uniform(stratified=True)(Rng(1).rows(torch.tensor(rows)))
    golden = (math.sqrt(5) - 1) / 2
    assert drawn.tolist() == pytest.approx([(row * golden + golden / 2) % 1 for row in rows], abs=1e-6)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, Uniform(stratified=True)(Rng(2).rows(torch.tensor(rows))))
    warped = Shifted(stratified=True)(Rng(1).rows(torch.tensor(rows)))
    torch.testing.assert_close(warped, Shifted().warp(drawn))


def test_stratified_times_stay_inside_the_open_interval() -> None:
    """At these rows the golden ratio has turned by a whole number of times but for 1e-8, too much and too little."""
    drawn = Uniform(stratified=True)(Rng(1).rows(torch.tensor([12_078_908, 27_009_260])))
    assert drawn.tolist() == [2.0**-24, 1 - 2.0**-24]


def test_stratified_times_need_rows() -> None:
    with pytest.raises(ShapeError, match="stratified times need an Rng with rows"):
        Uniform(stratified=True)(Rng(1))
    assert Uniform()(Rng(1)).shape == ()


def test_defaults() -> None:
    assert (LogitNormal().mean, LogitNormal().std) == (0.0, 1.0)
    assert Mode().scale == 1.29
    assert Shifted().shift == 3.0
    assert not any(times.stratified for times in (Uniform(), LogitNormal(), Mode(), Shifted()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormal(std=0.0), r"logit-normal times must be positive, got 0\.0"),
        (lambda: LogitNormal(std=-1.0), r"must be positive, got -1\.0"),
        (lambda: Mode(scale=-1.01), r"lies in \[-1, 1\.752\], got -1\.01"),
        (lambda: Mode(scale=1.76), r"lies in \[-1, 1\.752\], got 1\.76"),
        (lambda: Shifted(shift=0.0), r"the shift of times must be positive, got 0\.0"),
        (lambda: Shifted(shift=-2.0), r"got -2\.0"),
    ],
)
def test_parameters_that_make_no_density_are_refused(make: Callable[[], Times], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_bounds_themselves_are_allowed() -> None:
    assert Mode(scale=-1.0).scale == -1.0
    assert Mode(scale=2 / (math.pi - 2)).scale > 1.75
    assert LogitNormal(std=0.5).std == 0.5
    assert Shifted(shift=0.5).shift == 0.5


def test_a_density_of_ones_own_is_a_quantile_function() -> None:
    class Late(Times):
        def warp(self, u: Tensor) -> Tensor:
            return u.sqrt()

    assert stats.kstest(Late()(Rng(1).rows(torch.arange(4000))).double().numpy() ** 2, "uniform").pvalue > 1e-3
    with pytest.raises(TypeError):
        Times()  # pyright: ignore[reportAbstractUsage]


def test_steps_are_those_of_a_discrete_diffusion() -> None:
    schedule = Discrete(CosineBetas(20))
    found = Steps(count=20)(Rng(1).rows(torch.arange(COUNT)))
    k = schedule.step(found.double()).round().long()
    torch.testing.assert_close(found.double(), schedule.time(k), rtol=0, atol=1e-6)
    counts = torch.bincount(k, minlength=20)
    assert len(counts) == 20
    assert float((counts - COUNT / 20).abs().max()) < 5 * (COUNT / 20 * 0.95) ** 0.5
    even = torch.bincount(schedule.step(Steps(True, 20)(Rng(1).rows(torch.arange(COUNT))).double()).round().long())
    assert float((even - COUNT / 20).abs().max()) <= 5
    assert Steps(count=20).warp(torch.tensor([1.0])).tolist() == pytest.approx([0.95])
    with pytest.raises(InputError, match="at least one step, got 0"):
        Steps(count=0)
