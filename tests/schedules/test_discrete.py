"""Schedules of discrete diffusion models: exact at every step, smooth and monotone between."""

from __future__ import annotations

import math

import pytest
import torch

from rheos import testing
from rheos.core import InputError
from rheos.paths import Affine
from rheos.schedules import Betas, CosineBetas, Discrete, LinearBetas, ScaledBetas

BETAS = [LinearBetas(), ScaledBetas(), CosineBetas(), LinearBetas(50, 1e-3, 0.2), CosineBetas(20)]


@pytest.mark.parametrize("betas", BETAS)
def test_it_keeps_the_laws(betas: Betas) -> None:
    testing.check_schedule(Discrete(betas))
    testing.check_path(Affine(Discrete(betas)))


@pytest.mark.parametrize("betas", BETAS)
def test_at_every_step_it_is_the_product_of_what_was_kept(betas: Betas) -> None:
    schedule, kept, step = Discrete(betas), 1.0, torch.arange(betas.steps)
    alpha, sigma = schedule(schedule.time(step))
    for k, beta in enumerate(betas.values().tolist()):
        kept *= 1 - beta
        assert float(alpha[k]) == pytest.approx(math.sqrt(kept), rel=1e-12)
        assert float(sigma[k]) == pytest.approx(math.sqrt(1 - kept), rel=1e-10)
    torch.testing.assert_close(schedule.step(schedule.time(step)), step.double(), rtol=0, atol=1e-10)
    assert float(schedule.time(torch.tensor(betas.steps - 1))) == 0
    ends = schedule(torch.tensor([1.0]))
    assert [float(end) for end in ends] == [1, 0]
    assert math.copysign(1, float(ends[1])) == 1
    single = schedule(schedule.time(step).float())[0]
    torch.testing.assert_close(single.double(), alpha, rtol=1e-3, atol=1e-6)


def test_betas_are_the_papers() -> None:
    linear, scaled, cosine = (betas.values() for betas in BETAS[:3])
    assert [float(linear[k]) for k in (0, -1)] == pytest.approx([1e-4, 2e-2])
    assert float(linear[1] - linear[0]) == pytest.approx((2e-2 - 1e-4) / 999)
    assert [float(scaled[k]) for k in (0, -1)] == pytest.approx([0.00085, 0.012])
    assert float(scaled[499]) == pytest.approx((0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * 499 / 999) ** 2)

    def kept(k: int) -> float:
        return math.cos((k / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    assert float(cosine[300]) == pytest.approx(1 - kept(301) / kept(300))
    assert float(cosine[-1]) == 0.999


@pytest.mark.parametrize("betas", BETAS)
def test_between_the_steps_noise_grows_steadily(betas: Betas) -> None:
    schedule = Discrete(betas)
    t = torch.linspace(0, 1, 17 * betas.steps + 1, dtype=torch.float64)
    _, slope = schedule.log_alpha(t)
    assert bool((slope > 0).all())
    # Towards the data it begins like the first beta, so that sigma is a root there.
    assert float(slope[-1]) == pytest.approx(-0.5 * betas.steps * math.log1p(-float(betas.values()[0])))


def test_what_is_no_discrete_diffusion_is_refused() -> None:
    for betas in (LinearBetas(1), LinearBetas(10, 0.0, 0.1), LinearBetas(10, 0.1, 1.0), LinearBetas(10, math.nan, 0.1)):
        with pytest.raises(InputError, match="two steps or more, with betas in"):
            Discrete(betas)
    assert not Discrete().bounded
