"""Randomness against the documented hash, written out a second time in Python's integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rheos.core import InputError, Rng, ShapeError, Stream

GOLDEN = 0x9E3779B97F4A7C15
FACTORS = (0xD6E8FEB86659FD93, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
WORD = 1 << 64


def mix(word: int) -> int:
    """Xor the high half into the low half and multiply, three times; then xor once more."""
    for factor in FACTORS:
        word = ((word ^ (word >> 32)) * factor) % WORD
    return word ^ (word >> 32)


def signed(word: int) -> int:
    return word - WORD if word >= WORD // 2 else word


def single(seed: int, folds: tuple[int, ...] = ()) -> int:
    key = mix(seed % WORD)
    for k in folds:
        key = mix(((key ^ mix((k + 1) * GOLDEN % WORD)) + GOLDEN) % WORD)
    return key


def row_key(seed: int, row: int, before: tuple[int, ...] = (), after: tuple[int, ...] = ()) -> int:
    key = mix((row * GOLDEN + single(seed, before)) % WORD)
    if not after:
        return key
    salt = 0
    for k in after:
        salt = mix(((salt ^ mix((k + 1) * GOLDEN % WORD)) + GOLDEN) % WORD)
    return mix(key ^ salt)


def words(key: int, count: int) -> list[int]:
    return [mix((key + (n + 1) * GOLDEN) % WORD) for n in range(count)]


def unit64(word: int) -> float:
    return ((word ^ (1 << 63)) >> 12) * 2.0**-52 + 2.0**-53


def unit32(word: int) -> float:
    return (((word ^ (1 << 63)) >> 32 >> 9) + 0.5) * 2.0**-23


SEEDS = (0, 1, 7, -1, -(2**63), 2**63 - 1, 2**64 + 5, 123456789012345678901234567890)


@pytest.mark.parametrize("seed", SEEDS)
def test_words_of_a_single_key(seed: int) -> None:
    assert int(Rng(seed).key) == signed(single(seed))
    assert Rng(seed).bits(5).tolist() == [signed(w) for w in words(single(seed), 5)]


def test_words_are_frozen() -> None:
    assert Rng(0).bits(3).tolist() == [1428370929025425839, -2142740479822529124, 7636769903247470977]
    assert Rng(1).fold(2).bits(2).tolist() == [signed(w) for w in words(single(1, (2,)), 2)]


@pytest.mark.parametrize("folds", [(0,), (3,), (-1,), (-2,), (2**40,), (1, 2), (2, 1), (0, 0, 0)])
def test_words_of_a_folded_key(folds: tuple[int, ...]) -> None:
    rng = Rng(11)
    for k in folds:
        rng = rng.fold(k)
    assert rng.row is None
    assert rng.bits(4).tolist() == [signed(w) for w in words(single(11, folds), 4)]


@pytest.mark.parametrize("after", [(), (0,), (5,), (5, 9), (int(Stream.STEP), 3)])
def test_words_of_rows(after: tuple[int, ...]) -> None:
    numbers = [0, 1, 41, 2**33]
    rng = Rng(5).fold(2).rows(torch.tensor(numbers))
    for k in after:
        rng = rng.fold(k)
    assert rng.row is not None
    assert rng.row.tolist() == numbers
    keys = [row_key(5, row, (2,), after) for row in numbers]
    assert rng.key.tolist() == [signed(k) for k in keys]
    assert rng.bits(3).tolist() == [[signed(w) for w in words(k, 3)] for k in keys]


@pytest.mark.parametrize("after", [(), (4,)])
def test_folding_a_number_a_row(after: tuple[int, ...]) -> None:
    numbers = [3, 0, -7]
    single_key = Rng(5).fold(torch.tensor(numbers))
    rows = Rng(5).rows(torch.arange(3))
    for k in after:
        rows = rows.fold(k)
    keyed = rows.fold(torch.tensor(numbers))
    for b, k in enumerate(numbers):
        fold = mix(k * GOLDEN % WORD)
        assert int(single_key.key[b]) == signed(mix(((single(5) ^ fold) + GOLDEN) % WORD))
        assert int(keyed.key[b]) == signed(mix(((row_key(5, b, (), after) ^ fold) + GOLDEN) % WORD))
    assert single_key.row is not None
    assert single_key.row.tolist() == [0, 1, 2]
    assert keyed.row is not None
    assert keyed.row.tolist() == [0, 1, 2]
    # What is folded in afterwards starts from the new keys.
    assert keyed.fold(1).key.tolist() == [
        signed(mix((int(k) % WORD) ^ mix((mix(2 * GOLDEN % WORD) + GOLDEN) % WORD))) for k in keyed.key
    ]


def test_folding_keeps_the_row_numbers_of_rows() -> None:
    rng = Rng(5).rows(torch.tensor([4, 9])).fold(torch.tensor([1, 2]))
    assert rng.row is not None
    assert rng.row.tolist() == [4, 9]


def test_keys_given_as_a_tensor_are_used_as_they_are() -> None:
    rng = Rng(torch.tensor([7, -3]), torch.tensor([10, 20]))
    assert rng.key.tolist() == [7, -3]
    assert rng.row is not None
    assert rng.row.tolist() == [10, 20]
    counted = Rng(torch.tensor([7, -3])).row
    assert counted is not None
    assert counted.tolist() == [0, 1]
    assert rng.bits(2).tolist() == [[signed(w) for w in words(k % WORD, 2)] for k in (7, -3)]


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 3, 2)])
def test_uniform_numbers_are_the_middles_of_equal_cells(shape: tuple[int, ...]) -> None:
    count = math.prod(shape)
    expected = words(single(3), count)
    wide = Rng(3).uniform(*shape, dtype=torch.float64)
    assert wide.shape == shape
    assert wide.dtype == torch.float64
    assert wide.flatten().tolist() == [unit64(w) for w in expected]
    narrow = Rng(3).uniform(*shape)
    assert narrow.dtype == torch.float32
    assert narrow.flatten().tolist() == [unit32(w) for w in expected]
    half = Rng(3).uniform(*shape, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, narrow.to(torch.bfloat16))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5,), (2, 3), (3, 3)])
def test_normal_numbers_in_double_are_box_and_muller(shape: tuple[int, ...]) -> None:
    count = math.prod(shape)
    half = (count + 1) // 2
    drawn = words(single(9), 2 * half)
    radius = [math.sqrt(-2 * math.log(unit64(w))) for w in drawn[:half]]
    angle = [2 * math.pi * unit64(w) for w in drawn[half:]]
    expected = [r * math.cos(a) for r, a in zip(radius, angle, strict=True)]
    expected += [r * math.sin(a) for r, a in zip(radius, angle, strict=True)]
    got = Rng(9).normal(*shape, dtype=torch.float64)
    assert got.shape == shape
    np.testing.assert_allclose(got.flatten().numpy(), expected[:count], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5,), (2, 3), (3, 3)])
def test_normal_numbers_in_single_use_both_halves_of_a_word(shape: tuple[int, ...]) -> None:
    count = math.prod(shape)
    half = (count + 1) // 2
    drawn = words(single(9), half)
    radius = [math.sqrt(-2 * math.log(((w >> 32 & 0x7FFFFFFF) + 0.5) * 2.0**-31)) for w in drawn]
    angle = [math.pi * 2.0**-31 * ((w & 0xFFFFFFFF) - (1 << 32 if w & 0x80000000 else 0)) for w in drawn]
    expected = [r * math.cos(a) for r, a in zip(radius, angle, strict=True)]
    expected += [r * math.sin(a) for r, a in zip(radius, angle, strict=True)]
    got = Rng(9).normal(*shape)
    assert got.shape == shape
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.flatten().numpy(), expected[:count], rtol=2e-5, atol=2e-6)
    assert torch.equal(Rng(9).normal(*shape, dtype=torch.bfloat16), got.to(torch.bfloat16))


def test_numbers_of_rows_stand_behind_the_rows() -> None:
    rng = Rng(4).rows(torch.arange(3))
    for draw in (rng.bits, rng.uniform, rng.normal):
        whole = draw(2, 2)
        assert whole.shape == (3, 2, 2)
        for row in range(3):
            assert torch.equal(getattr(Rng(4).rows(torch.tensor([row])), draw.__name__)(2, 2)[0], whole[row])
        assert draw().shape == (3,)
    assert torch.equal(rng.normal(dtype=torch.float64), rng.normal(1, dtype=torch.float64)[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_distributions_are_uniform_and_normal(dtype: torch.dtype) -> None:
    u = Rng(2).uniform(40_000, dtype=dtype)
    assert 0 < float(u.min()) < float(u.max()) < 1
    assert stats.kstest(u.double().numpy(), "uniform").pvalue > 1e-3
    z = Rng(2).rows(torch.arange(200)).normal(201, dtype=dtype)
    assert stats.kstest(z.double().flatten().numpy(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(z.double().numpy())[np.triu_indices(200, 1)]
    assert abs(correlation).max() < 5.5 / math.sqrt(201)
    assert abs(correlation.mean()) < 5 / math.sqrt(201 * len(correlation))


def test_the_extreme_words_stay_inside_the_open_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = torch.tensor([-(2**63), 2**63 - 1])
    monkeypatch.setattr(Rng, "bits", lambda self, *shape: extremes.clone())
    for dtype, step in ((torch.float32, 2.0**-24), (torch.float64, 2.0**-53)):
        assert Rng(0).uniform(2, dtype=dtype).tolist() == [step, 1 - step]
        assert bool(torch.isfinite(Rng(0).normal(4 if dtype == torch.float32 else 2, dtype=dtype)).all())


def test_a_permutation_holds_every_number_once_and_is_uniform() -> None:
    assert Rng(6).permutation(0).tolist() == []
    assert sorted(Rng(6).permutation(50).tolist()) == list(range(50))
    drawn = words(single(6), 7)
    assert Rng(6).permutation(7).tolist() == sorted(range(7), key=lambda n: signed(drawn[n]))
    counts = np.zeros((4, 4))
    for seed in range(600):
        counts[np.arange(4), Rng(seed).permutation(4).numpy()] += 1
    assert stats.chisquare(counts.flatten()).pvalue > 1e-4


def test_streams_are_named_by_fixed_numbers() -> None:
    assert {stream.name: int(stream) for stream in Stream} == {
        "SOURCE": 1,
        "TIME": 2,
        "STEP": 3,
        "DROPOUT": 4,
        "CONDITION": 5,
        "COUPLING": 6,
        "AUGMENT": 7,
        "ORDER": 8,
        "PROBE": 9,
        "WEIGHTS": 10,
        "PATH": 11,
        "END": 12,
        "SCALE": 13,
    }


def test_an_rng_comes_from_itself_a_seed_or_a_generator() -> None:
    rng = Rng(3)
    assert Rng.of(rng) is rng
    assert int(Rng.of(3).key) == int(rng.key)
    for seed in range(6):
        drawn = int(torch.randint(1 << 62, (), generator=torch.Generator().manual_seed(seed)))
        generator = torch.Generator().manual_seed(seed)
        assert int(Rng.of(generator).key) == int(Rng(drawn).key)
        assert int(Rng.of(generator).key) != int(Rng(drawn).key)


@pytest.mark.parametrize("source", [True, 1.5, "7", None])
def test_other_sources_of_randomness_are_refused(source: object) -> None:
    with pytest.raises(InputError, match="an Rng, a torch.Generator or an integer seed, got " + repr(source)):
        Rng.of(source)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("keys", [torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(3)])
def test_keys_are_int64_one_a_row(keys: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"keys must be int64 of shape \(B,\), got") as caught:
        Rng(keys)
    assert str(tuple(keys.shape)) in str(caught.value)


def test_rows_come_from_a_single_key_only() -> None:
    with pytest.raises(ShapeError, match="has a key a row already"):
        Rng(0).rows(torch.arange(2)).rows(torch.arange(2))
    assert Rng(0).rows(torch.arange(2, dtype=torch.int32)).key.dtype == torch.int64


def test_one_number_a_row_is_folded() -> None:
    with pytest.raises(ShapeError, match=r"\(3,\) rows, got \(2,\)"):
        Rng(0).rows(torch.arange(3)).fold(torch.arange(2))


def test_per_row_counts_the_rows_of_a_single_key_and_checks_those_of_many() -> None:
    rng = Rng(8)
    assert torch.equal(rng.per_row(4).key, rng.rows(torch.arange(4)).key)
    rows = rng.rows(torch.tensor([5, 6]))
    assert rows.per_row(2) is rows
    with pytest.raises(ShapeError, match="the batch has 3 rows, the Rng has 2 keys"):
        rows.per_row(3)


def test_drawing_changes_nothing() -> None:
    base = torch.tensor([1, 2, 3])
    rng = Rng(base).fold(1)
    first = rng.normal(4)
    for draw in (rng.bits, rng.uniform, rng.fold(torch.tensor([1, 2, 3])).bits):
        draw(3)
    assert torch.equal(rng.normal(4), first)
    assert base.tolist() == [1, 2, 3]
    plain = Rng(base)
    assert torch.equal(plain.bits(2), plain.bits(2))
    assert base.tolist() == [1, 2, 3]
