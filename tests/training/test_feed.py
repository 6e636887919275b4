from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import objectives
from rheos.core import Rng
from rheos.data import Coupled, Shuffled, States, Tensors
from rheos.training import Feed, Training, feed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of four steps of 8 rows of 3 numbers, so that a short run has several.
    monkeypatch.setattr(feed, "BLOCK_NUMBERS", 4 * 8 * 3)


def read(data: Tensors, numbers: dict[str, Any], start: int = 0, **given: Any) -> list[dict[str, Tensor]]:
    """The parts of each step, joined."""
    settings = Training(**numbers)
    order = given.pop("order", Shuffled(len(data)))
    source = Feed(data, order, objectives.Matching(), settings, 3, CPU, **given)
    steps = []
    for parts in source.steps(start):
        assert len(parts) == settings.accumulate
        columns = {name: [getattr(part, name) for part in parts] for name in parts[0]._fields}
        steps.append({name: torch.cat(column) for name, column in columns.items()})
    return steps


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_start_in_the_middle_of_a_block_changes_no_bit(data: Tensors, numbers: dict[str, Any]) -> None:
    whole = read(data, numbers)
    assert len(whole) == numbers["steps"]
    for start in (1, 3, 4, 6, 23):
        late = read(data, numbers, start)
        assert len(late) == len(whole) - start
        assert all(same(a, b) for a, b in zip(whole[start:], late, strict=True))


def test_rows_follow_one_another_and_meet_fresh_noise(data: Tensors, numbers: dict[str, Any]) -> None:
    steps = read(data, numbers)
    rows = torch.cat([step["rows"] for step in steps])
    assert rows.tolist() == list(range(24 * 8))
    noise = torch.cat([step["x0"] for step in steps])
    assert len(noise.unique(dim=0)) == len(noise)
    # Each epoch of forty rows holds every datum once.
    x1 = torch.cat([step["x1"] for step in steps])
    for epoch in (0, 1):
        assert len(x1[40 * epoch : 40 * (epoch + 1)].unique(dim=0)) == 40


def test_workers_and_parts_change_nothing(data: Tensors, numbers: dict[str, Any]) -> None:
    plain = read(data, numbers)
    for change in ({"workers": 1}, {"accumulate": 4}):
        assert all(same(a, b) for a, b in zip(plain, read(data, {**numbers, **change}), strict=True))


def test_processes_share_a_batch(data: Tensors, numbers: dict[str, Any]) -> None:
    plain = read(data, numbers)
    first, second = (read(data, numbers, rank=rank, world=2) for rank in (0, 1))
    for whole, a, b in zip(plain, first, second, strict=True):
        for name, value in whole.items():
            torch.testing.assert_close(torch.cat([a[name], b[name]]), value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_joins_the_rows_that_it_reads(data: Tensors, numbers: dict[str, Any], workers: int) -> None:
    joined: list[int] = []

    class Nearest:
        """A coupling of the whole dataset."""

        independent = False
        fitted = True

        def assign(self, x0: Tensor, cond: Any = None) -> Tensor:
            joined.append(len(x0))
            return (x0[:, :1] - data.x[:, 0]).abs().argmin(1)

        def tensors(self) -> dict[str, Tensor]:
            return {}

    coupling: Any = Nearest()
    order = Coupled(Shuffled(len(data)), objectives.Matching(), coupling, States(data), pairs=40)
    numbers = {**numbers, "steps": 40, "couplers": 0, "workers": workers}
    plain = read(data, numbers, order=order)
    assert sum(joined) == 40 * 8
    joined.clear()
    second = read(data, numbers, order=order, rank=1, world=2)
    assert sum(joined) == 40 * 4
    for whole, part in zip(plain, second, strict=True):
        assert torch.equal(part["x1"], whole["x1"][4:])


def test_conditions_are_dropped_at_the_rate_asked_for(data: Tensors, numbers: dict[str, Any]) -> None:
    steps = read(data, {**numbers, "steps": 500, "drop": 0.25})
    labels = torch.cat([step["cond"] for step in steps])
    share = (labels == -1).double().mean()
    assert abs(float(share) - 0.25) < 4 * (0.25 * 0.75 / len(labels)) ** 0.5
    kept = read(data, {**numbers, "drop": 0.0})
    assert all((step["cond"] >= 0).all() for step in kept)


def test_data_are_changed_by_the_key_of_the_row(data: Tensors, numbers: dict[str, Any]) -> None:
    def mirror(x: Tensor, rng: Rng) -> Tensor:
        return torch.where(rng.fold(7).uniform()[:, None] < 0.5, -x, x)

    plain, late = read(data, numbers), read(data, numbers, 6, read=mirror)
    parts = read(data, {**numbers, "accumulate": 2}, 6, read=mirror)
    assert all(same(a, b) for a, b in zip(late, parts, strict=True))
    flipped = [(a["x1"] != b["x1"]).any(1) for a, b in zip(plain[6:], late, strict=True)]
    assert 0.3 < float(torch.cat(flipped).double().mean()) < 0.7


def test_channels_last_reaches_data_and_noise(numbers: dict[str, Any]) -> None:
    images = Tensors(Rng(1).rows(torch.arange(40)).normal(3, 4, 4))
    source = Feed(images, Shuffled(40), objectives.Matching(), Training(**numbers, channels_last=True), 3, CPU)
    part = next(source.steps(0))[0]
    assert part.x1.is_contiguous(memory_format=torch.channels_last)
    assert part.x0.is_contiguous(memory_format=torch.channels_last)
    assert part.cond is None
