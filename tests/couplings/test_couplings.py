"""Couplings: the laws, and optimality against every permutation."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch

from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.couplings import BatchOT, Independent, PairStore


@pytest.mark.parametrize("coupling", [Independent(), BatchOT(), PairStore(BatchOT())])
@pytest.mark.parametrize("shape", [(1,), (8,), (2, 3, 3)])
def test_built_in_couplings_keep_the_laws(coupling: Independent | BatchOT | PairStore, shape: tuple[int, ...]) -> None:
    testing.check_coupling(coupling, shape=shape)


def test_independent_pairs_stay_where_they_are() -> None:
    x0, x1 = Rng(0).normal(5, 2), Rng(1).normal(5, 2)
    pairs = Independent()(x0, x1, torch.arange(5))
    assert pairs.x0 is x0
    assert pairs.x1 is x1
    assert pairs.i.tolist() == pairs.j.tolist() == [0, 1, 2, 3, 4]
    assert pairs.gap is None
    assert (Independent(), BatchOT()) == (Independent(), BatchOT())
    assert Independent.independent is True
    assert BatchOT.independent is False


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(4))
def test_the_assignment_is_the_best_of_all_permutations(count: int, seed: int) -> None:
    rng = Rng(seed)
    x0, x1 = rng.fold(0).normal(count, 2, 2), rng.fold(1).normal(count, 2, 2)
    costs = {
        order: sum(float((x0[i] - x1[j]).square().sum()) for j, i in enumerate(order))
        for order in itertools.permutations(range(count))
    }
    best = min(costs, key=lambda order: costs[order])
    pairs = BatchOT()(x0, x1)
    assert pairs.i.tolist() == list(best)
    assert pairs.j.tolist() == list(range(count))
    assert pairs.x1 is x1
    assert pairs.gap == 0.0


def test_the_cost_is_the_square_of_the_distance() -> None:
    """Points on a line with one straggler: the distance itself is the same for both pairings, its square is not."""
    x0, x1 = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.5]])
    assert BatchOT()(x0, x1).i.tolist() == [0, 1]
    assert BatchOT()(x0, x1.flip(0)).i.tolist() == [1, 0]


def test_all_of_a_batch_counts_in_single_precision_too() -> None:
    x1 = Rng(3).normal(64, 5)
    order = Rng(4).permutation(64)
    x0 = x1[order] + 1e-3 * Rng(5).normal(64, 5)
    pairs = BatchOT()(x0, x1)
    assert torch.equal(order[pairs.i], torch.arange(64))
    assert pairs.x0.dtype == torch.float32


def test_the_gradient_of_the_data_flows_through_the_pairs() -> None:
    x0, x1 = Rng(0).normal(4, 2).requires_grad_(), Rng(1).normal(4, 2).requires_grad_()
    pairs = BatchOT()(x0, x1)
    pairs.x0.sum().backward()
    assert x0.grad is not None
    assert x0.grad.unique().tolist() == [1.0]


def test_a_condition_is_warned_of_and_none_is_not() -> None:
    x = Rng(0).normal(3, 2)
    with pytest.warns(UserWarning, match="ignores the condition") as caught:
        BatchOT()(x, x, torch.arange(3))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BatchOT()(x, x)
        Independent()(x, x, torch.arange(3))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"one shape, got \(3, 2\) and \(4, 2\)"):
        BatchOT()(torch.zeros(3, 2), torch.zeros(4, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_distance_that_is_not_finite_is_refused(value: float) -> None:
    x = torch.zeros(3, 2)
    bad = x.clone()
    bad[1, 1] = value
    for x0, x1 in ((bad, x), (x, bad)):
        with pytest.raises(InputError, match="look for NaN or infinity"):
            BatchOT()(x0, x1)
