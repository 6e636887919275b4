"""What finds the potentials of entropic transport: sweeps, cells, and Newton's equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from rheos.core import Rng
from rheos.couplings.sinkhorn.anneal import Given, Nats
from rheos.couplings.sinkhorn.cells import means, ordered
from rheos.couplings.sinkhorn.gibbs import Gibbs
from rheos.couplings.sinkhorn.levels import spread
from rheos.couplings.sinkhorn.newton import Equations


def conditional(x: torch.Tensor, y: torch.Tensor, g: torch.Tensor, epsilon: float) -> torch.Tensor:
    cost = (x.double()[:, None] - y.double()).square().sum(2)
    return ((g - cost) / epsilon).softmax(1)


@pytest.mark.parametrize(("n", "m", "block"), [(50, 70, 1 << 23), (300, 5000, 1 << 14), (130, 2049, 1 << 23)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sweep_is_that_of_the_whole_matrix(n: int, m: int, block: int, dtype: torch.dtype) -> None:
    x, y = Rng(0).normal(n, 3, dtype=dtype), Rng(1).normal(m, 3, dtype=dtype) + 1
    g, epsilon = Rng(2).normal(m, dtype=torch.float64), 0.4
    law = conditional(x, y, g, epsilon)
    cost = (x.double()[:, None] - y.double()).square().sum(2)
    gibbs = Gibbs(x, y, block)
    sweep = gibbs.sweep(g, epsilon, keep=1 << 20)
    close = {"rtol": 1e-4, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(sweep.column, law.sum(0) * (m / n), **close)
    f = -epsilon * (((g - cost) / epsilon).logsumexp(1) - math.log(m))
    torch.testing.assert_close(sweep.f, f, **close)
    torch.testing.assert_close(gibbs.soft(g, epsilon), f, **close)
    assert sweep.entropy == pytest.approx(float(-torch.special.xlogy(law, law).sum(1).mean()), rel=1e-4)
    assert sweep.cost == pytest.approx(float((law * cost).sum(1).mean()), rel=1e-4)
    assert sweep.bound == pytest.approx(float((cost - g).amin(1).mean() + g.mean()), rel=1e-4)
    assert sweep.error == pytest.approx(float((law.mean(0) - 1 / m).abs().sum()), rel=1e-3)
    assert sweep.entries is not None
    kept = torch.from_numpy(sweep.entries.toarray())
    torch.testing.assert_close(kept[kept > 0], law[kept > 0], rtol=1e-3, atol=1e-6)
    assert float(law[kept == 0].max()) < 1e-3
    torch.testing.assert_close(gibbs.means(g, epsilon).double(), law @ y.double(), rtol=1e-4, atol=1e-4)


def test_no_more_entries_are_kept_than_asked_for() -> None:
    x, y = Rng(0).normal(400, 2), Rng(1).normal(600, 2)
    entries = Gibbs(x, y).sweep(torch.zeros(600).double(), 1.0, keep=8000).entries
    assert entries is not None
    assert 1000 < entries.nnz <= 8000


def test_tiles_that_hold_nothing_are_skipped_and_none_else() -> None:
    x, y = Rng(0).normal(3000, 1), Rng(1).normal(9000, 1)
    x, y = x[x[:, 0].argsort()], y[y[:, 0].argsort()]
    gibbs, g = Gibbs(x, y), 0.001 * Rng(2).normal(9000, dtype=torch.float64)
    for step, epsilon in enumerate((0.02, 0.012, 0.01)):
        sweep = gibbs.sweep(g, epsilon)
        column = conditional(x, y, g, epsilon).sum(0) * 3
        torch.testing.assert_close(sweep.column, column, rtol=3e-4, atol=1e-6)
        skipped = gibbs._skipped(g, epsilon)
        assert skipped is not None
        assert bool(skipped.any()), step
        g = g + 0.001 * Rng(3).fold(step).normal(9000, dtype=torch.float64)


def test_rows_far_from_all_columns_are_not_lost() -> None:
    x, y = torch.tensor([[0.0], [1000.0]]), torch.tensor([[0.0], [1.0]])
    sweep = Gibbs(x, y).sweep(torch.zeros(2).double(), 1e-3)
    torch.testing.assert_close(sweep.column, torch.ones(2).double())
    torch.testing.assert_close(sweep.f, torch.tensor([0.0, 998001.0]).double(), rtol=1e-6, atol=1e-2)


def test_an_entry_without_mass_is_never_drawn() -> None:
    x, y = torch.zeros(2, 1), torch.tensor([[0.0], [100.0], [0.0]])
    gibbs, g = Gibbs(x, y), torch.zeros(3).double()
    for level, want in ((1e-300, 0), (0.4999, 0), (0.5001, 2), (1 - 1e-16, 2)):
        drawn = gibbs.sample(g, 1.0, torch.full((2, 1), level).double())
        assert drawn.tolist() == [[want], [want]]


def test_cells_halve_the_points() -> None:
    x = Rng(0).normal(1001, 3)
    order = ordered(x, 5)
    assert order.sort().values.tolist() == list(range(1001))
    sorted_x = x[order]
    for depth in (1, 3, 5):
        middle = means(sorted_x, depth)
        assert middle.shape == (2**depth, 3)
        torch.testing.assert_close(middle[0], sorted_x[: 1001 >> depth].mean(0))
    # A cell is narrower than the whole in each direction that it was halved in.
    assert float(sorted_x[:31].var(0).sum()) < 0.5 * float(x.var(0).sum())
    low, high = sorted_x[:500], sorted_x[500:]
    axis = int(x.var(0).argmax())
    assert float(low[:, axis].max()) <= float(high[:, axis].min())


def test_spread_is_that_of_all_products() -> None:
    for n, d in ((40, 3), (6, 30)):
        x, y = Rng(0).normal(n, d) + 3, Rng(1).normal(n + 1, d)
        products = 2 * (x - x.mean(0)).double() @ (y - y.mean(0)).double().T
        assert spread(x, y) == pytest.approx(float(products.std(correction=0)), rel=1e-5)


def test_a_step_solves_the_equations() -> None:
    law = conditional(Rng(0).normal(30, 2), Rng(1).normal(20, 2), torch.zeros(20).double(), 0.5).numpy()
    column = law.sum(0)
    equations = Equations(sparse.csr_matrix(law), column)
    step = equations.step(radius=1e6, damping=0.0)
    assert step.damping == 0.0
    hessian, gradient = np.diag(column) - law.T @ law, 1.5 - column
    assert np.abs(hessian @ step.move - gradient).sum() < 0.02 * np.abs(gradient).sum()
    assert step.promise == pytest.approx((step.move @ gradient - 0.5 * step.move @ hessian @ step.move) / 30, rel=1e-6)
    short = equations.step(radius=0.05, damping=0.0)
    assert np.abs(short.move).max() <= 0.05 * (1 + 1e-9)
    assert short.damping > 0


def test_goals_end_where_they_are() -> None:
    assert Given(0.5).following([(math.log(0.6), 3.0)], 0.6, 1.0) == 0.5
    assert Given(0.5).following([(math.log(4.0), 3.0)], 4.0, 0.7) == pytest.approx(4 * math.exp(-0.7))
    assert Given(0.5).following([(math.log(0.5), 3.0)], 0.5, 1.0) == 0.5
    assert Given(0.5, least=2.5).following([(0.0, 2.4)], 1.0, 1.0) == 1.0
    goal = Nats(2.0, 0.02)
    assert goal.following([(0.0, 2.03)], 1.0, 1.0) == 1.0
    # The secant through both places, and half way between them.
    assert goal.following([(0.0, 3.0), (-1.0, 1.0)], math.exp(-1.0), 2.0) == pytest.approx(math.exp(-0.5))
    assert goal.following([(0.0, 4.0)], 1.0, 0.3) == pytest.approx(math.exp(-0.3))
    assert goal.coarse(4.0).following([(0.0, 2.5)], 1.0, 1.0) == 1.0
    assert Nats(6.0, 0.02).coarse(8.0).following([(0.0, 6.0 - math.log(8))], 1.0, 1.0) == 1.0
