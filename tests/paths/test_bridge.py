"""The Brownian bridge: its law, its velocity and score against closed forms, and the drifts of every process on it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.paths import Affine, Bridge, BridgeVelocity
from rheos.paths.bridge import Told, halves

F64 = torch.float64
X0, X1, Z = (Rng(k).normal(6, 3, dtype=F64) for k in range(3))
T = torch.tensor([0.05, 0.2, 0.4, 0.5, 0.7, 0.95], dtype=F64)


@pytest.mark.parametrize("sigma", [0.01, 0.7, 3.0])
def test_it_keeps_the_laws_of_a_path(sigma: float) -> None:
    testing.check_path(Bridge(sigma))


@pytest.mark.parametrize("time", [0.1, 0.5, 0.8])
def test_between_its_ends_it_is_normal_around_the_straight_line(time: float) -> None:
    count, sigma = 40_000, 1.3
    x0, x1 = torch.full((count, 2), -1.0, dtype=F64), torch.full((count, 2), 3.0, dtype=F64)
    x = Bridge(sigma).sample(x0, x1, torch.tensor(time, dtype=F64), Rng(3)).x
    mean, variance = -1 + 4 * time, sigma**2 * time * (1 - time)
    assert float((x.mean(0) - mean).abs().max()) < 4 * math.sqrt(variance / count)
    assert float((x.var(0) / variance - 1).abs().max()) < 4 * math.sqrt(2 / count)
    assert abs(float(torch.corrcoef(x.T)[0, 1])) < 4 / math.sqrt(count)


def test_a_sample_is_the_point_of_its_noise_and_a_row_has_its_own() -> None:
    bridge, rng = Bridge(0.7), Rng(4).rows(torch.arange(6))
    sample = bridge.sample(X0, X1, T, rng)
    z = bridge.noise(X1, rng)
    assert sample.t is T
    assert torch.equal(sample.x, bridge.point(X0, X1, T, z))
    assert torch.equal(sample.target, bridge.velocity(X0, X1, T, z))
    assert torch.equal(z, rng.normal(3, dtype=F64))
    assert torch.equal(bridge.sample(X0, X1, T, Rng(4)).x, sample.x)
    part = bridge.sample(X0[2:4], X1[2:4], T[2:4], Rng(4).rows(torch.arange(2, 4)))
    assert torch.equal(part.x, sample.x[2:4])


def test_it_begins_and_ends_where_it_was_told() -> None:
    bridge = Bridge(2.0)
    for time, end in ((0.0, X0), (1.0, X1)):
        sample = bridge.sample(X0, X1, torch.tensor(time, dtype=F64), Rng(4))
        assert torch.equal(sample.x, end)
        assert torch.equal(sample.target, X1 - X0)
        assert torch.equal(bridge.score(sample.x, X0, X1, torch.tensor(time, dtype=F64)), torch.zeros_like(X0))


def test_without_noise_it_is_the_straight_line() -> None:
    thin, line = Bridge(1e-12).sample(X0, X1, T, Rng(4)), Affine().sample(X0, X1, T)
    torch.testing.assert_close(thin.x, line.x, rtol=0, atol=1e-11)
    torch.testing.assert_close(thin.target, line.target, rtol=0, atol=1e-11)


def test_the_score_is_the_slope_of_the_log_density() -> None:
    bridge = Bridge(0.7)
    x = bridge.point(X0, X1, T, Z).requires_grad_()
    time = T[:, None]
    law = torch.distributions.Normal((1 - time) * X0 + time * X1, 0.7 * torch.sqrt(time * (1 - time)))
    (slope,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    torch.testing.assert_close(bridge.score(x.detach(), X0, X1, T), slope)
    torch.testing.assert_close(bridge.scale(T)[:, None] * slope, -Z)


@pytest.mark.parametrize("time", [0.03, 0.4, 0.9])
def test_the_velocity_moves_the_marginal_of_normal_ends(time: float) -> None:
    """In one dimension a normal law of variance V moves by ``V'/(2*V)*(x - mean)``. Point and target are linear in (x0,
    x1, z), so their covariances follow exactly from the responses to units."""
    start, end, cross, sigma = 1.5, 0.6, 0.4, 0.8
    joint = torch.tensor([[start, cross, 0.0], [cross, end, 0.0], [0.0, 0.0, 1.0]], dtype=F64)
    bridge, units = Bridge(sigma), torch.eye(3, dtype=F64)
    ends = units[:, 0:1], units[:, 1:2]
    t, z = torch.tensor(time, dtype=F64), units[:, 2:3]
    x, u = bridge.point(*ends, t, z)[:, 0], bridge.velocity(*ends, t, z)[:, 0]
    score = bridge.score(bridge.point(*ends, t, z), *ends, t)[:, 0]

    def variance(time: float) -> float:
        mixed = (1 - time) ** 2 * start + time**2 * end + 2 * time * (1 - time) * cross
        return mixed + sigma**2 * time * (1 - time)

    slope = (variance(time + 1e-6) - variance(time - 1e-6)) / 2e-6
    assert float(x @ joint @ x) == pytest.approx(variance(time), rel=1e-12)
    assert float(u @ joint @ x) == pytest.approx(slope / 2, rel=1e-8)
    # The score of a normal law is -(x - mean)/variance.
    assert float(score @ joint @ x) == pytest.approx(-1.0, rel=1e-12)


def told(second: Told, time: Tensor) -> Tensor:
    """What a network would give that knew the ends: displacement and score side by side."""
    scale = Bridge(0.7).scale(time)[:, None]
    return torch.cat([X1 - X0, Z if second == "noise" else -Z / scale], 1)


@pytest.mark.parametrize("second", ["score", "noise"])
def test_drifts_follow_from_displacement_and_score(second: Told) -> None:
    """Known ends: the flow has the conditional velocity, the process towards data ``(x1 - x)/(1 - t)``, the one towards
    t = 0 ``(x - x0)/t``."""
    bridge, output = Bridge(0.7), told(second, T)
    x, time = bridge.point(X0, X1, T, Z), T[:, None]
    torch.testing.assert_close(bridge.drift(output, T, told=second), bridge.velocity(X0, X1, T, Z))
    square = torch.full_like(T, 0.49)
    torch.testing.assert_close(bridge.drift(output, T, square, told=second), (X1 - x) / (1 - time))
    torch.testing.assert_close(bridge.drift(output, T, -square, told=second), (x - X0) / time)
    torch.testing.assert_close(
        bridge.drift(output, T, 0.3 * T, told=second),
        bridge.velocity(X0, X1, T, Z) + 0.15 * time * bridge.score(x, X0, X1, T),
    )
    network = BridgeVelocity(lambda x, t: output, bridge, second)
    assert torch.equal(network(x, T), bridge.drift(output, T, told=second))


def test_a_velocity_hands_on_its_condition_and_what_wraps_its_network() -> None:
    seen: list[object] = []

    def network(x: Tensor, t: Tensor, *cond: object) -> Tensor:
        seen.append(cond)
        return torch.cat([x, x], 1)

    velocity = BridgeVelocity(network, Bridge(0.7))
    plain = velocity(X0, T)
    velocity(X0, T, "label")
    assert seen == [(), ("label",)]
    doubled = velocity.over(lambda model: lambda *args: 2 * model(*args))
    torch.testing.assert_close(doubled(X0, T), 2 * plain)


def test_what_is_determined_at_the_ends() -> None:
    bridge, ends = Bridge(0.5), torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    assert bridge.determined(ends).tolist() == [True, True, True]
    assert bridge.determined(ends, "noise").tolist() == [False, True, False]
    output = torch.tensor([[2.0, 3.0]], dtype=F64).expand(3, 2)
    # Displacement 2 and score 3: velocity 2 -+ sigma**2/2*3 at the ends.
    assert bridge.drift(output, ends)[:, 0].tolist() == pytest.approx([1.625, 2.0, 2.375])
    square = torch.full_like(ends, 0.25)
    assert bridge.drift(output, ends, square)[:, 0].tolist() == pytest.approx([2.0, 2.375, 2.75])
    assert bridge.drift(output, ends, -square)[:, 0].tolist() == pytest.approx([1.25, 1.625, 2.0])
    # From the noise, an infinite part is left out, and so is one of weight 0.
    assert bridge.drift(output, ends, square, told="noise")[:, 0].tolist() == pytest.approx([2.0, 0.5, 2.0])
    near = torch.tensor([1e-10, 0.5, 1.0], dtype=F64)
    assert bridge.drift(output, near, square, told="noise")[:, 0].tolist() == pytest.approx([2.0, 0.5, 2.0], abs=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    for sigma in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="sigma of a bridge must be positive and finite, got"):
            Bridge(sigma)
    with pytest.raises(InputError, match="a bridge is random between its ends: give an rng"):
        Bridge(1.0).sample(X0, X1, T)
    with pytest.raises(ShapeError, match=r"must have one shape, got \(6, 3\) and \(6, 2\)"):
        Bridge(1.0).sample(X0, X1[:, :2], T, Rng(0))
    with pytest.raises(ShapeError, match="the shape of a time must be a prefix"):
        Bridge(1.0).sample(X0, X1, T[:3], Rng(0))
    with pytest.raises(InputError, match=r"a score is not told as 'nois'; did you mean 'noise'\?"):
        Bridge(1.0).drift(X0[:, :2], T, told="nois")  # pyright: ignore[reportArgumentType]
    for output in (X0, X0[:, 0]):
        with pytest.raises(ShapeError, match="displacement and score side by side along axis 1"):
            halves(output)
