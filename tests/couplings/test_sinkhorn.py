"""Entropic transport: its plan against a dense one, its entropy, pairs, and what it refuses."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rheos.core import InputError, RheosError, Rng, ShapeError
from rheos.couplings import BatchOT, Conditional, Sinkhorn
from rheos.couplings.sinkhorn import Plan
from rheos.testing import check_coupling


def clouds(n: int, m: int, d: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    scales = torch.linspace(0.5, 2, d, dtype=dtype)
    return Rng(0).normal(n, d, dtype=dtype), scales * Rng(1).normal(m, d, dtype=dtype) + 1


def matrix(plan: Plan) -> Tensor:
    """All entries of a plan."""
    x, y = plan.x0.double().flatten(1), plan.x1.double().flatten(1)
    cost = (x[:, None] - y).square().sum(2)
    return ((plan.f[:, None] + plan.g - cost) / plan.epsilon).exp() / (len(x) * len(y))


def by_hand(x: Tensor, y: Tensor, epsilon: float, sweeps: int = 5000) -> Tensor:
    """The plan by Sinkhorn's iteration on the whole matrix, in logarithms."""
    score = -(x[:, None] - y).square().sum(2) / epsilon
    f, g = torch.zeros(len(x), dtype=x.dtype), torch.zeros(len(y), dtype=y.dtype)
    for _ in range(sweeps):
        f = -(score + g).logsumexp(1) - math.log(len(x))
        g = -(score + f[:, None]).logsumexp(0) - math.log(len(y))
    return (score + f[:, None] + g).exp()


def entropy(plan: Tensor) -> float:
    n, m = plan.shape
    return float(-torch.special.xlogy(plan, plan).sum() - math.log(n)) / math.log(m)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 40, 2), (30, 50, 3), (50, 20, 1), (7, 7, 4)])
@pytest.mark.parametrize("epsilon", [0.3, 5.0])
def test_the_plan_is_that_of_the_whole_matrix(n: int, m: int, d: int, epsilon: float) -> None:
    x, y = clouds(n, m, d)
    plan = Sinkhorn(epsilon=epsilon, tolerance=1e-7).solve(x, y)
    want = by_hand(x, y, epsilon)
    got = matrix(plan)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=5e-6)
    cost = (x[:, None] - y).square().sum(2)
    assert plan.cost == pytest.approx(float((want * cost).sum()), rel=1e-5)
    assert plan.entropy == pytest.approx(entropy(want), abs=1e-5)
    assert plan.epsilon == epsilon
    assert plan.error == pytest.approx(float((got.sum(0) - 1 / m).abs().sum()), abs=1e-9)
    torch.testing.assert_close(plan.barycentric(), n * want @ y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(2, 3), (64, 2), (300, 16), (100, 784)])
@pytest.mark.parametrize("target", [0.02, 0.1, 0.5, 0.95])
def test_the_entropy_is_reached(n: int, d: int, target: float) -> None:
    x, y = clouds(n, n, d, torch.float32)
    plan = Sinkhorn(entropy=target).solve(x, y)
    assert plan.entropy == pytest.approx(target, rel=0.02)
    assert entropy(matrix(plan)) == pytest.approx(target, rel=0.03)
    assert float((matrix(plan).sum(0) - 1 / n).abs().sum()) < 1.5e-3
    torch.testing.assert_close(matrix(plan).sum(1), torch.full((n,), 1 / n).double(), rtol=1e-3, atol=0)


def test_the_entropy_is_a_tenth_when_nothing_is_said() -> None:
    assert Sinkhorn().solve(*clouds(50, 50, 2)).entropy == pytest.approx(0.1, rel=0.02)


def test_many_points_begin_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(3000, 2500, 2, torch.float32)
    plan = Sinkhorn(entropy=0.3).solve(x, y)
    assert plan.entropy == pytest.approx(0.3, rel=0.02)
    got = matrix(plan)
    assert entropy(got) == pytest.approx(0.3, rel=0.02)
    assert float((got.sum(0) - 1 / 2500).abs().sum()) < 1.2e-3
    # From cells, fewer passes over all points are left.
    monkeypatch.setattr("rheos.couplings.sinkhorn.levels.SMALL", 1 << 20)
    assert plan.sweeps < 0.8 * Sinkhorn(entropy=0.3).solve(x, y).sweeps


def test_a_small_block_finds_the_same() -> None:
    x, y = clouds(150, 170, 3)
    wide, narrow = (Sinkhorn(epsilon=0.2, tolerance=1e-6, block=block).solve(x, y) for block in (1 << 23, 400))
    torch.testing.assert_close(matrix(wide), matrix(narrow), rtol=1e-4, atol=1e-9)


def test_the_bound_and_the_cost_hold_the_optimum() -> None:
    x, y = clouds(60, 60, 4)
    cost = (x[:, None] - y).square().sum(2).numpy()
    optimum = cost[linear_sum_assignment(cost)].mean()
    for target in (0.01, 0.2, 0.8):
        plan = Sinkhorn(entropy=target).solve(x, y)
        assert plan.bound <= optimum * (1 + 1e-9)
        assert plan.cost >= optimum * (1 - 1e-3)
        assert plan.gap == pytest.approx(max(0.0, 1 - plan.bound / plan.cost))
    assert Sinkhorn(entropy=0.01).solve(x, y).cost == pytest.approx(optimum, rel=1e-3)


def test_the_limits_are_transport_and_independence() -> None:
    x, y = clouds(40, 40, 2)
    near = Sinkhorn(entropy=0.002)(x, y, None, Rng(5))
    best = BatchOT(exact=True)(x, y)
    assert float((near.i[near.j.argsort()] == best.i).double().mean()) > 0.95
    far = matrix(Sinkhorn(epsilon=1e5).solve(x, y))
    torch.testing.assert_close(far, torch.full_like(far, 1 / 1600), rtol=1e-2, atol=0)


def test_pairs_follow_the_plan() -> None:
    x, y = clouds(6, 5, 2)
    coupling = Sinkhorn(epsilon=2.0)
    plan = coupling.solve(x, y)
    law = matrix(plan) * 6
    draws = 4000
    counts = torch.zeros(6, 5).double()
    for draw in range(draws):
        counts[torch.arange(6), plan.sample(Rng(7).fold(draw))] += 1
    error = (law * (1 - law) / draws).sqrt()
    assert float(((counts / draws - law).abs() / error).max()) < 4.5
    pairs = coupling(x, y, None, Rng(3))
    assert pairs.i.tolist() == list(range(6))
    assert torch.equal(pairs.j, plan.sample(Rng(3)))
    many = plan.sample(Rng(3), 2, draws // 2)
    assert many.shape == (6, 2, draws // 2)
    counts = torch.stack([drawn.bincount(minlength=5) for drawn in many.flatten(1)])
    assert float(((counts / draws - law).abs() / error).max()) < 4.5
    assert not torch.equal(many[:, 0], many[:, 1])
    assert torch.equal(pairs.x1, y[pairs.j])
    assert pairs.gap == plan.gap


def test_entropic_transport_between_normal_laws_has_the_known_covariance() -> None:
    # In one dimension with variances 1 and s**2 the covariance is (sqrt(4 s**2 + (epsilon/2)**2) - epsilon/2)/2.
    x, y = Rng(0).normal(4000, 1), 1.5 * Rng(1).normal(4000, 1) - 3
    epsilon = 1.0
    plan = Sinkhorn(epsilon=epsilon).solve(x, y)
    want = (math.sqrt(4 * 1.5**2 + (epsilon / 2) ** 2) - epsilon / 2) / 2
    slope = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), plan.barycentric()).solution[0]
    assert float(slope) == pytest.approx(want, rel=0.03)


def test_the_map_between_normal_laws_is_recovered() -> None:
    x, own, y = (Rng(k).normal(1500, 2) for k in range(3))
    scale = torch.tensor([[1.5, 0.4], [0.4, 0.8]])
    y = y @ scale + 2
    plan, self_plan = (Sinkhorn(epsilon=0.2).solve(x, other) for other in (y, own))
    new = Rng(9).normal(500, 2)
    want = new @ scale + 2
    got = new + plan.barycentric(new) - self_plan.barycentric(new)
    assert float((got - want).norm() / want.norm()) < 0.06
    # Alone it is drawn towards the mean.
    mean = torch.tensor([2.0, 2.0])
    assert float((plan.barycentric(new) - mean).norm()) < 0.98 * float((got - mean).norm())


def test_a_start_saves_sweeps_and_changes_nothing_else() -> None:
    x, y = clouds(400, 400, 2)
    coupling = Sinkhorn(epsilon=0.05)
    plan = coupling.solve(x, y)
    again = coupling.solve(x, y, plan)
    assert again.sweeps < plan.sweeps / 3
    assert again.cost == pytest.approx(plan.cost, rel=1e-3)
    other = coupling.solve(*(side + 0.01 for side in clouds(300, 350, 2)), plan)
    assert other.error < 1e-3
    assert other.sweeps < plan.sweeps


def test_data_far_from_the_origin_lose_no_digits() -> None:
    x, y = clouds(50, 50, 3)
    near = Sinkhorn(epsilon=0.5, tolerance=1e-5).solve(x, y)
    far = Sinkhorn(epsilon=0.5, tolerance=1e-5).solve(x + 1e4, y + 1e4)
    torch.testing.assert_close(matrix(near), matrix(far), rtol=1e-2, atol=1e-7)
    assert far.cost == pytest.approx(near.cost, rel=1e-3)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5, 3)),
        (torch.ones(5, 3), torch.zeros(4, 3)),
        (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, -2.0]])),
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 2.0]])),
    ],
)
def test_where_every_plan_costs_the_same_it_is_independent(x: Tensor, y: Tensor) -> None:
    plan = Sinkhorn(entropy=0.1).solve(x, y)
    torch.testing.assert_close(matrix(plan), torch.full((len(x), len(y)), 1 / len(x) / len(y)).double())
    assert plan.entropy == pytest.approx(1.0)
    assert plan.cost == pytest.approx(float((x[:, None] - y).square().sum(2).mean()), rel=1e-5)


def test_what_does_not_converge_is_said() -> None:
    x, y = clouds(100, 100, 2)
    with pytest.raises(RheosError, match=r"did not converge: after 2 sweeps the marginal error is .* or use BatchOT"):
        Sinkhorn(sweeps=2)(x, y, None, Rng(0))


def test_a_condition_is_warned_of() -> None:
    x, y = clouds(4, 4, 2)
    with pytest.warns(UserWarning, match=r"entropic transport ignores .* couplings.Conditional\(Sinkhorn\(\)\)"):
        Sinkhorn()(x, y, torch.arange(4), Rng(0))
    labels = torch.arange(40) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = Conditional(Sinkhorn())(*clouds(40, 40, 2), labels, Rng(0))
    assert torch.equal(labels[pairs.i], labels[pairs.j])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"entropy": 0.1, "epsilon": 1.0}, "each decide the plan"),
        ({"entropy": 0.0}, "between 0 and 1, got 0.0"),
        ({"entropy": 1.0}, "between 0 and 1, got 1.0"),
        ({"epsilon": 0.0}, "positive and finite, got 0.0"),
        ({"epsilon": math.inf}, "positive and finite, got inf"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"sweeps": 0}, "sweeps = 0"),
        ({"block": 0}, "block = 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Sinkhorn(**arguments)  # pyright: ignore[reportArgumentType]


def test_what_cannot_be_joined_is_refused() -> None:
    x, y = clouds(5, 5, 2)
    with pytest.raises(InputError, match="takes an rng"):
        Sinkhorn()(x, y)
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="not finite"):
            Sinkhorn().solve(x, y.index_fill(0, torch.tensor([1]), bad))
    for one, other in ((torch.zeros(0, 2), y), (x, torch.zeros(3, 0)), (x, y[:, :1]), (torch.tensor(1.0), y)):
        with pytest.raises(ShapeError, match="one shape a row"):
            Sinkhorn().solve(one, other)
    plan = Sinkhorn().solve(x, y)
    with pytest.raises(ShapeError, match=r"\(k, \*\(2,\)\), got \(3, 1\)"):
        plan.barycentric(torch.zeros(3, 1))
    with pytest.raises(InputError, match="not finite"):
        plan.barycentric(torch.full((3, 2), math.nan))


@pytest.mark.parametrize("coupling", [Sinkhorn(), Sinkhorn(epsilon=1.0)])
def test_the_conformance_kit_accepts_it(coupling: Sinkhorn) -> None:
    check_coupling(coupling, rows=5)


def test_the_conformance_kit_accepts_it_by_class() -> None:
    check_coupling(Conditional(Sinkhorn(epsilon=1.0)), rows=6, classes=2)
