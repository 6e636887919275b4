"""A network that goes on as another flow: it begins as the flow that it was, and the loss is that flow's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, integrate
from rheos.objectives import Matching, MinSNR
from rheos.paths import Affine
from rheos.recipes.serial import decode, encode
from rheos.schedules import EDM, Cosine, CosineBetas, Discrete, VariancePreserving
from rheos.solvers import AdamsBashforth, Dopri5

STD = 0.5
T = torch.tensor([0.15, 0.4, 0.6, 0.85], dtype=torch.float64)
X0, X1 = Rng(1).normal(4, 3, dtype=torch.float64), STD * Rng(2).normal(4, 3, dtype=torch.float64)

EARLIER = [
    Matching(Affine(Cosine()), predict="v"),
    Matching(Affine(VariancePreserving()), predict="noise"),
    Matching(Affine(Discrete(CosineBetas())), predict="noise"),
    Matching(Affine(EDM()), predict="data", data_std=STD),
    Matching(before=Matching(Affine(Cosine()), predict="v")),
]


def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """Any function, the same on every path."""
    return torch.tanh(x + t.reshape(-1, 1)) + 0.1 * x.flip(1)


@pytest.mark.parametrize("before", EARLIER, ids=repr)
def test_it_begins_as_the_flow_that_it_was(before: Matching) -> None:
    after = Matching(before=before)
    solver, grid = Dopri5(1e-9, 1e-9), torch.tensor([0.05, 0.9], dtype=torch.float64)
    own, new = before.path.schedule, after.path.schedule
    began = own.time_of(*new(grid))
    alpha, sigma = own(began)
    # A state at the same ratio of data to noise lies at another scale.
    scale = 1 / (alpha + sigma)
    by_new = integrate(solver, after.dynamics(network), X0, grid).x
    by_own = integrate(solver, before.dynamics(network), X0 / scale[0], began).x
    torch.testing.assert_close(by_new, by_own * scale[1], atol=2e-6, rtol=2e-6)


def test_the_loss_is_that_of_the_velocity_it_stands_for() -> None:
    before = Matching(Affine(Cosine()), predict="v")
    after = Matching(before=before)
    angle = torch.atan2(T, 1 - T)
    x = T[:, None] * X1 + (1 - T[:, None]) * X0
    radius = (T.square() + (1 - T).square()).sqrt()[:, None]
    v = network(x / radius, angle / (torch.pi / 2))
    # v = cos*x0 - sin*x1 or its negative: from it and x/radius = sin*x1 + cos*x0 both ends follow.
    sin, cos = torch.sin(angle)[:, None], torch.cos(angle)[:, None]
    probe = before.path.target("v", X0, X1, angle / (torch.pi / 2))
    sign = torch.where(((sin * X0 - cos * X1) - probe).abs().max() < 1e-9, -1.0, 1.0)
    data, noise = sin * x / radius + sign * cos * v, cos * x / radius - sign * sin * v
    want = (data - noise - (X1 - X0)).square().mean(1)
    torch.testing.assert_close(after(network, X1, x0=X0, t=T).rows, want)


def test_a_noise_predictor_has_the_loss_of_noise_where_the_weight_is_the_signal() -> None:
    before = Matching(Affine(VariancePreserving()), predict="noise")
    t = torch.full((4,), 0.1, dtype=torch.float64)
    tau = before.path.schedule.time_of(*Affine().schedule(t))
    # At a ratio below gamma, min-SNR weighs an error of the velocity by t, which makes it one of the noise.
    weighed = Matching(before=before, weight=MinSNR())(network, X1, x0=X0, t=t).rows
    torch.testing.assert_close(weighed, before(network, X1, x0=X0, t=tau).rows, atol=1e-9, rtol=1e-7)


def test_times_at_which_the_network_told_nothing_are_known() -> None:
    before = Matching(predict="noise")
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    after = Matching(Affine(Cosine()), before=before)
    assert after.dynamics(network).determined(ends).tolist() == [False, True, True]  # type: ignore[union-attr]
    assert Matching(before=Matching(Affine(Cosine()))).dynamics(network).determined(ends) is None
    drawn = integrate(AdamsBashforth(2), after.dynamics(network), X0, ends).x
    assert bool(drawn.isfinite().all())


@pytest.mark.parametrize("before", EARLIER[:4], ids=repr)
def test_it_is_an_objective_like_others_and_stands_in_a_recipe(before: Matching) -> None:
    after = Matching(before=before)
    testing.check_objective(after)
    assert decode(encode(after)) == after


def test_another_quantity_is_refused() -> None:
    with pytest.raises(InputError, match="goes on as another flow is asked for the velocity, got predict = 'noise'"):
        Matching(predict="noise", before=Matching())
