"""Semidiscrete couplings, as they are searched, kept and refused."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import DataError, InputError, Rng, ShapeError
from rheos.couplings import Conditional, Semidiscrete
from rheos.couplings.semidiscrete.points import Points, hashes
from rheos.recipes.serial import decode, encode
from support.clouds import fit, images, noise


@dataclass(frozen=True)
class Cube:
    """Uniform noise in a cube from 1 to 3."""

    def __call__(self, rng: Rng, like: Tensor) -> Tensor:
        return 1 + 2 * rng.uniform(*like.shape[1:], dtype=like.dtype)


@pytest.mark.parametrize("shape", [(3,), (6,), (2, 2, 2)])
def test_the_conformance_kit_accepts_it(shape: tuple[int, ...]) -> None:
    testing.check_coupling(Semidiscrete(target=0.01), shape=shape)


def test_the_conformance_kit_accepts_it_as_far_as_it_is_fitted() -> None:
    testing.check_coupling(Semidiscrete(), rows=100, shape=(2, 3), unequal=0.05**0.5)
    with pytest.raises(AssertionError, match="every datum is joined equally often"):
        testing.check_coupling(Semidiscrete(), rows=100, shape=(2, 3))


def test_the_conformance_kit_accepts_it_by_class() -> None:
    testing.check_coupling(Conditional(Semidiscrete(target=0.01)), rows=16, classes=2)


def test_a_noise_finds_its_datum_by_itself() -> None:
    data = images(700, 20)
    fitted = fit(data)
    z = noise(600, 20)
    whole = fitted.assign(z)
    for size in (1, 7, 255, 257):
        assert torch.equal(torch.cat([fitted.assign(part) for part in z.split(size)]), whole)
    assert torch.equal(fitted.assign(z.flip(0)), whole.flip(0))
    assert fitted.assign(z[:0]).shape == (0,)


def test_a_small_block_changes_nothing() -> None:
    data, z = images(200, 20), noise(600, 20)
    one, other = fit(data), fit(data, block=1 << 12)
    assert torch.equal(one.potentials, other.potentials)
    assert torch.equal(one.assign(z), other.assign(z))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_data_of_other_types_are_fitted(dtype: torch.dtype) -> None:
    data = images(100, 4).to(dtype)
    fitted = fit(data)
    pairs = fitted(noise(50, 4, dtype=dtype), data)
    assert pairs.x1.dtype == dtype
    assert fitted.potentials.dtype == torch.float64


def test_the_source_need_not_be_normal() -> None:
    data = torch.tensor([4.0, -1.0, 0.0, 2.0])[:, None]
    fitted = fit(data, target=1e-3, source=Cube())
    z = torch.linspace(1.01, 2.99, 100)[:, None]
    clear = ((2 * (z[:, 0] - 1)) % 1 - 0.5).abs() < 0.45
    wanted = torch.tensor([1, 2, 3, 0])[(2 * (z[:, 0] - 1)).long()]
    assert torch.equal(fitted.assign(z)[clear], wanted[clear])


def test_the_source_is_given_keys_and_what_to_look_like() -> None:
    seen = []

    def source(rng: Rng, like: Tensor) -> Tensor:
        seen.append((rng.row, like.shape, like.dtype))
        return rng.normal(*like.shape[1:], dtype=like.dtype)

    data = images(30, 6).reshape(30, 2, 3)
    fitted = Semidiscrete(source=source).fit(data, None, Rng(0))
    assert torch.equal(fitted.potentials, Semidiscrete().fit(data, None, Rng(0)).potentials)
    assert all(row is not None and shape == (len(row), 2, 3) for row, shape, _ in seen)
    starts_at = [int(row[0]) for row, _, _ in seen if row is not None]
    assert starts_at[:3] == [0, 1 << 15, (1 << 15) + 256]


def test_what_was_fitted_comes_back() -> None:
    data = images(300, 5)
    fitted = fit(data)
    z = noise(500, 5)
    restored = Semidiscrete().restored(data.clone(), None, fitted.tensors())
    assert torch.equal(restored.assign(z), fitted.assign(z))
    assert torch.equal(restored.potentials, fitted.potentials)
    assert restored.chi_squared == fitted.chi_squared
    assert restored.cost_ratio == fitted.cost_ratio


def test_rng_alone_decides() -> None:
    data = images(60, 3)
    one, again, other = fit(data, 1), fit(data, 1), fit(data, 2)
    assert torch.equal(one.potentials, again.potentials)
    assert not torch.equal(one.potentials, other.potentials)
    keys = Rng(torch.arange(5))
    assert torch.equal(
        Semidiscrete().fit(data, None, keys).potentials, Semidiscrete().fit(data, None, keys.joint()).potentials
    )


def test_it_is_a_value_of_plain_numbers() -> None:
    coupling = Semidiscrete(target=0.1, steps=7)
    assert decode(json.loads(json.dumps(encode(coupling)))) == coupling
    data = images(20, 2)
    fitted = Semidiscrete().fit(data, None, Rng(0))
    assert fitted == Semidiscrete()
    assert not decode(encode(fitted)).fitted
    assert not Semidiscrete().fitted
    assert fitted.fitted
    assert Semidiscrete.independent is False
    assert "potentials" not in repr(fitted)


def test_rows_are_told_apart_and_equal_ones_found() -> None:
    rows = noise(500, 3).round()
    points = Points.of(rows)
    unique, inverse, counts = rows.unique(dim=0, return_inverse=True, return_counts=True)
    assert len(points.flat) == len(unique)
    assert torch.allclose(points.weights.sort().values, counts.double().sort().values / 500)
    g = points.spread(torch.arange(len(unique)).double())
    assert torch.equal(g[:, None] == g, inverse[:, None] == inverse)
    assert torch.equal(points.gathered(g), torch.arange(len(unique)).double())
    assert points.order is not None
    assert torch.equal(rows[points.order[points.start]], points.flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_hash_tells_small_changes(dtype: torch.dtype) -> None:
    rows = noise(50, 8, dtype=dtype).round()
    changed = rows.clone()
    changed[7, 3] += 1
    assert (hashes(rows) != hashes(changed)).nonzero().flatten().tolist() == [7]
    assert int(Points.of(rows).mark) != int(Points.of(changed).mark)
    assert int(Points.of(rows).mark) != int(Points.of(rows.roll(1, 0)).mark)
    assert int(Points.of(rows).mark) == int(Points.of(rows.clone()).mark)


def test_rows_with_one_hash_that_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheos.couplings.semidiscrete.points.hashes", lambda rows: torch.zeros(len(rows)).long())
    points = Points.of(torch.tensor([[1.0], [2.0], [2.0], [3.0]]))
    assert points.flat.flatten().tolist() == [1, 2, 3]
    assert points.weights.tolist() == [0.25, 0.5, 0.25]


def test_a_target_that_was_not_reached_is_said_and_kept() -> None:
    data = images(500, 10)
    with pytest.warns(UserWarning, match=r"chi-squared is \d.*, not 0.05, after 3 steps.*steps=12") as caught:
        fitted = Semidiscrete(steps=3).fit(data, None, Rng(0))
    assert caught[0].filename == __file__
    assert not fitted.converged
    assert fitted.chi_squared > 0.05
    assert not Semidiscrete().restored(data, None, fitted.tensors()).converged


def test_a_condition_is_warned_of() -> None:
    data, labels = images(20, 2), torch.arange(20)
    with pytest.warns(UserWarning, match=r"Conditional\(Semidiscrete\(\)\)") as caught:
        fitted = Semidiscrete().fit(data, labels, Rng(0))
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="ignores the condition") as caught:
        pairs = fitted(data, data, labels)
    assert caught[0].filename == __file__
    assert torch.equal(pairs.j, fitted.assign(data))


def test_other_data_are_refused() -> None:
    data = images(20, 2)
    fitted = fit(data)
    assert len(fitted(data, data.clone()).j) == 20
    changed = data.clone()
    changed[3, 1] += 1e-3
    for other in (changed, data[:19], data.flip(0), data.double(), data[:, :1]):
        with pytest.raises(DataError, match="another dataset"):
            fitted(data, other)
        with pytest.raises(DataError, match="another dataset"):
            Semidiscrete().restored(other, None, fitted.tensors())


def test_a_damaged_file_is_refused() -> None:
    data = images(20, 2)
    found = dict(fit(data).tensors())
    with pytest.raises(DataError, match="not finite: the file is damaged"):
        Semidiscrete().restored(data, None, found | {"potentials": found["potentials"] * math.nan})
    del found["measured"]
    with pytest.raises(InputError, match="lacks measured"):
        Semidiscrete().restored(data, None, found)


def test_nothing_is_joined_before_fitting() -> None:
    x = torch.zeros(3, 2)
    for call in (
        lambda: Semidiscrete()(x, x),
        lambda: Semidiscrete().assign(x),
        lambda: Semidiscrete().tensors(),
        lambda: Semidiscrete().potentials,
        lambda: Semidiscrete().chi_squared,
    ):
        with pytest.raises(InputError, match=r"call fit\(data, cond, rng\)"):
            call()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(0, 2), r"N > 0, got the shape \(0, 2\)"),
        (torch.tensor(1.0), r"got the shape \(\)"),
        (torch.zeros(3, 2, dtype=torch.uint8), "got torch.uint8"),
        (torch.tensor([[1.0], [math.nan]]), "look for NaN"),
        (torch.tensor([[1.0], [math.inf]]), "look for NaN or infinity"),
    ],
)
def test_data_that_cannot_be_fitted_are_refused(data: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Semidiscrete().fit(data, None, Rng(0))


def test_noise_that_cannot_be_joined_is_refused() -> None:
    fitted = fit(images(20, 4).reshape(20, 2, 2))
    with pytest.raises(ShapeError, match=r"\(B, \*\(2, 2\)\), got \(5, 4\)"):
        fitted.assign(torch.zeros(5, 4))
    with pytest.raises(InputError, match="noise is not finite"):
        fitted.assign(torch.full((5, 2, 2), math.nan))


def test_a_source_that_is_not_finite_is_refused() -> None:
    broken = Semidiscrete(source=lambda rng, like: torch.full_like(like, math.nan))
    with pytest.raises(InputError, match="the source gives numbers that are not finite"):
        broken.fit(images(20, 2), None, Rng(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 0.0}, "positive number, got 0.0"),
        ({"target": math.nan}, "positive number, got nan"),
        ({"target": math.inf}, "positive number, got inf"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": 1}, "batch must be at least 2, got 1"),
        ({"block": 100}, "block must be at least 4096, got 100"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Semidiscrete(**options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_fits_and_assigns_alike() -> None:
    data, z = images(3000, 64), noise(2000, 64)
    fitted = Semidiscrete().fit(data.cuda(), None, Rng(0))
    assert fitted.chi_squared < 0.05
    here = Semidiscrete().restored(data, None, {k: v.cpu() for k, v in fitted.tensors().items()})
    assert torch.equal(fitted.assign(z.cuda()).cpu(), here.assign(z))
