"""The kit must be able to fail: each law of a coupling is broken once, and the sentence says which."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import CheckpointError, InputError, Pairs, Rng
from rheos.couplings import BatchOT, Independent
from rheos.testing.coupling import check_same_law
from support.laws import fails


@dataclass(frozen=True)
class BrokenCoupling:
    """Independent pairs with one thing wrong."""

    fault: str
    independent: bool = True
    calls: list = field(default_factory=list)

    def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
        pairs = Independent()(x0, x1)
        i, j = pairs.i, pairs.j
        self.calls.append(0)
        match self.fault:
            case "repeat":
                i = torch.zeros_like(i)
            case "short":
                i = i.int()
            case "beyond":
                return pairs._replace(j=j + 1)
            case "few":
                return pairs._replace(j=j[:1])
            case "names":
                return pairs._replace(x0=x0.flip(0))
            case "data":
                return pairs._replace(x1=x1 + 1)
            case "wide":
                return pairs._replace(x1=x1.double())
            case "gap":
                return pairs._replace(gap=-1.0)
            case "touch":
                x0.mul_(2)
            case "mood":
                i = i.roll(len(self.calls))
            case "fickle":
                assert rng is not None
                j = j.clamp_max(max(0, len(j) - 2)) if int(rng.joint().key) % 2 == 1 else j
            case "favourite":
                j = j.clamp_max(max(0, len(j) - 2))
            case "torch":
                i = torch.randperm(len(x0))
            case "numpy":
                i = torch.from_numpy(np.random.permutation(len(x0)))
            case "python":
                i = i.roll(random.randrange(len(x0)))
            case "thief":
                with torch.random.fork_rng():
                    i = torch.randperm(len(x0))
            case "waste":
                torch.rand(())
            case "single":
                assert rng is not None
                i = rng.permutation(len(x0))
            case "labels":
                i = i.roll(1)
        return pairs._replace(x0=x0[i], x1=x1[j], i=i, j=j)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("repeat", "i uses every one of 2 rows once"),
        ("short", "i uses every one of 1 rows once, in int64"),
        ("beyond", r"j is one of 1 data for each of 1 rows, in int64: it is \[1\]"),
        ("few", r"j is one of 2 data for each of 2 rows, in int64: it is \[0\]"),
        ("names", r"x0 is noise\[i\]"),
        ("data", r"x1 is data\[j\]"),
        ("wide", r"x1 is data\[j\]: it is torch.float64 and should be torch.float32"),
        ("gap", "gap is finite and not negative, or None: it is -1.0"),
        ("touch", "a coupling leaves its arguments as they are"),
        ("mood", "the same noise, data and rng give the same pairs"),
        ("favourite", "equally often in the mean: datum 6 was joined 2.000 times as often"),
        ("fickle", "equally often in the mean: datum 6 was joined 1.438 times as often"),
        ("single", "a coupling takes an rng with a key a row: i and j are of"),
    ],
)
def test_a_broken_coupling(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_coupling(BrokenCoupling(fault)))


@pytest.mark.global_random
@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("torch", "the same noise, data and rng|that of PyTorch was moved"),
        ("numpy", "the same noise, data and rng|that of NumPy was moved"),
        ("python", "the same noise, data and rng|that of Python was moved"),
        ("thief", "rng alone decides: with other global generators the pairs were others"),
        ("waste", "a coupling leaves the global generators alone: that of PyTorch was moved"),
    ],
)
def test_a_coupling_that_reads_a_global_generator(fault: str, law: str) -> None:
    python = random.getstate()
    try:
        fails(law, lambda: testing.check_coupling(BrokenCoupling(fault)))
    finally:
        random.setstate(python)


def test_the_kit_leaves_the_global_generators_as_they_were() -> None:
    before = random.getstate(), torch.get_rng_state(), repr(np.random.get_state(legacy=False))
    testing.check_coupling(BatchOT())
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert repr(np.random.get_state(legacy=False)) == before[2]


def test_a_conditional_coupling_that_mixes_labels() -> None:
    fails(
        "joins each noise with a datum of the label",
        lambda: testing.check_coupling(BrokenCoupling("labels"), classes=2),
    )
    testing.check_coupling(BrokenCoupling("labels"))
    testing.check_coupling(BrokenCoupling("none"), classes=2)


def test_a_coupling_that_denies_its_dependence() -> None:
    class Liar:
        independent = True

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Any = None) -> Pairs[Tensor]:
            return BatchOT()(x0, x1)

    fails("whose independent is True pairs the same rows whatever the data", lambda: testing.check_coupling(Liar()))


@dataclass(frozen=True)
class Drawn:
    """Each noise takes a datum at random, the first one ``weight`` times as often as another."""

    weight: float = 1.0
    independent: bool = False

    def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
        assert rng is not None
        chance = torch.ones(len(x1), dtype=torch.float64)
        chance[0] = self.weight
        edges = chance.cumsum(0) / chance.sum()
        j = torch.searchsorted(edges, rng.joint().uniform(len(x0), dtype=torch.float64))
        i = torch.arange(len(x0))
        return Pairs(x0, x1[j], i, j)


def test_a_coupling_that_samples_is_held_to_its_frequencies_unless_it_says_otherwise() -> None:
    testing.check_coupling(Drawn())
    fails("every datum is joined equally often in the mean: datum 0", lambda: testing.check_coupling(Drawn(1.5)))
    testing.check_coupling(Drawn(1.5), balanced=False)


# Couplings of a dataset.


@dataclass(frozen=True)
class Slots:
    """Data in the order of their first coordinate; a normal noise takes the one at its quantile. One thing is wrong."""

    fault: str = ""
    order: Tensor | None = None
    mark: Tensor | None = None
    data: Tensor | None = None
    independent: bool = False
    calls: list = field(default_factory=list)

    @property
    def fitted(self) -> bool:
        return self.order is not None

    def fit(self, data: Tensor, cond: Any, rng: Rng) -> Slots:
        order = data.flatten(1)[:, 0].argsort()
        match self.fault:
            case "unfit":
                return self
            case "itself":
                object.__setattr__(self, "order", order)
            case "spoils":
                data.mul_(2)
            case "whim":
                self.calls.append(0)
                order = order.roll(len(self.calls))
            case "global":
                torch.rand(())
        return replace(self, order=order, mark=_mark(data), data=data)

    def assign(self, x0: Tensor, cond: Any = None) -> Tensor:
        if self.order is None:
            if self.fault == "eager":
                return torch.zeros(len(x0), dtype=torch.int64)
            raise InputError("not fitted.")
        first = x0.flatten(1)[:, 0].double()
        if self.fault == "crowd":
            first = first - first.mean()
        slot = (torch.special.ndtr(first) * len(self.order)).long().clamp_max(len(self.order) - 1)
        if self.fault == "skewed":
            slot = (slot + 1).clamp_max(len(self.order) - 1)
        j = self.order[slot]
        return j.int() if self.fault == "narrow" else j

    def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
        if self.order is None and self.fault != "eager":
            raise InputError("not fitted.")
        if self.order is not None and len(x1) != len(self.order) and self.fault != "shorter":
            raise InputError("other data.")
        i, j = torch.arange(len(x0)), self.assign(x0).long()
        if self.fault == "apart":
            j = j.roll(1)
        return Pairs(x0, x1[j], i, j)

    def tensors(self) -> Mapping[str, Tensor]:
        assert self.order is not None
        assert self.mark is not None
        if self.fault == "number":
            return {"order": self.order, "mark": 3}  # pyright: ignore[reportReturnType]
        if self.fault == "renames":
            return {"order": self.order}
        return {"order": self.order, "mark": self.mark}

    def restored(self, data: Tensor, cond: Any, tensors: Mapping[str, Tensor]) -> Slots:
        if "mark" not in tensors:
            raise CheckpointError("no mark of the data.")
        mark, order = tensors["mark"], tensors["order"]
        match self.fault:
            case "trusting":
                mark = _mark(data)
            case "sorted":
                mark = _mark(data) if torch.equal(mark.sort().values, _mark(data).sort().values) else mark
            case "lossy":
                order = order.flip(0)
            case "forgets":
                return replace(self, order=None)
            case "rough":
                return replace(self, fault="apart", order=order, mark=mark, data=data)
        if not torch.equal(mark, _mark(data)):
            raise CheckpointError("other data.")
        return replace(self, order=order, mark=mark, data=data)


def _mark(data: Tensor) -> Tensor:
    return data.flatten(1).sum(1)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 2)])
def test_a_coupling_of_a_dataset_that_keeps_the_laws(shape: tuple[int, ...]) -> None:
    testing.check_coupling(Slots(), shape=shape)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("unfit", "fit gives a coupling that is fitted"),
        ("itself", "fit leaves the coupling that it was called on as it was"),
        ("spoils", "fit leaves the data as they are"),
        ("whim", "the same data and rng are fitted alike, bit by bit"),
        ("eager", "a coupling that is not fitted joins nothing"),
        ("crowd", "a noise finds its datum by itself, whatever stands beside it"),
        ("skewed", "every datum is joined equally often in the mean"),
        ("narrow", "assign gives one datum a noise, in int64"),
        ("shorter", "a call with fewer data than the coupling was fitted to is refused: it raised IndexError"),
        ("apart", "a call joins each noise with the datum that assign gives it"),
        ("number", r"tensors\(\) holds tensors, by name"),
        ("renames", "what was fitted can be kept in a file, and comes back: it raised CheckpointError"),
        ("trusting", "what was fitted to some data is refused for other data"),
        ("sorted", "what was fitted to some data is refused for the data in another order"),
        ("lossy", "what comes back from a file is what was fitted, bit by bit"),
        ("forgets", "restored gives a coupling that is fitted"),
        ("rough", "resumed equals unbroken: the restored coupling gives the same pairs"),
    ],
)
def test_a_broken_coupling_of_a_dataset(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_coupling(Slots(fault)))


@pytest.mark.global_random
def test_a_fit_that_draws_from_a_global_generator() -> None:
    fails(
        "a coupling leaves the global generators alone: that of PyTorch",
        lambda: testing.check_coupling(Slots("global")),
    )


def test_a_coupling_of_a_dataset_that_denies_its_dependence() -> None:
    law = "a coupling that is fitted to data is not independent of them"
    fails(law, lambda: testing.check_coupling(Slots(independent=True)))


def test_another_law_on_another_device() -> None:
    costs = Rng(0).uniform(64)
    check_same_law(costs, costs + 0.1 * Rng(1).normal(64))
    check_same_law(costs, costs * 1.00005)
    fails("CUDA joins as the CPU does: their mean costs differ by 0.1", lambda: check_same_law(costs, costs + 0.1))
