"""Diagnosis: closed forms, all permutations counted out, and a planted leak that conditional coupling mends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import Cond, InputError, Pairs, Rng
from rheos.couplings import BatchOT, Independent
from rheos.couplings.conditional import Conditional
from rheos.couplings.diagnosis import Diagnosis, diagnose


@dataclass(frozen=True)
class Fixed:
    """Pairs that are given."""

    i: Tensor
    j: Tensor
    gap: float | None = None
    independent: bool = False

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        return Pairs(x0[self.i], x1[self.j], self.i, self.j, self.gap)


@dataclass(frozen=True)
class Drawn:
    """Noise i takes datum ``(i + k) % N``, or datum k, with k drawn from ``chance``."""

    chance: tuple[float, ...]
    turning: bool = True
    independent: bool = False

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        assert rng is not None
        edges = torch.tensor(self.chance, dtype=torch.float64).cumsum(0)
        i = torch.arange(len(x0))
        k = torch.searchsorted(edges, rng.joint().uniform(len(x0), dtype=torch.float64)).clamp_max(len(edges) - 1)
        j = (i + k) % len(x1) if self.turning else k
        return Pairs(x0, x1[j], i, j)


@dataclass(frozen=True)
class Slots:
    """A coupling of a dataset: normal noise takes the datum of its quantile in the first coordinate, of the first
    ``used`` data only."""

    used: int
    independent: bool = False
    fitted: bool = True

    def assign(self, x0: Tensor, cond: Any = None) -> Tensor:
        return (torch.special.ndtr(x0[:, 0].double()) * self.used).long().clamp_max(self.used - 1)

    def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
        j = self.assign(x0)
        return Pairs(x0, x1[j], torch.arange(len(x0)), j)

    def fit(self, data: Tensor, cond: Any, rng: Rng) -> Slots:
        return Slots(len(data))

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restored(self, data: Tensor, cond: Any, tensors: Any) -> Slots:
        return self


def batch(n: int, d: int = 2) -> tuple[Tensor, Tensor]:
    return Rng(0).normal(n, d), Rng(1).normal(n, d)


def clusters(n: int, d: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, and data of two labels on either side of it."""
    x0, x1 = batch(n, d)
    labels = Rng(2).bits(n) % 2
    return x0, 0.3 * x1 + 4.0 * labels[:, None] - 2.0, labels


# Cost.


def test_the_cost_is_that_of_the_pairs_by_that_of_all_combinations() -> None:
    x0, x1 = (x.double() for x in batch(50, 3))
    x1 = 2 * x1 + 1
    i, j = Rng(2).permutation(50), Rng(3).permutation(50) // 2
    found = diagnose(Fixed(i, j, 0.25), x0, x1)
    every = torch.cdist(x0, x1[j]).square()
    assert found.cost_ratio == pytest.approx(float((x0[i] - x1[j]).square().sum(1).mean() / every.mean()), rel=1e-12)
    assert found.gap == 0.25


def test_all_permutations_cost_as_independent_pairs_in_the_mean() -> None:
    x0, x1 = batch(5)
    j = torch.arange(5)
    ratios = [diagnose(Fixed(torch.tensor(i), j), x0, x1).cost_ratio for i in itertools.permutations(range(5))]
    assert sum(ratios) / len(ratios) == pytest.approx(1.0, rel=1e-6)


def test_the_cost_does_not_cancel_far_from_the_origin() -> None:
    x0, x1 = (x.double() for x in batch(64))
    near, far = (diagnose(BatchOT(), x0 + shift, x1 + shift).cost_ratio for shift in (0.0, 1e6))
    assert far == pytest.approx(near, rel=1e-6)
    assert diagnose(BatchOT(), x0 * 0, x0 * 0).cost_ratio == 1.0


# What becomes of the data.


@pytest.mark.parametrize("coupling", [Independent(), BatchOT()])
def test_a_permutation_has_one_partner_and_even_frequencies(coupling: Independent | BatchOT) -> None:
    found = diagnose(coupling, *batch(40))
    assert (found.entropy, found.uniqueness) == (0.0, 1.0)
    assert found.chi_squared == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("partners", [2, 5, 400])
def test_the_entropy_counts_partners(partners: int) -> None:
    n = 400
    found = diagnose(Drawn((1 / partners,) * partners), *batch(n))
    assert found.entropy == pytest.approx(math.log(partners) / math.log(n), abs=0.06)
    assert found.chi_squared == pytest.approx(0.0, abs=0.06)
    assert found.uniqueness == pytest.approx(1 - (1 - 1 / partners) ** partners, abs=0.04)


def test_the_frequencies_are_not_blamed_for_chance() -> None:
    """Rows that share one datum in every draw are uneven; rows that meet one datum in one draw by chance are not."""
    n = 100
    chance = torch.tensor([3.0] * 25 + [1.0] * 75, dtype=torch.float64) / 150
    found = diagnose(Drawn(tuple(chance.tolist()), turning=False), *batch(n))
    assert found.chi_squared == pytest.approx(float(n * chance.square().sum() - 1), abs=0.1)
    half = Fixed(torch.arange(n), torch.arange(n) // 2)
    assert diagnose(half, *batch(n)).chi_squared == pytest.approx(1.0)
    assert diagnose(half, *batch(n)).uniqueness == 0.5


def test_a_coupling_of_a_dataset_is_judged_by_independent_noise() -> None:
    """With all 64 data used evenly, chi-squared is 0, though chance alone would make it 63/512; with half of them 1."""
    data, noise = Rng(0).normal(64, 2), Rng(1).normal(20 * 512, 2).split(512)
    even, half = ([diagnose(Slots(used), x, data).chi_squared for x in noise] for used in (64, 32))
    error = math.sqrt(2 * 64) / 512 / math.sqrt(len(noise))
    assert sum(even) / len(even) == pytest.approx(0.0, abs=4 * error)
    assert sum(half) / len(half) == pytest.approx(1.0, abs=8 * error)
    found = diagnose(Slots(64), noise[0], data)
    assert (found.entropy, found.gap) == (0.0, None)
    assert diagnose(Slots(1), noise[0][:2], data[:2]).chi_squared == 1.0


@pytest.mark.filterwarnings("ignore:optimal transport within a batch ignores the condition")
def test_one_row_is_enough_to_say_what_can_be_said() -> None:
    found = diagnose(BatchOT(), *batch(1), torch.zeros(1))
    assert (found.entropy, found.uniqueness, found.leakage, found.leakage_z) == (0.0, 1.0, None, None)
    assert found.chi_squared == 0.0


# Leakage.


def found_over_all_permutations(cond: Cond) -> Iterator[Diagnosis]:
    n = 6
    x = Rng(4).normal(n, 2, dtype=torch.float64).exp()
    for order in itertools.permutations(range(n)):
        yield diagnose(Fixed(torch.tensor(order), torch.arange(n)), x, x, cond)


@pytest.mark.parametrize(
    "cond",
    [
        torch.tensor([0, 0, 1, 1, 1, 2]),
        torch.tensor([0.1, 0.5, -2.0, 1.0, 1.0, 7.0]),
        {"label": torch.tensor([0, 0, 1, 1, 1, 1]), "place": torch.tensor([0.0, 1.0, 4.0, 5.0, 7.0, 9.0])},
    ],
)
def test_chance_leaks_nothing_in_the_mean_and_its_deviation_is_one(cond: Cond) -> None:
    """The moments are those of all 720 permutations, counted out."""
    every = list(found_over_all_permutations(cond))
    shares = torch.tensor([found.leakage for found in every], dtype=torch.float64)
    scores = torch.tensor([found.leakage_z for found in every], dtype=torch.float64)
    assert float(shares.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(scores.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(scores.square().mean()) == pytest.approx(1.0, rel=1e-9)
    assert float(torch.corrcoef(torch.stack([shares, scores]))[0, 1]) == pytest.approx(1.0)


def test_noise_that_the_condition_fixes_leaks_all() -> None:
    labels = torch.arange(60) % 3
    noise = Rng(0).normal(3, 4)[labels]
    found = diagnose(Independent(), noise, noise, labels)
    assert found.leakage == pytest.approx(1.0, abs=1e-6)
    assert found.leakage_z is not None
    assert found.leakage_z > 20
    c = Rng(1).normal(60, 2)
    found = diagnose(Independent(), c @ Rng(2).normal(2, 4) + 3, noise, c)
    assert found.leakage == pytest.approx(1.0, abs=1e-6)


def test_the_share_is_that_between_two_classes() -> None:
    """Two halves at -m and m with spread 1 in one coordinate of two: m*m of m*m + 2 lies between."""
    n, m = 20_000, 0.5
    labels = torch.arange(n) % 2
    noise = Rng(0).normal(n, 2) + torch.stack([m * (2.0 * labels - 1), torch.zeros(n)], 1)
    assert diagnose(Independent(), noise, noise, labels).leakage == pytest.approx(m * m / (m * m + 2), abs=0.01)


@pytest.mark.filterwarnings("ignore:optimal transport within a batch ignores the condition")
@pytest.mark.parametrize("d", [2, 64])
def test_a_planted_leak_is_seen_and_mended(d: int) -> None:
    x0, x1, labels = clusters(256, d)
    leaky, mended, without = (
        diagnose(coupling, x0, x1, labels) for coupling in (BatchOT(), Conditional(BatchOT()), Independent())
    )
    for found in (leaky, mended, without):
        assert found.leakage is not None
        assert found.leakage_z is not None
    assert leaky.leakage_z > 10  # pyright: ignore[reportOptionalOperand]
    assert leaky.leakage > (0.3 if d == 2 else 0.005)  # pyright: ignore[reportOptionalOperand]
    assert abs(mended.leakage_z) < 3  # pyright: ignore[reportArgumentType]
    assert mended.leakage == pytest.approx(without.leakage, abs=1e-12)
    assert leaky.cost_ratio < mended.cost_ratio < without.cost_ratio


@pytest.mark.filterwarnings("ignore:optimal transport within a batch ignores the condition")
def test_a_leak_along_a_vector_is_seen_and_mended() -> None:
    x0, x1 = batch(256)
    x1 = 3 * x1
    c = x1[:, :1]
    leaky, mended = diagnose(BatchOT(), x0, x1, c), diagnose(Conditional(BatchOT()), x0, x1, c)
    assert leaky.leakage_z > 50  # pyright: ignore[reportOptionalOperand]
    assert abs(mended.leakage_z) < 3  # pyright: ignore[reportArgumentType]
    assert mended.cost_ratio < 0.95
    both = diagnose(Conditional(BatchOT()), x0, x1, {"side": (c[:, 0] > 0).long(), "place": c})
    assert abs(both.leakage_z) < 3  # pyright: ignore[reportArgumentType]


def test_a_leak_of_a_coupling_of_a_dataset_is_seen_and_mended() -> None:
    data = Rng(0).normal(64, 2)
    labels = (torch.arange(64) >= 20).long()
    noise = Rng(1).normal(4096, 2)
    leaky = diagnose(Slots(64), noise, data, labels)
    mended = diagnose(Conditional(Slots(0)).fit(data, labels, Rng(3)), noise, data, labels)
    assert leaky.leakage_z > 50  # pyright: ignore[reportOptionalOperand]
    assert abs(mended.leakage_z) < 3  # pyright: ignore[reportArgumentType]
    assert mended.chi_squared == pytest.approx(0.0, abs=4 * math.sqrt(2 * 64) / 4096)


def test_less_noise_than_data_arrives_with_labels_of_all_the_data() -> None:
    data, labels = Rng(0).normal(400, 2), (torch.arange(400) >= 200).long()
    found = diagnose(Conditional(Slots(0)).fit(data, labels, Rng(3)), Rng(1).normal(200, 2), data, labels)
    assert found.chi_squared == pytest.approx(0.0, abs=3 * math.sqrt(2 * 400) / 200)


def test_a_leak_along_one_direction_of_a_wide_vector_is_seen() -> None:
    x0, x1 = batch(100)
    wide = 0.1 * Rng(5).normal(100, 500) + x0[:, :1] * Rng(6).normal(500)
    assert diagnose(Independent(), x0, x1, wide).leakage_z > 10  # pyright: ignore[reportOptionalOperand]


def test_unknown_entries_and_wide_vectors_are_taken() -> None:
    x0, x1 = batch(128)
    wide = Rng(5).normal(128, 500)
    wide[::3] = math.nan
    found = diagnose(Independent(), x0, x1, wide)
    assert found.leakage_z is not None
    assert abs(found.leakage_z) < 3
    assert found.leakage == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("cond", [torch.zeros(32, dtype=torch.int64), torch.arange(32), torch.ones(32, 2), None])
def test_where_all_or_none_share_their_condition_nothing_can_be_told(cond: Tensor | None) -> None:
    found = diagnose(Independent(), *batch(32), cond)
    assert (found.leakage, found.leakage_z) == (None, None)


# The value.


def test_a_diagnosis_is_one_line_and_a_mapping() -> None:
    full = Diagnosis(0.5, 0.001, 0.25, 0.0512, 0.632, 0.1234, 12.34)
    assert str(full) == (
        "cost 0.500 of independent, gap 0.10%, entropy 0.250, chi-squared 0.051, 63.2% of rows distinct, "
        "leakage 0.1234 (z = 12.3)"
    )
    assert str(Diagnosis(1.0, None, 0.0, 0.0, 1.0)) == (
        "cost 1.000 of independent, gap unknown, entropy 0.000, chi-squared 0.000, 100.0% of rows distinct"
    )
    assert full.asdict() == {
        "cost_ratio": 0.5,
        "gap": 0.001,
        "entropy": 0.25,
        "chi_squared": 0.0512,
        "uniqueness": 0.632,
        "leakage": 0.1234,
        "leakage_z": 12.34,
    }


def test_the_rng_decides_what_is_drawn() -> None:
    x0, x1 = batch(30)
    coupling = Drawn((0.5, 0.5))
    assert diagnose(coupling, x0, x1) == diagnose(coupling, x0, x1, rng=0)
    assert diagnose(coupling, x0, x1, rng=1) == diagnose(coupling, x0, x1, rng=Rng(1))
    assert diagnose(coupling, x0, x1, rng=1) != diagnose(coupling, x0, x1, rng=2)
    diagnose(coupling, x0, x1, rng=Rng(0).rows(torch.arange(30)))


def test_no_noise_is_refused() -> None:
    with pytest.raises(InputError, match="there are no rows"):
        diagnose(Independent(), torch.zeros(0, 2), torch.zeros(0, 2))
