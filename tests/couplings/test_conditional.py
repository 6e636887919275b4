"""Conditional couplings: labels kept exactly, the best of the permutations that keep them, and the adaptive weight."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import CheckpointError, Cond, InputError, Pairs, Rng, ShapeError, fits
from rheos.couplings import BatchOT, Independent
from rheos.couplings.conditional import PROBED, Conditional


def batch(n: int, d: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    return Rng(seed).fold(0).normal(n, d), Rng(seed).fold(1).normal(n, d)


@dataclass(frozen=True)
class Spy:
    """Independent pairs; remembers what it was given."""

    gaps: tuple[float | None, ...] = ()
    seen: list = field(default_factory=list)
    independent: bool = False

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        gap = self.gaps[len(self.seen)] if self.gaps else None
        self.seen.append((x0, x1, cond, rng))
        return Independent()(x0, x1)._replace(gap=gap)


@dataclass(frozen=True)
class Reversed:
    """The noise in its order, the data backwards."""

    independent: bool = False

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        rows = torch.arange(len(x0))
        return Pairs(x0, x1.flip(0), rows, rows.flip(0), gap=0.0)


@dataclass(frozen=True)
class Quantiles:
    """Data in the order of their first coordinate; a standard normal noise takes the one at its quantile."""

    order: Tensor | None = None
    key: Tensor | None = None
    independent: bool = False

    @property
    def fitted(self) -> bool:
        return self.order is not None

    def fit(self, data: Tensor, cond: Any, rng: Rng) -> Quantiles:
        assert cond is None
        return replace(self, order=data[:, 0].argsort(), key=torch.stack([rng.key.double(), data.double().sum()]))

    def assign(self, x0: Tensor, cond: Any = None) -> Tensor:
        if self.order is None:
            raise InputError("not fitted.")
        slots = (torch.special.ndtr(x0[:, 0].double()) * len(self.order)).long()
        return self.order[slots.clamp_max(len(self.order) - 1)]

    def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
        j = self.assign(x0)
        return Pairs(x0, x1[j], torch.arange(len(x0)), j)

    def tensors(self) -> Mapping[str, Tensor]:
        assert self.order is not None
        assert self.key is not None
        return {"order": self.order, "key.v1": self.key}

    def restored(self, data: Tensor, cond: Any, tensors: Mapping[str, Tensor]) -> Quantiles:
        if tensors["key.v1"][1] != data.double().sum() or not torch.equal(tensors["order"], data[:, 0].argsort()):
            raise CheckpointError("other data.")
        return replace(self, order=tensors["order"], key=tensors["key.v1"])


@pytest.mark.parametrize("classes", [None, 1, 2, 3, 8])
@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_it_keeps_the_laws(classes: int | None, shape: tuple[int, ...]) -> None:
    testing.check_coupling(Conditional(BatchOT()), shape=shape, classes=classes)


@pytest.mark.parametrize("classes", [1, 2, 3, 8])
def test_it_keeps_the_laws_of_a_coupling_of_a_dataset(classes: int) -> None:
    testing.check_coupling(Conditional(Quantiles()), rows=9, classes=classes)


# Labels.


def test_one_class_is_the_inner_coupling() -> None:
    x0, x1 = batch(20)
    inner = BatchOT()(x0, x1)
    for cond in (None, torch.full((20,), 7), torch.full((20,), -1), {"label": torch.zeros(20, 1, dtype=torch.int64)}):
        pairs = Conditional(BatchOT())(x0, x1, cond)
        for got, want in zip(pairs[:4], inner[:4], strict=True):
            assert torch.equal(got, want)
        assert pairs.gap == inner.gap


@pytest.mark.parametrize("seed", range(4))
def test_the_pairs_are_the_best_of_all_permutations_that_keep_the_labels(seed: int) -> None:
    x0, x1 = batch(6, seed=seed)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    costs = {
        order: sum(float((x0[i] - x1[j]).square().sum()) for j, i in enumerate(order))
        for order in itertools.permutations(range(6))
        if all(labels[i] == labels[j] for j, i in enumerate(order))
    }
    pairs = Conditional(BatchOT())(x0, x1, labels)
    assert pairs.i.tolist() == list(min(costs, key=lambda order: costs[order]))
    assert pairs.j.tolist() == list(range(6))
    assert pairs.gap == 0.0
    assert torch.equal(pairs.x0, x0[pairs.i])


def test_each_noise_is_joined_with_a_datum_of_the_label_that_it_arrived_with() -> None:
    x0, x1 = batch(101)
    labels = Rng(5).bits(101) % 7 - 1
    pairs = Conditional(BatchOT())(x0, x1 + 3 * labels[:, None], labels)
    assert torch.equal(labels[pairs.i], labels[pairs.j])
    assert torch.equal(pairs.i.sort().values, torch.arange(101))
    assert torch.equal(pairs.x1, (x1 + 3 * labels[:, None])[pairs.j])
    assert not torch.equal(pairs.i, pairs.j)


def test_rows_go_back_to_where_the_inner_coupling_has_them() -> None:
    x0, x1 = batch(6)
    pairs = Conditional(Reversed())(x0, x1, torch.tensor([5, 2, 5, 2, 2, 5]))
    assert pairs.i.tolist() == [0, 1, 2, 3, 4, 5]
    assert pairs.j.tolist() == [5, 4, 2, 3, 1, 0]


def test_a_class_with_one_member_keeps_its_own_noise_and_asks_nobody() -> None:
    x0, x1 = batch(5)
    spy = Spy()
    pairs = Conditional(spy)(x0, x1, torch.tensor([4, 0, 9, 0, -1]))
    assert pairs.i.tolist() == pairs.j.tolist() == [0, 1, 2, 3, 4]
    assert [len(seen[0]) for seen in spy.seen] == [2]
    assert spy.seen[0][2] is None


def test_all_labels_of_a_row_are_one_class() -> None:
    x0, x1 = batch(64)
    kind, tags = Rng(1).bits(64) % 2, Rng(2).bits(64, 2) % 2
    cond = {"kind": kind == 1, "tags": tags}
    pairs = Conditional(BatchOT())(x0, x1, cond)
    assert torch.equal(kind[pairs.i], kind[pairs.j])
    assert torch.equal(tags[pairs.i], tags[pairs.j])
    one = Conditional(BatchOT())(x0, x1, kind * 4 + tags[:, 0] * 2 + tags[:, 1])
    assert torch.equal(pairs.i, one.i)


def test_the_inner_coupling_is_not_given_the_condition_and_does_not_warn() -> None:
    x0, x1 = batch(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Conditional(BatchOT())(x0, x1, torch.arange(8) % 2)
        Conditional(BatchOT())(x0, x1, Rng(2).normal(8, 3))


def test_the_gap_is_that_of_the_whole_cost() -> None:
    """Three classes at costs 2*1, 2*4 and 1*100, the last with one member and hence no gap."""
    x0, x1 = torch.zeros(5, 1), torch.tensor([[1.0], [1.0], [2.0], [2.0], [10.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert Conditional(Spy((0.5, 0.25)))(x0, x1, labels).gap == pytest.approx((0.5 * 2 + 0.25 * 8) / 110)
    assert Conditional(Spy((0.5, None)))(x0, x1, labels).gap is None
    assert Conditional(Spy((0.0, 0.0)))(x0, x0, labels).gap == 0.0


def test_classes_draw_from_keys_of_their_own() -> None:
    x0, x1 = batch(6)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    spy = Spy()
    for rng in (Rng(3), Rng(3), Rng(4), Rng(3).rows(torch.arange(6))):
        Conditional(spy)(x0, x1, labels, rng)
    keys = [int(seen[3].key) for seen in spy.seen]
    assert keys[:2] == keys[2:4]
    assert len(set(keys)) == 6
    Conditional(spy)(x0, x1, labels)
    assert spy.seen[-1][3] is None


def test_the_gradient_of_the_data_flows_through_the_pairs() -> None:
    for cond in (torch.arange(6) % 2, Rng(3).normal(6, 1)):
        x0, x1 = (x.requires_grad_() for x in batch(6))
        pairs = Conditional(BatchOT(), 0.4)(x0, x1, cond)
        (pairs.x0.sum() + 2 * pairs.x1.sum()).backward()
        assert x0.grad is not None
        assert x1.grad is not None
        assert x0.grad.unique().tolist() == [1.0]
        assert x1.grad.unique().tolist() == [2.0]


# Vectors.


def candidates(x0: Tensor, x1: Tensor, c: Tensor, w: float) -> int:
    """Pairs of other rows that cost no more than the datum and its own noise."""
    n, count = len(x0), 0
    for i, j in itertools.permutations(range(n), 2):
        joint = (x0[i] - x1[j]).square().sum() + w * (c[i] - c[j]).square().sum()
        count += bool(joint <= (x0[j] - x1[j]).square().sum())
    return count


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_the_weight_leaves_the_given_share_of_candidates(share: float) -> None:
    n = 24
    x0, x1 = (x.double() for x in batch(n, 3))
    c = Rng(7).normal(n, 2, dtype=torch.float64)
    spy = Spy()
    Conditional(spy, share)(x0, x1, c)
    seen0, seen1 = spy.seen[0][:2]
    assert torch.equal(seen0[:, :3], x0)
    assert torch.equal(seen1[:, :3], x1)
    assert torch.equal(seen0[:, 3:], seen1[:, 3:])
    w = float((seen0[0, 3:] - seen0[1, 3:]).square().sum() / (c[0] - c[1]).square().sum())
    assert torch.cdist(seen0[:, 3:], seen0[:, 3:]).square() == pytest.approx(w * torch.cdist(c, c).square().numpy())
    wanted = round(share * n * (n - 1))
    assert candidates(x0, x1, c, w * (1 - 1e-9)) == wanted
    assert candidates(x0, x1, c, w * (1 + 1e-9)) == wanted - 1


def test_no_weight_where_there_are_fewer_candidates_anyway() -> None:
    x0, x1 = batch(16)
    x1 = x0 + 0.01 * x1
    c = Rng(7).normal(16, 2)
    spy = Spy()
    Conditional(spy)(x0, x1, c)
    assert spy.seen[0][0][:, 2:].abs().max() == 0


def test_pairs_do_not_depend_on_the_unit_or_the_origin_of_the_condition() -> None:
    x0, x1 = batch(40)
    c = Rng(7).normal(40, 2, dtype=torch.float64)
    pairs, other = (Conditional(BatchOT(), 0.2)(x0, x1, cond) for cond in (c, 1e4 * c - 3e5))
    assert torch.equal(pairs.i, other.i)
    assert not torch.equal(pairs.i, BatchOT()(x0, x1).i)
    assert pairs.x0.dtype == torch.float32


def test_a_small_share_leaves_independent_pairs_and_a_large_one_those_of_the_inner_coupling() -> None:
    x0, x1 = batch(40)
    c = Rng(7).normal(40, 2)
    assert Conditional(BatchOT(), 1e-6)(x0, x1, c).i.tolist() == list(range(40))
    assert torch.equal(Conditional(BatchOT(), 0.9)(x0, x1, c).i, BatchOT()(x0, x1).i)


def test_near_conditions_are_joined_and_far_ones_are_not() -> None:
    x0, x1 = batch(200)
    c = Rng(7).normal(200, 1)
    plain = BatchOT()(x0, x1)
    moved = [(c[pairs.i] - c[pairs.j]).abs().mean() for pairs in (Conditional(BatchOT())(x0, x1, c), plain)]
    assert moved[0] < 0.1 * moved[1]
    costs = [(pairs.x0 - pairs.x1).square().sum() for pairs in (plain, Conditional(BatchOT())(x0, x1, c))]
    assert costs[0] < costs[1] < 0.95 * (x0 - x1).square().sum()


def test_vectors_that_many_rows_share_are_labels() -> None:
    x0, x1 = batch(30)
    labels = torch.arange(30) % 3
    onehot = torch.eye(3)[labels]
    pairs, wanted = Conditional(BatchOT())(x0, x1, onehot), Conditional(BatchOT())(x0, x1, labels)
    assert torch.equal(pairs.i, wanted.i)
    for cond, calls in ((onehot, 3), (torch.full((30, 2), 0.1), 1)):
        spy = Spy()
        Conditional(spy)(x0, x1, cond)
        assert [seen[0].shape for seen in spy.seen] == [(30 // calls, 2)] * calls


def test_unknown_entries_are_joined_only_where_the_same_are_unknown() -> None:
    x0, x1 = batch(60)
    c = Rng(7).normal(60, 2)
    pattern = torch.arange(60) % 3
    c[pattern == 1] = math.nan
    c[pattern == 2, 0] = math.nan
    pairs = Conditional(BatchOT())(x0, x1, c)
    assert torch.equal(pattern[pairs.i], pattern[pairs.j])
    unknown = pattern == 1
    alone = BatchOT()(x0[unknown], x1[unknown])
    assert torch.equal(pairs.x0[unknown], alone.x0)
    half = pattern == 2
    assert torch.equal(pairs.x0[half], Conditional(BatchOT())(x0[half], x1[half], c[half, 1:]).x0)


def test_labels_and_vectors_together() -> None:
    x0, x1 = batch(80)
    labels, c = torch.arange(80) % 2, Rng(7).normal(80, 2)
    cond = {"label": labels, "place": c, "flat": torch.ones(80, 3)}
    pairs = Conditional(BatchOT())(x0, x1, cond)
    assert torch.equal(labels[pairs.i], labels[pairs.j])
    for label in (0, 1):
        rows = labels == label
        assert torch.equal(pairs.x0[rows], Conditional(BatchOT())(x0[rows], x1[rows], c[rows]).x0)


def test_several_vectors_count_alike() -> None:
    x0, x1 = batch(40)
    near, far = Rng(7).normal(40, 2), Rng(8).normal(40, 3)
    place = torch.tensor([0.0, 5.0, -100.0])
    one, other = ({"a": near, "b": b} for b in (far, 1e-3 * far + place))
    assert torch.equal(Conditional(BatchOT(), 0.2)(x0, x1, one).i, Conditional(BatchOT(), 0.2)(x0, x1, other).i)


def test_a_large_batch_finds_its_weight_from_some_of_its_data() -> None:
    n = PROBED + 40
    x0, x1 = batch(n)
    c = Rng(7).normal(n, 1, dtype=torch.float64)
    whole, part = Spy(), Spy()
    Conditional(whole)(x0, x1, c)
    Conditional(part)(x0, torch.cat([x1[:PROBED], x1[PROBED:] + 100]), c)
    assert torch.equal(whole.seen[0][0], part.seen[0][0])


# A dataset.


def test_a_fitted_one_assigns_within_each_class_as_the_inner_one_alone() -> None:
    data, labels = Rng(0).normal(30, 2), torch.arange(30) % 3
    labels[29] = -1
    coupling = Conditional(Quantiles())
    assert fits(coupling)
    assert (coupling.fitted, Conditional(BatchOT()).fitted) == (False, None)
    assert not fits(Conditional(BatchOT()))
    fitted = coupling.fit(data, labels, Rng(1))
    assert (fitted.fitted, coupling.fitted) == (True, False)
    assert fitted == coupling
    noise, asked = Rng(2).normal(50, 2), torch.arange(50) % 4 - 1
    j = fitted.assign(noise, asked)
    assert torch.equal(labels[j], asked)
    for label in (0, 1, 2):
        members = (labels == label).nonzero()[:, 0]
        alone = Quantiles().fit(data[members], None, Rng(0)).assign(noise[asked == label])
        assert torch.equal(j[asked == label], members[alone])
    assert j[asked == -1].unique().tolist() == [29]
    pairs = fitted(noise, data, asked)
    assert torch.equal(pairs.j, j)
    assert torch.equal(pairs.x1, data[j])
    assert pairs.i.tolist() == list(range(50))


def test_what_was_fitted_has_a_name_a_class_and_comes_back() -> None:
    data, labels = Rng(0).normal(7, 2), torch.tensor([[0, 1], [3, 12], [0, 1], [3, 12], [-1, 0], [3, 1], [3, 1]])
    fitted = Conditional(Quantiles()).fit(data, labels, Rng(1))
    tensors = fitted.tensors()
    assert sorted(tensors) == sorted(f"class.{c}.{k}" for c in ("0,1", "3,12", "3,1") for k in ("order", "key.v1"))
    assert len({int(tensors[f"class.{c}.key.v1"][0]) for c in ("0,1", "3,12", "3,1")}) == 3
    again = Conditional(Quantiles()).restored(data, labels, tensors)
    noise = Rng(2).normal(20, 2)
    asked = labels[torch.arange(20) % 7]
    assert torch.equal(again.assign(noise, asked), fitted.assign(noise, asked))
    assert again.tensors().keys() == tensors.keys()
    with pytest.raises(CheckpointError, match=r"of the classes 0,1, 3,1, 3,12, but the data have 0, 1; it belongs"):
        Conditional(Quantiles()).restored(data, torch.arange(7) % 2, tensors)


def test_the_key_of_a_class_is_its_own_whatever_other_classes_there_are() -> None:
    data = Rng(0).normal(8, 2)
    fitted = [Conditional(Quantiles()).fit(data, torch.tensor([0, 0, 5, 5, k, k, 9, 9]), Rng(1)) for k in (1, 7)]
    one, other = (each.tensors() for each in fitted)
    assert torch.equal(one["class.5.key.v1"], other["class.5.key.v1"])


def test_every_datum_is_joined_as_often_as_any_other_in_classes_of_any_size() -> None:
    data, labels = Rng(0).normal(20, 2), torch.tensor([-1] * 3 + [0] * 1 + [1] * 16)
    fitted = Conditional(Quantiles()).fit(data, labels, Rng(1))
    arrived = torch.arange(20).repeat(500)
    drawn = fitted.assign(Rng(2).normal(len(arrived), 2), labels[arrived]).bincount(minlength=20)
    assert (drawn - 500).abs().max() < 5 * math.sqrt(500)


# What it refuses.


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="the share of candidates is between 0 and 1"):
        Conditional(BatchOT(), share)


def test_an_independent_coupling_needs_no_condition() -> None:
    with pytest.raises(InputError, match="Independent joins noise and data whatever they are"):
        Conditional(Independent())
    assert Conditional.independent is False


def test_conditions_that_do_not_fit_are_refused() -> None:
    x0, x1 = batch(4)
    with pytest.raises(ShapeError, match=r"there are 4 rows, but a condition of shape \(3,\)"):
        Conditional(BatchOT())(x0, x1, torch.arange(3))
    with pytest.raises(ShapeError, match=r"but a condition of shape \(\)"):
        Conditional(BatchOT())(x0, x1, torch.tensor(3))
    with pytest.raises(ShapeError, match="as many rows: got 3 and 4"):
        Conditional(BatchOT())(x0[:3], x1, torch.arange(4))
    with pytest.raises(InputError, match="a condition is infinite"):
        Conditional(BatchOT())(x0, x1, torch.tensor([0.0, 1.0, math.inf, 2.0]))
    with pytest.raises(InputError, match="not finite"):
        Conditional(BatchOT())(x0, x1 * math.nan, Rng(0).normal(4, 1))


def test_a_coupling_of_a_dataset_refuses_what_is_no_label_of_the_data() -> None:
    data, labels = Rng(0).normal(24, 2), torch.arange(24) // 2
    coupling = Conditional(Quantiles())
    fitted = coupling.fit(data, labels, Rng(1))
    for call in (coupling.tensors, lambda: coupling.assign(data, labels), lambda: coupling(data, data, labels)):
        with pytest.raises(InputError, match="knows no data yet"):
            call()
    with pytest.raises(InputError, match="needs labels"):
        coupling.fit(data, None, Rng(1))
    with pytest.raises(InputError, match="needs labels"):
        fitted.assign(data)
    with pytest.raises(InputError, match="a vector is no class"):
        coupling.fit(data, Rng(2).normal(24, 3), Rng(1))
    with pytest.raises(InputError, match="have no label 12; they have 0, 1, 2, 3, 4, 5, 6, 7 and 4 more"):
        fitted.assign(data[:1], torch.tensor([12]))
    with pytest.raises(ShapeError, match="fitted to 24 data, got 23"):
        fitted(data, data[:-1], labels)


def test_a_coupling_of_batches_is_not_fitted() -> None:
    x, labels = Rng(0).normal(4, 2), torch.arange(4) % 2
    with pytest.raises(InputError, match="BatchOT joins batches and is not fitted to a dataset"):
        Conditional(BatchOT()).fit(x, labels, Rng(0))
    with pytest.raises(InputError, match="BatchOT joins batches"):
        Conditional(BatchOT()).restored(x, labels, {})
