"""Metrics that data make: their laws against sums written out, and what they do to paths."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng, ShapeError
from rheos.paths.learned import Correction, LearnedInterpolant
from rheos.paths.metric import LAND, RBF
from rheos.recipes.serial import decode, encode

DATA = Rng(1).normal(40, 2, dtype=torch.float64) * torch.tensor([2.0, 0.3])
X = Rng(2).normal(6, 2, dtype=torch.float64)
METRICS = [LAND((2,), 0.7), RBF((2,), 8)]


def test_land_is_the_inverse_of_the_local_variance() -> None:
    found = LAND((2,), 0.7, 0.01).fit(DATA, Rng(0))(X)
    for b in range(6):
        for a in range(2):
            h = sum(
                float((y[a] - X[b, a]) ** 2) * math.exp(-float((y - X[b]).square().sum()) / (2 * 0.7**2)) for y in DATA
            )
            assert float(found[b, a]) == pytest.approx(1 / (h + 0.01), rel=1e-4)
    # Along the data it is cheap to move, across them it is dear.
    along, across = LAND((2,), 0.7).fit(DATA, Rng(0))(DATA).unbind(1)
    assert float(along.median()) < 0.5 * float(across.median())


def test_land_keeps_as_many_data_as_it_is_told() -> None:
    few = LAND((2,), 0.7, points=10).fit(DATA, Rng(0))
    kept = few.held.get_buffer("data") + few.held.get_buffer("mean")
    assert (few.points, len(kept)) == (10, 10)
    assert all(bool((DATA.float() - row).norm(dim=1).min() < 1e-6) for row in kept)
    assert LAND((2,), 0.7).fit(DATA, Rng(0)).points == 40


def test_rbf_is_a_sum_of_kernels_about_clusters() -> None:
    # Two tight clusters of four corners each: the mean distance to each centre is the half diagonal.
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    data = torch.cat([corners, 0.5 * corners + torch.tensor([30.0, 0.0])])
    metric = RBF((2,), 2, spread=1.5, floor=0.1).fit(data, Rng(0))
    assert metric.held.get_buffer("widths").sort().values.tolist() == pytest.approx([1.5 / 2**0.5, 1.5 * 2**0.5])
    # The clusters are alike up to scale and do not see one another, so h = 1 on every datum, exactly.
    torch.testing.assert_close(metric(data), torch.full((8, 1), 1 / 1.1, dtype=torch.float64), rtol=1e-5, atol=0)
    # h at the centre of a cluster is exp(r^2 / (2 s^2)) times that.
    want = 1 / (math.exp(1 / (2 * 1.5**2)) + 0.1)
    assert float(metric(torch.zeros(1, 2, dtype=torch.float64))) == pytest.approx(want, rel=1e-5)
    assert float(metric(torch.full((1, 2), 1e3))) == pytest.approx(10.0)


def test_rbf_is_one_on_the_data_in_least_squares() -> None:
    metric = RBF((2,), 12, floor=1e-6).fit(DATA, Rng(0))
    assert float((1 / metric(DATA) - 1).abs().mean()) < 0.1
    assert float(1 / metric(DATA + 20).max()) < 1e-3


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_follows_the_data(metric: LAND | RBF) -> None:
    here, there = metric.fit(DATA, Rng(0)), metric.fit(DATA + 1000, Rng(0))
    torch.testing.assert_close(there(X + 1000), here(X), rtol=1e-2, atol=1e-3)
    again = metric.fit(DATA, Rng(0))
    assert torch.equal(again(X), here(X))
    assert here(X).dtype == torch.float64
    wide = replace(metric, shape=(2, 1)).fit(DATA[:, :, None], Rng(0))
    torch.testing.assert_close(wide(X[:, :, None]).flatten(1), here(X))


@pytest.mark.parametrize("metric", METRICS)
def test_the_gradient_is_that_of_the_law(metric: LAND | RBF) -> None:
    fitted = metric.fit(DATA, Rng(0))
    fitted.held.double()
    x = torch.cat([X, DATA[:1]]).requires_grad_()
    (gradient,) = torch.autograd.grad(fitted(x).log().sum(), x)
    for a in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[a] = 1e-5
        slope = (fitted(x + step).log() - fitted(x - step).log()).flatten(1).sum(1) / 2e-5
        torch.testing.assert_close(gradient[:, a], slope.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_what_was_found_is_kept_with_the_weights(metric: LAND | RBF) -> None:
    fitted = metric.fit(DATA, Rng(0))
    rebuilt = decode(encode(fitted))
    assert rebuilt == fitted
    with pytest.raises(InputError, match=r"metric\.fit"):
        rebuilt(X)
    rebuilt.held.load_state_dict(fitted.held.state_dict())
    assert torch.equal(rebuilt(X), fitted(X))
    assert not list(fitted.held.parameters())
    assert copy.deepcopy(fitted.held).ready
    assert not metric.held.ready


@pytest.mark.parametrize("metric", METRICS)
def test_bfloat16_does_not_round_it(metric: LAND | RBF) -> None:
    fitted = metric.fit(DATA, Rng(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fitted(X)
    assert torch.equal(found, fitted(X))


def _semicircle(count: int) -> Tensor:
    angle = math.pi * torch.linspace(0, 1, count)
    return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.mark.parametrize("metric", [lambda: LAND((2,), 0.2), lambda: RBF((2,), 20, spread=4.0)], ids=["LAND", "RBF"])
def test_paths_stay_near_a_curved_manifold(metric: Callable[[], LAND | RBF]) -> None:
    fitted = metric().fit(_semicircle(200), Rng(0))
    path = LearnedInterpolant(Correction, {"shape": (2,)})
    optimizer = torch.optim.Adam(path.phi.parameters(), 0.04)
    x0, x1 = torch.tensor([[-1.0, 0.0]]).expand(64, 2), torch.tensor([[1.0, 0.0]]).expand(64, 2)
    t = (torch.arange(64) + 0.5) / 64

    def away() -> float:
        return float((path.sample(x0, x1, t).x.norm(dim=1) - 1).abs().mean().detach())

    straight = away()
    assert straight == pytest.approx(0.5, abs=1e-3)
    for _ in range(100):
        sample = path.sample(x0, x1, t)
        optimizer.zero_grad()
        (fitted(sample.x) * sample.target.square()).mean().backward()
        optimizer.step()
    assert away() < 0.5 * straight


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="made by data"):
        LAND((2,), 0.7).fit(DATA[:, :1], Rng(0))
    with pytest.raises(ShapeError, match="made by data"):
        RBF((2,)).fit(DATA[:0], Rng(0))
    with pytest.raises(InputError, match="finite"):
        RBF((2,)).fit(DATA / 0, Rng(0))
    with pytest.raises(InputError, match="no width"):
        RBF((2,), 4).fit(DATA[:3], Rng(0))
    for wrong in (lambda: LAND((), 1.0), lambda: LAND((2,), 0.0), lambda: RBF((2,), 0), lambda: RBF((2,), floor=-1.0)):
        with pytest.raises(InputError):
            wrong()
