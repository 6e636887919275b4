"""The kinds of data that come with rheos: what they open, read, write and measure."""

from __future__ import annotations

import csv
import functools
import logging
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rheos.core import InputError, Rng
from rheos.data import to_unit
from rheos.metrics import train_classifier
from rheos.nn import MLP, DiT, UNet
from rheos.recipes import Images, Plane, Splits, images, toy
from rheos.recipes.toy import SHAPES


@dataclass
class Oracle:
    """A generator that gives stored states, and one log-density for all."""

    states: Tensor
    density: float = 0.0
    evaluations: int = 10

    def __call__(self, labels: Tensor | None, count: int, evaluations: int) -> Tensor:
        return self.states[:count]

    def curve(self, labels: Tensor | None, count: int, budgets: Iterable[int]) -> tuple[dict[int, Tensor], int]:
        return dict.fromkeys(sorted({*budgets, 10}), self.states[:count]), 10

    def log_prob(self, states: Tensor, labels: Tensor | None, rng: Rng) -> Tensor:
        assert states.abs().max() <= 1
        # Bytes were spread: hardly a value lies on the grid of bytes.
        assert (states * 128 % 1 > 1e-3).double().mean() > 0.9
        return torch.full((len(states),), self.density)


@pytest.fixture(scope="module")
def digits() -> Splits:
    return images().kind.open(None)


def test_the_splits_do_not_overlap(digits: Splits) -> None:
    assert len(digits.training) + len(digits.held_out) == 1797
    assert 0.15 < len(digits.held_out) / 1797 < 0.25
    pixels = [digits.training.take(torch.arange(len(digits.training)))[0].flatten(1)]
    pixels += [digits.held_out.take(torch.arange(len(digits.held_out)))[0].flatten(1)]
    assert len(torch.unique(torch.cat(pixels), dim=0)) == 1797
    assert images().data.fingerprint == digits.fingerprint
    assert images().data.count == len(digits.training)


@pytest.mark.parametrize("network", [UNet, DiT, MLP])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 3), (64, 1)])
def test_every_network_fits_its_images(tmp_path: Path, network: type, size: int, channels: int) -> None:
    pixels = (np.arange(4 * size * size * channels) % 251).astype(np.uint8).reshape(4, size, size, channels)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.array(["a", "b", "a", "b"]))
    found = images(str(tmp_path / "x.npz"), network=network, width=32)
    assert found.kind == Images(size, channels, ("a", "b"))
    x = torch.zeros(2, *found.kind.shape)
    assert found.network(0)(x, torch.full((2,), 0.5), torch.tensor([0, 1])).shape == x.shape


def test_reading_gives_states_by_the_key_of_each_row(digits: Splits) -> None:
    values, _ = digits.training.take(torch.arange(40))
    many = torch.arange(400)
    keys = Rng(0).rows(torch.arange(40))
    plain = Images(8, 1).read(values, keys)
    assert torch.equal(plain, to_unit(values))
    mirrored = Images(8, 1, mirrored=True).read(values, keys)
    same = (mirrored == plain).flatten(1).all(1)
    assert torch.equal(mirrored[~same], plain[~same].flip(-1))
    assert 8 < int(same.sum()) < 32
    noisy = Images(8, 1, noisy=True).read(values, keys)
    cell = (noisy + 1) * 128 - values
    assert cell.min() >= 0
    assert cell.max() <= 1
    assert abs(float(cell.mean()) - 0.5) < 0.05
    # Whether an image is mirrored says nothing of the noise of its pixels.
    both = Images(8, 1, mirrored=True, noisy=True).read(torch.zeros(400, 1, 8, 8, dtype=torch.uint8), Rng(0).rows(many))
    turned = Rng(0).rows(many)
    marked = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    marked[..., 0] = 255
    left = Images(8, 1, mirrored=True).read(marked, turned)[:, 0, 0, 0] > 0
    corner = torch.where(left, both[:, 0, 0, 0], both[:, 0, 0, -1])
    assert abs(float(torch.corrcoef(torch.stack([left.float(), corner]))[0, 1])) < 0.2
    for kind in (Images(8, 1, mirrored=True), Images(8, 1, noisy=True)):
        alone = kind.read(values[5:6], Rng(0).rows(torch.tensor([5])))
        assert torch.equal(alone[0], kind.read(values, keys)[5])


@pytest.mark.parametrize(("density", "bits"), [(0.0, 7.0), (-64 * math.log(2), 8.0), (64 * math.log(64), 1.0)])
def test_bits_per_dimension_of_known_densities(digits: Splits, tmp_path: Path, density: float, bits: float) -> None:
    """A density of 1/2 on [-1, 1] is that of uniform noise, which has 8 bits."""
    kind = Images(8, 1, noisy=True)
    training, _ = digits.training.take(torch.arange(60))
    findings = kind.measure(Oracle(to_unit(training), density), digits, 60, tmp_path)
    (row,) = [row for row in findings.rows if row.name.startswith("bits per dimension")]
    assert row.value == pytest.approx(bits, abs=1e-5)
    assert row.reference == pytest.approx(0, abs=1e-6)
    assert row.meaning == "standard error"


def test_only_noisy_runs_have_bits_per_dimension(digits: Splits, tmp_path: Path) -> None:
    training, _ = digits.training.take(torch.arange(60))
    findings = Images(8, 1).measure(Oracle(to_unit(training)), digits, 60, tmp_path)
    assert not [row.name for row in findings.rows if "bits" in row.name]


def test_the_classifier_is_kept_and_a_damaged_one_replaced(
    digits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = functools.partial(train_classifier, epochs=1)
    monkeypatch.setattr(sys.modules["rheos.recipes.images"], "train_classifier", quick)
    few = torch.arange(300)
    small = Splits(digits.training.subset(few), digits.held_out.subset(few[:100]), "")  # pyright: ignore
    kind = Images(8, 1, tuple("0123456789"))
    oracle = Oracle(to_unit(small.held_out.take(few[:100])[0]))
    first = kind.measure(oracle, small, 100, tmp_path)
    weights = tmp_path / "classifier" / "weights.safetensors"
    stamp, content = weights.stat().st_mtime_ns, weights.read_bytes()
    assert kind.measure(oracle, small, 100, tmp_path) == first
    assert weights.stat().st_mtime_ns == stamp
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        assert kind.measure(oracle, small, 100, tmp_path) == first
    assert "weights.safetensors is damaged" in caplog.text
    assert weights.read_bytes() == content


def test_images_too_small_for_a_classifier_are_measured_without(tmp_path: Path) -> None:
    for size in (2, 4):
        pixels = Rng(0).rows(torch.arange(80)).uniform(size, size).mul(255).to(torch.uint8).numpy()
        np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(80) % 2)
        kind = images(str(tmp_path / "x.npz"), network=MLP, width=8).kind
        splits = kind.open(str(tmp_path / "x.npz"))
        findings = kind.measure(Oracle(Rng(1).rows(torch.arange(40)).normal(1, size, size)), splits, 40, tmp_path)
        assert not [row for row in findings.rows if row.name == "class agreement"]
        assert findings.rows[0].name.startswith("Frechet distance")


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="8 x 8"):
        images(size=16)
    with pytest.raises(InputError, match="8 x 8"):
        images(channels=3)
    for width in (0, -1):
        with pytest.raises(InputError, match="width of at least 1"):
            images(width=width)
        with pytest.raises(InputError, match="width of at least 1"):
            toy(width=width)
    with pytest.raises(InputError, match="even, got 7; give --width 8"):
        images(width=7)
    with pytest.raises(InputError, match="learned by an MLP"):
        toy(network=UNet)
    with pytest.raises(InputError, match="did you mean 'spirals'"):
        toy("spiral")


def test_a_size_that_does_not_suit_names_one_that_does(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 30, 30)))
    with pytest.raises(InputError, match="that 4 divides, got 30; give --size 28"):
        images(str(tmp_path / "x.npy"), size=30)
    assert images(str(tmp_path / "x.npy"), size=28).kind.shape == (1, 28, 28)


def test_a_home_folder_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", np.eye(8)[None].repeat(4, 0))
    found = images("~/x.npy", network=MLP)
    assert found.data.path == str(tmp_path.resolve() / "x.npy")
    assert found.kind.open(found.data.path).fingerprint == found.data.fingerprint


@pytest.mark.parametrize("shape", SHAPES)
def test_the_plane_opens_what_its_recipe_says(shape: str) -> None:
    recipe = toy(shape, width=8)
    splits = recipe.kind.open(recipe.data.path)
    assert splits.fingerprint == recipe.data.fingerprint
    x, labels = splits.training.take(torch.arange(recipe.data.count))
    y, _ = splits.held_out.take(torch.arange(len(splits.held_out)))
    assert labels is None
    assert not torch.equal(x, y)
    for points in (x, y):
        assert points.mean(0).abs().max() < 0.03
        assert abs(float(points.var(0).mean()) - 1) < 0.03


def test_the_plane_is_written(tmp_path: Path) -> None:
    points = Rng(0).rows(torch.arange(9)).normal(2)
    for name in ("x.csv", "x.npz", "x.png"):
        Plane().write(points, None, tmp_path / name)
    with (tmp_path / "x.csv").open(newline="") as file:
        head, *lines = csv.reader(file)
    assert head == ["x", "y"]
    torch.testing.assert_close(torch.tensor([[float(v) for v in line] for line in lines]), points)
    with np.load(tmp_path / "x.npz") as stored:
        assert np.array_equal(stored["samples"], points.numpy())
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (500, 500)
    assert len(list(tmp_path.iterdir())) == 3


def test_files_left_out_are_reported(tmp_path: Path) -> None:
    for number in range(40):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number:02d}.png")
    recipe = images(str(tmp_path), network=MLP)
    assert recipe.kind.open(str(tmp_path)).report == ""
    (tmp_path / "07.png").write_bytes((tmp_path / "07.png").read_bytes()[:50])
    report = recipe.kind.open(str(tmp_path)).report
    assert report.startswith("39 of 40 images can be read")
    assert "07.png" in report


def test_recipes_are_frozen_values() -> None:
    assert images() == images()
    assert images() != images(noisy=True)
    assert replace(toy(), evaluations=3) != toy()
