"""Noise as a value of a recipe: what dynamics it makes, and the coefficient of the diffusion."""

from __future__ import annotations

import math

import pytest
import torch

from rheos.core import InputError, Rng, integrate
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Ancestral, AncestralNoise, Diffusion, DiffusionNoise, Flow
from rheos.paths import Affine
from rheos.recipes.serial import decode, encode
from rheos.schedules import EDM, Cosine, Linear, Schedule, VariancePreserving
from rheos.solvers import Euler
from rheos.solvers.grids import Uniform

F64 = torch.float64
MIX = GaussianMixture(
    torch.tensor([1.0, 2.0], dtype=F64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3]], dtype=F64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.4]]], dtype=F64),
)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VariancePreserving(), EDM(5.0)], ids=repr)
def test_the_coefficient_takes_as_much_as_the_flow(schedule: Schedule) -> None:
    t = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    path = Affine(schedule)
    sde = DiffusionNoise(0.7)(Flow(MIX.velocity(path)), path)
    assert isinstance(sde, Diffusion)
    alpha, sigma = schedule(t)
    rise, fall = (torch.as_tensor(d, dtype=F64) for d in schedule.derivative(t))
    torch.testing.assert_close(sde.diffusion(t).square(), 1.4 * (rise * sigma - alpha * fall) * sigma)
    # The score's share of the drift is that of noise taken away at the same rate: finite at both ends.
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    assert bool(sde.diffusion(ends).isfinite().all())


def test_on_straight_lines_it_is_the_root_of_two_eta_sigma() -> None:
    sde = DiffusionNoise(0.5)(Flow(MIX.velocity(Affine())), Affine())
    t = torch.tensor([0.0, 0.25, 1.0], dtype=F64)
    torch.testing.assert_close(sde.diffusion(t), (1 - t).sqrt())
    assert sde.diffusion(torch.tensor(0.5)).shape == ()


@pytest.mark.parametrize("schedule", [Linear(), VariancePreserving()], ids=repr)
def test_the_mean_of_a_mixture_is_kept(schedule: Schedule) -> None:
    path, count = Affine(schedule), 4000
    mean = (MIX.weights[:, None] * MIX.means).sum(0)
    start = path.prior(Rng(1).normal(count, 2, dtype=F64))
    x = integrate(Euler(), DiffusionNoise()(Flow(MIX.velocity(path)), path), start, Uniform()(200, F64), rng=2).x
    assert bool(((x.mean(0) - mean).abs() < 4 * x.std(0) / math.sqrt(count) + 0.02).all())


def test_ancestral_noise_hands_on_what_it_is_told() -> None:
    flow, path = Flow(MIX.velocity(Affine())), Affine()
    assert AncestralNoise(0.3, True)(flow, path) == Ancestral(flow, path, 0.3, True)
    for value in (AncestralNoise(0.3, True), DiffusionNoise(2.0)):
        assert decode(encode(value)) == value


def test_shares_that_cannot_be_are_refused() -> None:
    for make, eta in (
        (AncestralNoise, 1.5),
        (AncestralNoise, -0.1),
        (DiffusionNoise, -1.0),
        (DiffusionNoise, math.inf),
    ):
        with pytest.raises(InputError, match="the share eta of the noise is 0 or more"):
            make(eta)
