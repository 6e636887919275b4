"""Curves through snapshots: against SciPy and NumPy, their velocity against derivatives, and the laws of a path."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.core.protocols import PathSample
from rheos.paths import Affine
from rheos.paths.spline import Chain, Curve, Spline

F64 = torch.float64
TIMES = [(0.0, 1.0), (0.0, 0.5, 1.0), (0.0, 0.2, 0.7, 1.0), (0.0, 0.1, 0.15, 0.4, 0.8, 1.0)]
CURVES = [kind(times) for kind in (Chain, Spline) for times in TIMES]


def states(curve: Curve, rows: int, *shape: int) -> Tensor:
    return Rng(len(curve.times)).normal(rows, len(curve.times), *shape, dtype=F64)


class Through:
    """A curve as a path: its inner states are given by the outer ones."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor, rng: Rng | None = None) -> PathSample[Tensor]:
        inner = [torch.sin(3 * k * x0) + x1 for k in range(1, len(self.curve.times) - 1)]
        return self.curve.sample(torch.stack([x0, *inner, x1], 1), t)


@pytest.mark.parametrize("curve", CURVES)
def test_curves_keep_the_laws_of_a_path(curve: Curve) -> None:
    testing.check_path(Through(curve))


@pytest.mark.parametrize("times", TIMES)
def test_a_spline_is_the_natural_one(times: tuple[float, ...]) -> None:
    curve = Spline(times)
    x = states(curve, 40, 2, 3)
    t = torch.cat([torch.tensor(times, dtype=F64), Rng(1).uniform(40 - len(times), dtype=F64)])
    sample = curve.sample(x, t)
    for b in range(40):
        peer = CubicSpline(times, x[b].numpy(), bc_type="natural")
        np.testing.assert_allclose(sample.x[b].numpy(), peer(float(t[b])), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(sample.target[b].numpy(), peer(float(t[b]), 1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("times", TIMES)
def test_a_chain_is_made_of_straight_lines(times: tuple[float, ...]) -> None:
    curve = Chain(times)
    x = states(curve, 50)
    t = Rng(1).uniform(50, dtype=F64)
    sample = curve.sample(x, t)
    for b in range(50):
        line = x[b].numpy()
        assert float(sample.x[b]) == pytest.approx(np.interp(float(t[b]), times, line), rel=1e-10)
        piece = int(np.searchsorted(times, float(t[b]))) - 1
        slope = (line[piece + 1] - line[piece]) / (times[piece + 1] - times[piece])
        assert float(sample.target[b]) == pytest.approx(slope, rel=1e-10)


@pytest.mark.parametrize("curve", CURVES)
def test_the_target_is_the_difference_quotient(curve: Curve) -> None:
    x = states(curve, 30, 2)
    t = 0.01 + 0.98 * Rng(2).uniform(30, dtype=F64)
    t = torch.where((t[:, None] - torch.tensor(curve.times)).abs().amin(1) < 1e-4, t + 2e-4, t)
    quotient = (curve.sample(x, t + 1e-5).x - curve.sample(x, t - 1e-5).x) / 2e-5
    torch.testing.assert_close(curve.sample(x, t).target, quotient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_passes_its_states_in_both_precisions(curve: Curve) -> None:
    x = states(curve, 3, 2)
    for k, time in enumerate(curve.times):
        torch.testing.assert_close(curve.sample(x, torch.tensor(time, dtype=F64)).x, x[:, k], rtol=0, atol=1e-14)
        single = curve.sample(x.float(), torch.full((3,), time))
        assert single.x.dtype == single.target.dtype == torch.float32
        torch.testing.assert_close(single.x, x[:, k].float(), rtol=0, atol=1e-6)


def test_through_two_states_both_are_the_affine_path() -> None:
    x, t = states(Spline((0.0, 1.0)), 8, 3), Rng(1).uniform(8, dtype=F64)
    line = Affine().sample(x[:, 0], x[:, 1], t)
    for curve in (Chain((0.0, 1.0)), Spline((0.0, 1.0))):
        sample = curve.sample(x, t)
        torch.testing.assert_close(sample.x, line.x)
        torch.testing.assert_close(sample.target, line.target)


def test_a_spline_turns_no_corner_and_a_chain_does() -> None:
    times = (0.0, 0.3, 1.0)
    x = torch.tensor([[0.0, 1.0, 0.0]], dtype=F64)
    for curve, jump in ((Spline(times), 0.0), (Chain(times), -1 / 0.3 - 1 / 0.7)):
        before, after = (curve.sample(x, torch.tensor(0.3 + step, dtype=F64)).target for step in (-1e-9, 1e-9))
        assert float(after - before) == pytest.approx(jump, abs=1e-6)


def test_at_a_snapshot_the_later_line_of_a_chain_counts() -> None:
    x = torch.tensor([[0.0, 1.0, 0.0]], dtype=F64).expand(3, 3)
    found = Chain((0.0, 0.25, 1.0)).sample(x, torch.tensor([0.0, 0.25, 1.0], dtype=F64)).target
    assert found.tolist() == pytest.approx([4.0, -4 / 3, -4 / 3])


def test_times_that_do_not_rise_from_0_to_1_are_refused() -> None:
    for times in ((), (0.0,), (0.1, 1.0), (0.0, 0.9), (0.0, 0.5, 0.5, 1.0), (0.0, 0.7, 0.3, 1.0), (0.0, math.nan, 1.0)):
        for kind in (Chain, Spline):
            with pytest.raises(InputError, match="the times of a curve rise from 0 for the first state to 1"):
                kind(times)


def test_another_number_of_states_is_refused() -> None:
    for x in (torch.zeros(4, 2, 5), torch.zeros(4, 4, 5), torch.zeros(4)):
        with pytest.raises(ShapeError, match=r"this curve passes 3 states, \(B, 3, ...\), got"):
            Spline((0.0, 0.5, 1.0)).sample(x, torch.full((4,), 0.5))
