"""Semidiscrete transport: half-spaces, quantiles and symmetry in closed form, duality, exact search, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm
from torch import Tensor

from rheos.core import Rng
from rheos.couplings.semidiscrete.ascent import gap, smooth, starts
from rheos.couplings.semidiscrete.dense import Dense
from rheos.couplings.semidiscrete.measure import chi_squared, visited
from rheos.couplings.semidiscrete.tree import Tree
from rheos.data import moons
from support.clouds import fit, images, noise


def masses(points: Tensor, potentials: Tensor) -> Tensor:
    """The mass of each cell of points on a line, by the breakpoints of the upper envelope."""
    x, h = points.double().flatten(), (potentials - points.double().flatten().square()) / 2
    lower = torch.full_like(x, -math.inf)
    upper = torch.full_like(x, math.inf)
    for j in range(len(x)):
        for k in range(len(x)):
            crossing = (h[k] - h[j]) / (x[j] - x[k]) if j != k else torch.tensor(math.inf)
            if x[k] < x[j]:
                lower[j] = torch.maximum(lower[j], crossing)
            elif x[k] > x[j]:
                upper[j] = torch.minimum(upper[j], crossing)
    return torch.from_numpy(norm.cdf(upper.numpy()) - norm.cdf(lower.numpy())).clamp_min(0.0)


def test_two_points_share_the_noise_by_the_hyperplane_through_its_middle() -> None:
    data = torch.tensor([[3.0, 1.0], [-1.0, 2.0]])
    fitted = fit(data, target=1e-4)
    direction = data[0] - data[1]
    z = noise(4000, 2)
    side = z @ direction
    clear = side.abs() > 0.05 * direction.norm()
    assert torch.equal(fitted.assign(z)[clear], (side < 0).long()[clear])
    # 2 x0 . x_j - |x_j|^2 + g_j is equal for both at x0 = 0, so g_0 - g_1 = 10 - 5.
    assert float(fitted.potentials[0] - fitted.potentials[1]) == pytest.approx(5.0, abs=0.3)
    assert fitted.cost_ratio < 1


def test_points_on_a_line_take_quantiles() -> None:
    x = torch.tensor([0.3, -2.0, 5.0, 1.0, -0.1])
    fitted = fit(x[:, None], target=2e-4)
    order = x.argsort()
    edges = torch.from_numpy(norm.ppf(torch.arange(1, 5).double().numpy() / 5))
    z = noise(4000, 1)
    far = (z - edges).abs().amin(1) > 0.04
    place = torch.bucketize(z[:, 0].double(), edges)
    assert torch.equal(fitted.assign(z)[far], order[place][far])
    # At an edge e two neighbours are equal: g_i - g_k = x_i^2 - x_k^2 - 2 e (x_i - x_k).
    low, high = x[order[:-1]].double(), x[order[1:]].double()
    wanted = low.square() - high.square() - 2 * edges * (low - high)
    g = fitted.potentials[order]
    assert torch.allclose(g[:-1] - g[1:], wanted, atol=0.15)


def test_the_cost_of_two_points_on_a_line() -> None:
    """``E (|x0| - 1)**2 = 2 - 2 E|x0|`` against 2 for independent pairs."""
    fitted = fit(torch.tensor([[1.0], [-1.0]]), target=1e-4)
    assert fitted.cost_ratio == pytest.approx(1 - math.sqrt(2 / math.pi), abs=0.01)


@pytest.mark.parametrize("d", [2, 5])
def test_points_that_are_alike_have_one_potential(d: int) -> None:
    """The vertices of a cross-polytope: symmetry maps any to any other."""
    data = 1.5 * torch.cat([torch.eye(d), -torch.eye(d)])
    fitted = fit(data, target=1e-3)
    assert float(fitted.potentials.abs().amax()) < 0.15
    assert float(fitted.potentials.mean()) == pytest.approx(0.0, abs=1e-12)
    assert torch.equal(fitted.assign(4 * data), torch.arange(2 * d))


def test_one_datum_takes_all_noise() -> None:
    fitted = fit(torch.ones(1, 2, 2))
    assert fitted.assign(noise(7, 2, 2)).tolist() == [0] * 7
    assert fitted.chi_squared == 0
    assert fitted.cost_ratio == pytest.approx(1.0, abs=1e-12)
    assert fitted.potentials.tolist() == [0.0]


def test_what_is_said_of_chi_squared_is_so() -> None:
    data = images(40, 3)[:, :1]
    fitted = fit(data)
    p = masses(data, fitted.potentials)
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-9)
    exact = float(40 * (p - 1 / 40).square().sum())
    assert exact < 0.05
    assert abs(fitted.chi_squared - exact) < 4 * 0.005
    assert fitted.converged


def test_a_smaller_target_is_reached() -> None:
    data = images(40, 3)[:, :1]
    p = masses(data, fit(data, target=5e-3).potentials)
    assert float(40 * (p - 1 / 40).square().sum()) < 6.5e-3


@pytest.mark.parametrize(("count", "shape"), [(300, (2,)), (400, (2, 4)), (500, (40,))])
def test_every_datum_is_met_equally_often(count: int, shape: tuple[int, ...]) -> None:
    data = images(count, math.prod(shape)).reshape(count, *shape)
    fitted = fit(data)
    visits = visited(fitted.assign(noise(100 * count, *shape)), count)
    assert chi_squared(visits, torch.full((count,), 1 / count)) < 0.06
    assert float(visits.amin()) > 0


def test_equal_data_share_a_cell() -> None:
    data = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [1.0, 0.0], [1.0, -0.0], [0.0, 2.0]])
    fitted = fit(data, target=1e-3)
    z = noise(20_000, 2)
    j = fitted.assign(z)
    share = torch.bincount(j, minlength=5) / len(z)
    assert torch.allclose(share, torch.full((5,), 0.2), atol=0.02)
    assert fitted.potentials[[0, 2, 3]].unique().numel() == 1
    assert torch.equal(fitted.assign(z[100:200]), j[100:200])


def test_the_dual_is_below_every_plan_and_close_to_the_best() -> None:
    data = images(30, 4)
    fitted = fit(data, target=5e-3)
    z = noise(30 * 40, 4, dtype=torch.float64)
    cost = torch.cdist(z, data.double()).square()
    plan = cost.repeat_interleave(40, 1)
    i, k = linear_sum_assignment(plan.numpy())
    best = float(plan[i, k].mean())
    dual = float((cost - fitted.potentials).amin(1).mean() + fitted.potentials.mean())
    assert dual <= best
    assert dual > 0.99 * best
    assert float(cost[torch.arange(len(z)), fitted.assign(z.float())].mean()) == pytest.approx(best, rel=0.02)


def test_the_pairs_of_a_batch_are_an_optimal_permutation() -> None:
    data = images(200, 6)
    pairs = fit(data)(z := noise(150, 6), data)
    cost = torch.cdist(z.double(), pairs.x1.double()).square()
    i, k = linear_sum_assignment(cost.numpy())
    assert float(cost.diagonal().sum()) == pytest.approx(float(cost[i, k].sum()), rel=1e-9)
    assert torch.equal(pairs.x1, data[pairs.j])
    assert torch.equal(pairs.x0, z)
    assert pairs.i.tolist() == list(range(150))
    assert pairs.gap is None


def test_potentials_agree_with_those_of_pot() -> None:
    ot = pytest.importorskip("ot")
    data = images(12, 2) / 8
    fitted = fit(data, target=1e-3)
    z = noise(3000, 2)
    mapped = ot.semidiscrete.semidiscrete_ot_map(data.double().numpy(), z.double().numpy(), fitted.potentials.numpy())
    assert torch.equal(torch.from_numpy(mapped).float(), data[fitted.assign(z)])
    drawn = Rng(5)

    def sampler(count: int) -> Any:
        nonlocal drawn
        drawn = drawn.fold(0)
        return drawn.normal(count, 2, dtype=torch.float64).numpy()

    theirs = torch.from_numpy(
        ot.semidiscrete.solve_semidiscrete(data.double().numpy(), sampler, max_iter=4000, batch_size=64)
    )
    ours = fitted.potentials
    assert float((theirs - theirs.mean() - ours).abs().amax()) < 0.05 * float(ours.std())


def test_the_estimate_of_chi_squared_has_no_bias() -> None:
    weights = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    edges, found = p.cumsum(0)[:-1], []
    for draw in range(4000):
        point = torch.bucketize(Rng(draw).uniform(10, dtype=torch.float64), edges)
        found.append(chi_squared(visited(point, 4), weights))
    exact = float(((p - weights).square() / weights).sum())
    values = torch.tensor(found)
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) + 0.1 * 3 - exact) > 0.1


def test_the_start_of_normal_points_is_nearly_right() -> None:
    data = noise(2000, 4, seed=3) * torch.tensor([1.0, 3.0, 0.2, 0.0]) + 5
    z, weights = noise(8000, 4), torch.full((2000,), 1 / 2000)
    found = [chi_squared(visited(Dense(data, 1 << 24).at(h)(z), 2000), weights) for h in starts(data, z)]
    assert found[2] < 0.5
    assert found[0] > 5
    moved = starts(data, 2 * z + 3)[2]
    assert chi_squared(visited(Dense(data, 1 << 24).at(moved)(2 * z + 3), 2000), weights) < 0.5


def test_thin_data_in_the_plane_are_met_equally_often() -> None:
    # On two arcs mass must move far through few cells; stochastic steps alone stay at a chi-squared above 1.
    data = moons(1500, Rng(1))
    fitted = fit(data)
    z = noise(50_000, 2)
    met = data[fitted.assign(z)]
    assert float(((met.mean(0) - data.mean(0)) / data.std(0)).abs().max()) < 0.015


def test_the_smooth_start_is_nearly_right() -> None:
    data = moons(3000, Rng(1)) + 2
    data[:300] = data[0]
    weights = torch.full((2701,), 1 / 3000).double()
    weights[0] = 0.1
    points = data[299:]
    h, z = smooth(points, weights, noise(8000, 2, seed=4)), noise(20_000, 2)
    found = chi_squared(visited(Tree(points).at(h)(z), 2701), weights)
    assert found < 1
    assert float(smooth(torch.ones(1, 2), torch.ones(1).double(), noise(10, 2))) == 0.0


def test_the_gap_between_the_best_and_the_next_score() -> None:
    points, h, z = images(300, 5), noise(300, seed=4, dtype=torch.float64), noise(64, 5)
    scores = (z.double() @ points.double().T + h).topk(2, 1).values
    assert gap(points, h, z) == pytest.approx(float((scores[:, 0] - scores[:, 1]).median()), rel=1e-4)
