"""Optimal transport within a batch: every solver against SciPy on all pairs, the honesty of the gap, and what is
refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rheos import testing
from rheos.core import InputError, RheosError, Rng, ShapeError
from rheos.core.protocols import Pairs
from rheos.couplings import BatchOT, batch_ot
from rheos.couplings.assignment import installed, reduced
from rheos.couplings.assignment.sparse import sparse


@pytest.fixture(params=["with extras", "without"])
def extras(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Once with lapx and POT, where they are installed, and once as if they were not."""
    if request.param == "without":
        installed.lapx.cache_clear()
        installed.pot.cache_clear()
        monkeypatch.setattr(installed, "find_spec", lambda name: None)
    yield
    installed.lapx.cache_clear()
    installed.pot.cache_clear()


def never(*_: Any) -> Any:
    raise AssertionError("this solver was not to be asked.")


def batch(n: int, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Normal noise, and data of three clusters that are not centred."""
    keys = Rng(seed).rows(torch.arange(n))
    centre = torch.tensor([-1.0, 1.0, 5.0])[(3 * keys.fold(1).uniform()).long()]
    x1 = 0.3 * keys.fold(0).normal(*shape, dtype=dtype) + centre.reshape(-1, *[1] * len(shape)).to(dtype)
    return keys.fold(2).normal(*shape, dtype=dtype), x1


def optimum(x0: Tensor, x1: Tensor) -> float:
    cost = torch.cdist(x1.double().flatten(1), x0.double().flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    rows, columns = linear_sum_assignment(cost.square_().numpy())
    return float(cost[rows, columns].sum())


def cost_of(pairs: Pairs[Tensor]) -> float:
    return float((pairs.x0.double() - pairs.x1.double()).square().sum())


def check(pairs: Pairs[Tensor], x0: Tensor, x1: Tensor, at_most: float) -> float:
    """A permutation whose gap is an upper bound of the true one, and at most what is promised; the true gap."""
    assert torch.equal(pairs.i.sort().values, torch.arange(len(x0)))
    assert torch.equal(pairs.j, torch.arange(len(x0)))
    assert pairs.x1 is x1
    assert torch.equal(pairs.x0, x0[pairs.i])
    paid = cost_of(pairs)
    true = (paid - optimum(x0, x1)) / paid
    assert pairs.gap is not None
    assert -1e-6 <= true <= pairs.gap + 1e-6
    assert pairs.gap <= at_most
    return true


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (2, 2), (3, 3, 2)])
@pytest.mark.parametrize("n", [40, 300, 530])
def test_every_solver_is_near_the_optimum_and_tells_how_near(extras: None, n: int, shape: tuple[int, ...]) -> None:
    x0, x1 = batch(n, *shape)
    exact = n == 40 or shape == (1,)
    true = check(BatchOT()(x0, x1), x0, x1, 0.0 if exact else batch_ot.ENOUGH)
    assert true < 3e-3


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (7,)])
@pytest.mark.parametrize("n", [1, 2, 40, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_is_the_optimum(extras: None, n: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x0, x1 = batch(n, *shape, dtype=dtype)
    pairs = BatchOT(exact=True)(x0, x1)
    check(pairs, x0, x1, batch_ot.PROOF)
    assert cost_of(pairs) == pytest.approx(optimum(x0, x1), rel=1e-9)
    assert pairs.x0.dtype == dtype


@pytest.mark.parametrize("n", [40, 300])
def test_a_proof_that_rounding_forbids_is_an_error(n: int) -> None:
    """Two clusters so far apart, and so small, that what is within one is less than the rounding of the products."""
    x0, x1 = batch(n, 3, dtype=torch.float64)
    far = 1e6 * (torch.arange(n) % 2)[:, None]
    x0, x1 = far + 1e-3 * x0, far + 1e-3 * x1
    with pytest.raises(RheosError, match=rf"no proof .* {n} rows .* Use BatchOT\(\)"):
        BatchOT(exact=True)(x0, x1)
    assert torch.equal(BatchOT()(x0, x1).i % 2, torch.arange(n) % 2)


@pytest.mark.parametrize("n", [5, 300])
@pytest.mark.parametrize("exact", [False, True])
def test_points_on_top_of_one_another_are_used_once_each(n: int, exact: bool) -> None:
    same = torch.ones(n, 4)
    pairs = BatchOT(exact)(same, same)
    assert torch.equal(pairs.i.sort().values, torch.arange(n))
    assert pairs.gap == 0.0
    twice = torch.cat([torch.zeros(n, 4), torch.full((n, 4), 3.0)])
    pairs = BatchOT(exact)(twice.roll(n, 0) + 0.5, twice)
    assert cost_of(pairs) == pytest.approx(2 * n * 4 * 0.25)


def test_a_million_equal_costs_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_ot, "dense", never)
    x0, places = batch(1000, 5)[0], []
    monkeypatch.setattr(reduced, "sparse", lambda *given: places.append(len(given[1])) or sparse(*given))
    x1 = torch.zeros(1000, 5)
    x1[600:] = 4.0
    check(BatchOT()(x0, x1), x0, x1, batch_ot.ENOUGH)
    assert max(places) < 100_000


def test_a_common_shift_changes_nothing() -> None:
    x0, x1 = batch(300, 4)
    near, far = BatchOT()(x0, x1), BatchOT()(x0 + 300, x1 - 500)
    apart = float((near.i != far.i).float().mean())
    assert apart < 0.1
    assert cost_of(near) == pytest.approx(cost_of(Pairs(x0[far.i], x1, far.i, far.j)), rel=2e-3)


def test_where_the_bound_does_not_come_down_all_pairs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_ot, "reduced", lambda *_: None)
    for d in (2, 5):
        x0, x1 = batch(300, d)
        check(BatchOT()(x0, x1), x0, x1, 0.0)
        check(BatchOT(exact=True)(x0, x1), x0, x1, batch_ot.PROOF)


def test_estimates_that_are_no_numbers_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_ot, "potentials", lambda x1, x0, cost: torch.full((len(x1),), torch.nan))
    x0, x1 = batch(300, 5)
    check(BatchOT()(x0, x1), x0, x1, 0.0)


@pytest.mark.parametrize("d", [2, 5])
def test_known_potentials_take_the_place_of_estimates(monkeypatch: pytest.MonkeyPatch, d: int) -> None:
    """Data that are the noise moved by s have the potentials ``2 <s, x1>``: ``|x0 - x1|**2 - 2 <s, x1>`` is least at
    ``x1 = x0 + s``."""
    order = Rng(3).permutation(400)
    x0, s = Rng(0).normal(400, d), torch.linspace(1, 2, d)
    x1 = x0[order] + s
    monkeypatch.setattr(batch_ot, "potentials", never)
    pairs = BatchOT()(x0, x1, potentials=2 * x1 @ s)
    assert torch.equal(pairs.i, order)
    assert pairs.gap is not None
    assert pairs.gap < 1e-5
    with pytest.raises(AssertionError, match="not to be asked"):
        BatchOT()(x0, x1, potentials=-2 * x1 @ s)


@pytest.mark.parametrize("d", [2, 5])
def test_potentials_of_other_data_do_no_harm(d: int) -> None:
    x0, x1 = batch(400, d)
    for potentials in (torch.zeros(400), 100 * Rng(0).normal(400)):
        check(BatchOT()(x0, x1, potentials=potentials), x0, x1, batch_ot.ENOUGH)
        check(BatchOT(exact=True)(x0, x1, potentials=potentials), x0, x1, batch_ot.PROOF)


def test_many_points_in_few_dimensions_go_by_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ot")
    monkeypatch.setattr(batch_ot, "LARGE", 400)
    x0, x1 = batch(600, 2)
    pairs = BatchOT()(x0, x1, rng=Rng(1))
    assert check(pairs, x0, x1, 0.15) > 1e-4
    assert torch.equal(BatchOT()(x0, x1, rng=Rng(1)).i, pairs.i)
    assert not torch.equal(BatchOT()(x0, x1, rng=Rng(2)).i, pairs.i)
    rows = Rng(1).rows(torch.arange(600))
    assert torch.equal(BatchOT()(x0, x1, rng=rows).i, BatchOT()(x0, x1, rng=rows).i)
    assert torch.equal(BatchOT()(x0, x1).i, BatchOT()(x0, x1, rng=None).i)
    check(BatchOT(exact=True)(x0, x1), x0, x1, batch_ot.PROOF)
    with pytest.raises(InputError, match="look for NaN or infinity"):
        BatchOT()(x0.index_fill(0, torch.tensor([3]), torch.nan), x1)


def test_without_pot_many_points_go_as_fewer_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_ot, "LARGE", 400)
    monkeypatch.setattr(batch_ot, "partition", lambda *_: None)
    x0, x1 = batch(500, 2)
    check(BatchOT()(x0, x1), x0, x1, batch_ot.ENOUGH)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_narrow_states_are_joined_in_single_precision(dtype: torch.dtype) -> None:
    x0, x1 = batch(64, 3)
    x0, x1 = (10 * x0).to(dtype), (10 * x1).to(dtype)
    pairs, wide = BatchOT()(x0, x1), BatchOT()(x0.float(), x1.float())
    assert pairs.x0.dtype == pairs.x1.dtype == dtype
    assert cost_of(pairs) == pytest.approx(cost_of(wide), rel=1e-6)


@pytest.mark.parametrize("exact", [False, True])
def test_the_laws_of_a_coupling(exact: bool) -> None:
    testing.check_coupling(BatchOT(exact))
    testing.check_coupling(BatchOT(exact), rows=300, shape=(2,))


def test_rows_may_be_single_numbers() -> None:
    x0, x1 = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([10.0, 30.0, 20.0])
    assert BatchOT()(x0, x1).i.tolist() == [1, 0, 2]


def test_a_condition_is_warned_of_once_a_place_whatever_the_filters() -> None:
    x, labels = Rng(0).normal(3, 2), torch.arange(3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            BatchOT()(x, x, labels)
        assert len(caught) == 1
        BatchOT(exact=True)(x, x, labels)
        assert len(caught) == 2
    assert "couplings.Conditional(BatchOT())" in str(caught[0].message)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_warning_that_was_turned_into_an_error_comes_again() -> None:
    x, labels = Rng(0).normal(3, 2), torch.arange(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(UserWarning, match="ignores the condition"):
                BatchOT()(x, x, labels)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), ()])
def test_nothing_to_join_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="at least one row"):
        BatchOT()(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("n", "d"), [(5, 1), (5, 2), (300, 2), (300, 5)])
@pytest.mark.parametrize("exact", [False, True])
def test_what_is_not_finite_is_refused(n: int, d: int, value: float, exact: bool) -> None:
    x = Rng(0).normal(n, d)
    bad = x.clone()
    bad[n // 2, -1] = value
    for x0, x1 in ((bad, x), (x, bad)):
        with pytest.raises(InputError, match="look for NaN or infinity"):
            BatchOT(exact)(x0, x1)


def test_potentials_that_do_not_fit_are_refused() -> None:
    x = Rng(0).normal(5, 2)
    with pytest.raises(ShapeError, match=r"\(5,\), got \(4,\)"):
        BatchOT()(x, x, potentials=torch.zeros(4))
    with pytest.raises(InputError, match="a potential is not finite"):
        BatchOT()(x, x, potentials=torch.full((5,), torch.inf))


def test_what_rounding_may_do_grows_with_the_sums_and_covers_them() -> None:
    x0, x1 = Rng(1).normal(2000, 5), 3 * Rng(2).normal(2000, 5)
    batch, twice = (
        batch_ot._Batch.of(*pair, wide=False) for pair in ((x0, x1), (torch.cat([x0, x0]), torch.cat([x1, x1])))
    )
    # The same rows once more: as many costs again in each sum.
    assert twice.rounding() == pytest.approx(2 * batch.rounding(), rel=1e-5)
    noise = torch.arange(2000).flip(0)
    product = -2 * (batch.x1 * batch.x0[noise]).sum(1)
    exact = float(-2 * (batch.x1.double() * batch.x0[noise].double()).sum())
    off = abs(float(product.cumsum(0)[-1]) - exact)
    assert 0 < off < batch.rounding() < 1e-2 * abs(batch.cost(noise))
