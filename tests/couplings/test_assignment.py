"""Solvers of the assignment problem: against every permutation, SciPy on all pairs, and their own bounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rheos.core import Rng
from rheos.couplings.assignment import entropic, installed, partition, reduced, simplex, sparse
from rheos.couplings.assignment.dense import dense
from rheos.couplings.assignment.line import line
from rheos.data import moons


@pytest.fixture(params=["with extras", "without"])
def extras(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Once with lapx and POT, where they are installed, and once as if they were not."""
    if request.param == "without":
        installed.lapx.cache_clear()
        installed.pot.cache_clear()
        monkeypatch.setattr(installed, "find_spec", lambda name: None)
    yield request.param == "with extras"
    installed.lapx.cache_clear()
    installed.pot.cache_clear()


def pair(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Data of three clusters and normal noise, both centred."""
    keys = Rng(seed).rows(torch.arange(n))
    x1 = 0.3 * keys.fold(0).normal(d, dtype=dtype)
    x1 = x1 + 2 * torch.tensor([-1.0, 0.0, 1.0], dtype=dtype)[(3 * keys.fold(1).uniform()).long()][:, None]
    x0 = keys.fold(2).normal(d, dtype=dtype)
    return x1 - x1.mean(0), x0 - x0.mean(0)


def products(x1: Tensor, x0: Tensor) -> Tensor:
    return (x1 @ x0.T).mul_(-2)


def best(cost: Tensor) -> tuple[Tensor, float]:
    """The optimum by SciPy, in float64."""
    rows, columns = linear_sum_assignment(cost.double().numpy())
    return torch.from_numpy(columns), float(cost.double().numpy()[rows, columns].sum())


def total(cost: Tensor, noise: Tensor) -> float:
    return float(cost.double()[torch.arange(len(cost)), noise].sum())


def is_permutation(noise: Tensor, n: int) -> bool:
    return noise.dtype == torch.int64 and torch.equal(noise.sort().values, torch.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_dense_is_the_best_of_all_permutations(extras: bool, n: int, seed: int) -> None:
    cost = Rng(seed).normal(n, n, dtype=torch.float64)
    costs = {order: float(cost[torch.arange(n), list(order)].sum()) for order in itertools.permutations(range(n))}
    assert tuple(dense(cost).tolist()) == min(costs, key=lambda order: costs[order])
    assert tuple(dense(cost.T).argsort().tolist()) == min(costs, key=lambda order: costs[order])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_on_a_line_order_is_the_best_of_all_permutations(n: int, seed: int) -> None:
    x1, x0 = Rng(seed).normal(n, 1), Rng(seed + 10).normal(n, 1)
    costs = {order: float((x1 - x0[list(order)]).square().sum()) for order in itertools.permutations(range(n))}
    assert tuple(line(x1, x0).tolist()) == min(costs, key=lambda order: costs[order])


def test_on_a_line_ties_are_used_once() -> None:
    assert is_permutation(line(torch.zeros(7, 1), torch.tensor([[1.0], [0], [1], [0], [1], [0], [1]])), 7)


@pytest.mark.parametrize("scale", [1.0, 1e9, 1e-9, 0.0])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_sparse_is_the_best_of_its_entries(extras: bool, n: int, scale: float) -> None:
    full = Rng(3).uniform(n, n, dtype=torch.float64).numpy() * scale
    kept = Rng(4).uniform(n, n).numpy() < 0.3
    np.fill_diagonal(kept, True)
    places = np.flatnonzero(kept)
    found = sparse.sparse(full.ravel()[places], places, n)
    assert found is not None
    rows, columns = np.divmod(places[found], n)
    assert rows.tolist() == list(range(n))
    assert sorted(columns.tolist()) == list(range(n))
    barred = np.where(kept, full, n * scale + 1)
    wanted = barred[linear_sum_assignment(barred)].sum()
    assert full[rows, columns].sum() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "kept", [[[1, 0, 0], [1, 0, 0], [0, 1, 1]], [[0, 0, 0], [1, 1, 1], [1, 1, 1]], [[1, 0], [1, 0]]]
)
def test_entries_without_an_assignment_are_told(extras: bool, kept: list[list[int]]) -> None:
    places = np.flatnonzero(np.array(kept))
    assert sparse.sparse(np.ones(len(places)), places, len(kept)) is None


def test_the_simplex_is_exact_and_says_when_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ot")
    cost = torch.cdist(*pair(200, 2)).square()
    noise = simplex.simplex(cost)
    assert noise is not None
    assert torch.equal(noise, best(cost)[0])
    monkeypatch.setattr(simplex, "PIVOTS", 20)
    with pytest.warns(UserWarning, match="numItermax"):
        assert simplex.simplex(cost) is None


@pytest.mark.parametrize("warning", [None, "numItermax reached before optimality."])
def test_a_permutation_that_the_simplex_was_stopped_at_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, warning: str | None
) -> None:
    solver = ModuleType("ot")
    solver.emd = lambda *_, **__: (np.eye(5), {"warning": warning})  # pyright: ignore
    monkeypatch.setattr(simplex, "pot", lambda: solver)
    assert (simplex.simplex(torch.zeros(5, 5)) is None) is (warning is not None)


def test_cells_hold_neighbours_and_every_point_once() -> None:
    # A grid of 8 x 8 points falls into 4 x 4 cells of 2 x 2 neighbours.
    grid = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    means = entropic.cells(grid[Rng(0).permutation(64)])
    wanted = torch.cartesian_prod(torch.arange(0.5, 8, 2), torch.arange(0.5, 8, 2))
    assert sorted(means.tolist()) == sorted(wanted.tolist())


@pytest.mark.parametrize(
    ("n", "d", "side"), [(1, 2, 1), (15, 2, 1), (16, 2, 2), (1000, 2, 15), (1023, 2, 15), (1000, 3, 5), (999, 3, 4)]
)
def test_cells_are_as_many_as_fit(n: int, d: int, side: int) -> None:
    x = Rng(1).normal(n, d)
    means = entropic.cells(x)
    assert means.shape == (side**d, d)
    # Few of many points are left out, evenly, so that the mean hardly moves.
    assert n < 100 or (means.mean(0) - x.mean(0)).abs().max() < 0.1


@pytest.mark.parametrize(("n", "d", "within"), [(300, 2, 0.03), (700, 2, 0.015), (700, 3, 0.015), (200, 12, 0.02)])
def test_potentials_of_annealing_are_nearly_optimal(n: int, d: int, within: float) -> None:
    """The completed potentials are a lower bound of the cost, and a close one."""
    x1, x0 = pair(n, d, dtype=torch.float32)
    cost = products(x1, x0)
    g = entropic.potentials(x1, x0, cost.clone()).double()
    lower = float(g.sum() + (cost.double() - g).amin(1).sum())
    constants = float(x1.double().square().sum() + x0.double().square().sum())
    optimum = best(cost)[1] + constants
    assert (1 - within) * optimum <= lower + constants <= optimum * (1 + 1e-6)


@pytest.mark.parametrize("d", [2, 3])
def test_smooth_potentials_are_a_bound_without_all_pairs(d: int) -> None:
    x1, x0 = pair(900, d, dtype=torch.float32)
    f, g, eps = entropic.smooth(x1, x0)
    cost = products(x1, x0).double()
    constants = float(x1.double().square().sum() + x0.double().square().sum())
    optimum = best(cost)[1] + constants
    for lower in (f.double().sum() + (cost - f[:, None]).amin(0).sum(), g.double().sum() + (cost - g).amin(1).sum()):
        assert 0.9 * optimum <= float(lower) + constants <= optimum * (1 + 1e-6)
    assert eps > 0


def test_points_that_are_all_alike_have_potentials() -> None:
    x = torch.zeros(20, 5)
    assert bool(entropic.potentials(x, x, products(x, x)).isfinite().all())


@pytest.mark.parametrize("d", [2, 6])
@pytest.mark.parametrize("allowed", [0.01, 1e-12])
def test_reduced_costs_lead_to_the_optimum(extras: bool, d: int, allowed: float) -> None:
    x1, x0 = pair(250, d)
    cost = products(x1, x0)
    constants = float(x1.square().sum() + x0.square().sum())
    optimum = best(cost)[1] + constants
    g = entropic.potentials(x1.float(), x0.float(), cost.float()).double()
    found = reduced.reduced(cost.clone(), g, lambda noise, slack: slack <= allowed * optimum)
    assert found is not None
    noise, slack = found
    assert is_permutation(noise, 250)
    excess = total(cost, noise) + constants - optimum
    assert -1e-9 <= excess <= slack + 1e-9
    assert slack <= allowed * optimum


def test_entries_that_are_lacking_are_added() -> None:
    """Potentials of nothing keep the wrong entries, and the optimum is found by adding others."""
    x1, x0 = pair(120, 3)
    cost = products(x1, x0)
    noise, optimum = best(cost)
    seen: list[float] = []

    def enough(_: Tensor, slack: float) -> bool:
        seen.append(slack)
        return slack <= 1e-9

    found = reduced.reduced(cost.clone(), torch.zeros(120, dtype=torch.float64), enough)
    assert found is not None
    assert torch.equal(found[0], noise)
    assert total(cost, found[0]) == pytest.approx(optimum)
    assert len(seen) > 2
    assert seen[0] > 1


def test_what_is_never_enough_ends() -> None:
    x1, x0 = pair(60, 4)
    assert reduced.reduced(products(x1, x0), torch.zeros(60, dtype=torch.float64), lambda noise, slack: False) is None


def test_potentials_that_do_not_fit_are_of_no_use() -> None:
    x1, x0 = pair(200, 8)
    cost = products(x1, x0)
    g = entropic.potentials(x1.float(), x0.float(), cost.float()).double()
    good, poor = (cost - g).amin(1), torch.linspace(0, 100, 200, dtype=torch.float64)
    for f, of_use in ((good, True), (poor, False)):
        rest = cost - f[:, None]
        found = reduced.reduced(rest, rest.amin(0), lambda noise, slack: True, fitting=0.25)
        assert (found is not None) is of_use


def test_a_proof_is_found_for_the_optimum_alone(extras: bool) -> None:
    cost = torch.cdist(*pair(150, 3)).square()
    noise, optimum = best(cost)
    slack = reduced.proved(cost.clone(), noise, lambda noise, slack: slack <= 1e-9 * optimum)
    assert slack is not None
    assert 0 <= slack <= 1e-9 * optimum
    swapped = noise.clone()
    swapped[[3, 4]] = noise[[4, 3]]
    excess, bounds = total(cost, swapped) - optimum, []

    def never(_: Tensor, slack: float) -> bool:
        bounds.append(slack)
        return slack < 0.999 * excess

    assert reduced.proved(cost.clone(), swapped, never) is None
    assert min(bounds) >= 0.999 * excess > 0


def test_partitions_bound_what_they_cost_above_the_optimum() -> None:
    pytest.importorskip("ot")
    x1 = moons(600, Rng(0))
    x0 = Rng(1).rows(torch.arange(600)).normal(2)
    x1, x0 = x1 - x1.mean(0), x0 - x0.mean(0)
    found = partition.partition(x1, x0, 5)
    assert found is not None
    noise, slack = found
    assert is_permutation(noise, 600)
    cost = torch.cdist(x1.double(), x0.double()).square()
    optimum, paid = best(cost)[1], total(cost, noise)
    assert optimum < paid < 1.15 * optimum
    assert paid - optimum <= slack <= paid - 0.97 * optimum


def test_partitions_are_a_function_of_the_seed() -> None:
    pytest.importorskip("ot")
    x1, x0 = pair(300, 2)
    orders = [partition.partition(x1, x0, seed)[0].tolist() for seed in (5, 6, 5, 5)]  # pyright: ignore
    assert orders[0] == orders[2] == orders[3] != orders[1]


def test_a_release_without_the_solvers_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    installed.lapx.cache_clear()
    monkeypatch.setattr(installed.importlib, "import_module", lambda name: ModuleType(name))
    monkeypatch.setattr(installed, "find_spec", lambda name: name)
    assert installed.lapx() is None
    installed.lapx.cache_clear()


def test_without_pot_there_are_neither_partitions_nor_a_simplex(extras: bool) -> None:
    if extras:
        pytest.skip("with POT")
    x1, x0 = pair(10, 2)
    assert partition.partition(x1, x0, 0) is None
    assert simplex.simplex(products(x1, x0)) is None
