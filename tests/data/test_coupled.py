"""Noise and data joined ahead: the pairs are the coupling's, and nothing but (seed, row) decides them."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import Draw, InputError, Pairs, RheosError, Rng, Stream
from rheos.couplings import BatchOT, Independent
from rheos.data import Ahead, Batches, Coupled, Paired, Shuffled, States, Tensors
from rheos.objectives import Matching

COUNT = 24
DATA = Tensors(2 * Rng(1).rows(torch.arange(COUNT)).normal(2), torch.arange(COUNT) % 3)
OBJECTIVE = Matching(coupling=BatchOT())
PLAIN = Tensors(DATA.x)


def coupled(**changes: Any) -> Coupled:
    parts = {"order": Shuffled(COUNT), "objective": OBJECTIVE, "coupling": BatchOT(), "states": States(PLAIN)}
    return Coupled(**{**parts, "pairs": 6, **changes})


def noise(draw: Draw, rows: Tensor) -> Tensor:
    """What a trainer draws for these rows."""
    return OBJECTIVE.draw(Rng(draw.key, rows), torch.empty(len(rows), 2))[0]


def cost(x0: Tensor, x1: Tensor) -> float:
    return float((x0 - x1).square().sum())


def test_a_block_holds_the_coupling_of_its_rows() -> None:
    order, rows = coupled(), torch.arange(12, 18)
    draw, base = order(5, rows), Shuffled(COUNT)(5, rows)
    assert torch.equal(draw.key, base.key)
    assert sorted(draw.index.tolist()) == sorted(base.index.tolist())
    x0 = noise(draw, rows)
    best = BatchOT()(x0, DATA.x[base.index])
    assert cost(x0, DATA.x[draw.index]) == pytest.approx(cost(best.x0, best.x1), rel=1e-6)
    assert cost(x0, DATA.x[draw.index]) < 0.9 * cost(x0, DATA.x[base.index])


def test_rows_may_be_asked_for_in_any_order_and_number() -> None:
    order, rows = coupled(), torch.arange(40)
    whole = order(5, rows)
    shuffled = Rng(2).permutation(40)
    for part in shuffled.split(7):
        some = order(5, part)
        assert torch.equal(some.index, whole.index[part])
        assert torch.equal(some.key, whole.key[part])
    assert len(order(5, rows[:0]).index) == 0
    assert not torch.equal(order(6, rows).index, whole.index)


def test_a_coupling_that_turns_the_data_keeps_its_pairs() -> None:
    class Turned:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
            i, j = torch.tensor([1, 2, 0, 5, 4, 3]), torch.tensor([0, 0, 1, 2, 3, 4])
            return Pairs(x0[i], x1[j], i, j)

    rows = torch.arange(6)
    base = Shuffled(COUNT)(5, rows).index
    # Noise 1 goes with datum 0, noise 2 with datum 0, noise 0 with datum 1, and so on.
    assert coupled(coupling=Turned())(5, rows).index.tolist() == base[[1, 0, 0, 4, 3, 2]].tolist()


def test_the_coupling_is_told_what_it_may_use() -> None:
    seen = []

    class Spy:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
            seen.append((x1, cond, rng))
            return Independent()(x0, x1)

    read = States(DATA, lambda x, rng: 10 * x + rng.fold(Stream.AUGMENT).uniform(2))
    coupled(coupling=Spy(), states=read)(5, torch.arange(6, 12))
    (x1, cond, rng), base = seen[0], Shuffled(COUNT)(5, torch.arange(6, 12))
    torch.testing.assert_close(
        x1, 10 * DATA.x[base.index] + Rng(base.key).fold(Stream.AUGMENT).uniform(2), rtol=0, atol=0
    )
    assert torch.equal(cond, DATA.cond[base.index])
    assert int(rng.key) == int(Rng(5).fold(Stream.COUPLING).fold(1).key)


class Nearest:
    """Each noise goes to the datum of its class whose number is nearest to its first entry."""

    independent = False
    fitted = True

    def assign(self, x0: Tensor, cond: Any = None) -> Tensor:
        return 3 * x0[:, 0].abs().long().clamp(max=7) + cond

    def tensors(self) -> dict[str, Tensor]:
        return {"g": torch.zeros(COUNT)}


def test_a_coupling_of_the_whole_dataset_gives_each_noise_its_datum() -> None:
    order, rows = coupled(coupling=Nearest(), states=States(DATA)), torch.arange(6)
    draw, base = order(5, rows), Shuffled(COUNT)(5, rows)
    x0 = noise(draw, rows)
    assert draw.index.tolist() == (3 * x0[:, 0].abs().long().clamp(max=7) + base.index % 3).tolist()
    assert order.portable
    some = torch.tensor([4, 1])
    assert torch.equal(order(5, some).index, draw.index[some])
    assert torch.equal(order.block(5, 0).index, draw.index)
    assert len(order(5, rows[:0]).index) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_joins_only_the_rows_it_reads_where_each_is_joined_by_itself(workers: int) -> None:
    asked: list[int] = []

    class Counted(Nearest):
        def assign(self, x0: Tensor, cond: Any = None) -> Tensor:
            asked.append(len(x0))
            return super().assign(x0, cond)

    order, plain = (coupled(coupling=kind(), states=States(DATA)) for kind in (Counted, Nearest))
    # Batches of 4 rows for two processes, the second of which this is; blocks of 6 rows.
    ahead = Ahead(order, 5, 0, workers, lambda rows: rows % 4 // 2 == 1)
    mine = torch.tensor([2, 3, 6, 7, 10, 11])
    assert torch.equal(ahead(5, mine).index, plain(5, mine).index)
    assert torch.equal(ahead(5, mine).key, plain(5, mine).key)
    assert asked == ([] if workers else [2, 4])
    # Others' rows are joined when they are asked for after all, beside own ones too.
    some = torch.arange(5, 9)
    assert torch.equal(ahead(5, some).index, plain(5, some).index)
    assert torch.equal(ahead(5, some).key, plain(5, some).key)
    ahead.close()
    # Rows that are joined with one another are computed whole, whoever reads them.
    together, rows = Ahead(coupled(), 5, 0, workers, lambda rows: rows % 4 // 2 == 1), torch.arange(12)
    assert torch.equal(together(5, rows).index, coupled()(5, rows).index)
    together.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_blocks_computed_ahead_change_nothing(workers: int) -> None:
    order, rows = coupled(), torch.arange(8, 60)
    ahead = Ahead(order, 5, 8, workers)
    for part in rows.split(5):
        draw, plain = ahead(5, part), order(5, part)
        assert torch.equal(draw.index, plain.index)
        assert torch.equal(draw.key, plain.key)
    # What lies behind, and other seeds, are computed here.
    assert torch.equal(ahead(5, torch.arange(3)).index, order(5, torch.arange(3)).index)
    assert torch.equal(ahead(6, rows).index, order(6, rows).index)
    ahead.close()


def test_readers_in_workers_get_the_joined_data() -> None:
    order = coupled()
    for couplers, workers in ((0, 0), (1, 2)):
        batches = Batches(PLAIN, Ahead(order, 5, 4, couplers), 5, 4, start=1, stop=9, workers=workers)
        for step, batch in enumerate(batches, 1):
            rows = torch.arange(4 * step, 4 * step + 4)
            assert torch.equal(batch.x, DATA.x[order(5, rows).index])
            assert torch.equal(batch.draw.key, order(5, rows).key)


def test_a_killed_coupling_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.getpid()

    class Deadly:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
            if os.getpid() != here:
                os.kill(os.getpid(), signal.SIGKILL)
            return Independent()(x0, x1)

    with pytest.raises(RheosError, match="a coupling worker died"):
        Ahead(coupled(coupling=Deadly()), 5, 0, 1)(5, torch.arange(3))


def test_an_error_of_a_coupling_arrives_as_it_was() -> None:
    bad = Tensors(torch.full((COUNT, 2), torch.nan))
    with pytest.raises(InputError, match="not finite"):
        Ahead(coupled(states=States(bad)), 5, 0, 1)(5, torch.arange(3))


def test_orders_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"from 1 to as many pairs as there are data, 24, got pairs = 25"):
        coupled(pairs=25)
    with pytest.raises(InputError, match="pairs = 0"):
        coupled(pairs=0)
    with pytest.raises(InputError, match="Coupled joins noise and data already"):
        coupled(order=coupled())


# Pairs that are kept.


def paired(**changes: Any) -> Paired:
    parts: dict[str, Any] = {"count": COUNT, "objective": OBJECTIVE, "coupling": BatchOT(), "states": States(PLAIN)}
    return Paired(**{**parts, "pairs": 6, "rounds": 0, **changes})


def total(order: Paired, epoch: int) -> float:
    keys = order.keys(5, epoch)
    return cost(OBJECTIVE.draw(Rng(keys), DATA.x)[0], DATA.x)


def test_kept_pairs_never_get_worse() -> None:
    order = paired()
    costs = [total(order, epoch) for epoch in range(8)]
    assert all(b <= a + 1e-5 for a, b in itertools.pairwise(costs))
    best = BatchOT()(OBJECTIVE.draw(Rng(order.keys(5, 0)), DATA.x)[0], DATA.x)
    optimum = cost(best.x0, best.x1)
    # Blocks of a quarter of the data bring most of what one assignment of all would.
    assert optimum <= costs[-1] + 1e-5
    assert costs[-1] - optimum < 0.3 * (costs[0] - optimum)
    assert total(paired(pairs=COUNT, rounds=1), 0) == pytest.approx(optimum, rel=1e-6)


def test_the_noises_stay_the_same_set() -> None:
    order = paired()
    first, later = order.keys(5, 0), order.keys(5, 3)
    assert torch.equal(first.sort().values, later.sort().values)
    assert not torch.equal(first, later)
    assert len(first.unique()) == COUNT


def test_an_epoch_is_a_block_and_needs_no_past() -> None:
    order = paired()
    rows = torch.arange(2 * COUNT, 3 * COUNT)
    draw = order(5, rows)
    assert sorted(draw.index.tolist()) == list(range(COUNT))
    assert torch.equal(draw.key, order.keys(5, 2)[draw.index])
    again = paired()(5, rows[3:9])
    assert torch.equal(again.index, draw.index[3:9])
    assert torch.equal(again.key, draw.key[3:9])
    assert torch.equal(paired(rounds=2)(5, torch.arange(COUNT)).key.sort().values, draw.key.sort().values)


def test_pairs_are_joined_as_often_as_is_asked() -> None:
    plain = paired(rounds=1)
    for every, versions in ((0, [0, 0, 0, 0, 0]), (1, [0, 1, 2, 3, 4]), (2, [0, 0, 1, 1, 2])):
        order = paired(rounds=1, every=every)
        assert [torch.equal(order.keys(5, e), plain.keys(5, v)) for e, v in enumerate(versions)] == [True] * 5


def test_kept_keys_are_read_back(tmp_path: Path) -> None:
    kept: dict[int, Tensor] = {}
    reads = []

    def store(version: int, keys: Tensor | None = None) -> Tensor | None:
        if keys is None:
            reads.append(version)
            return kept.get(version)
        kept[version] = keys
        return keys

    plain = paired(rounds=1).keys(5, 3)
    assert torch.equal(paired(rounds=1, store=store).keys(5, 3), plain)
    assert list(kept) == [4]
    kept[4] = kept[4].flip(0)
    # What is kept is believed, and is where the next version starts.
    assert torch.equal(paired(rounds=1, store=store).keys(5, 3), plain.flip(0))
    assert not torch.equal(paired(rounds=1, store=store).keys(5, 4), paired(rounds=1).keys(5, 4))


def test_pairs_that_cannot_be_kept_are_refused() -> None:
    class Drawn:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
            rows = torch.arange(len(x0))
            return Pairs(x0, x1[rows * 0], rows, rows * 0)

    with pytest.raises(InputError, match="Drawn drew some twice"):
        paired(coupling=Drawn()).keys(5, 1)
    with pytest.raises(InputError, match="Nearest gives every noise its datum"):
        paired(coupling=Nearest())
    with pytest.raises(InputError, match="got pairs = 25"):
        paired(pairs=25)


def test_a_network_sees_the_joined_pairs() -> None:
    """The loss of a trainer's rows is that of the joined pairs, drawn again from their keys."""
    order, rows = coupled(), torch.arange(6)
    draw = order(5, rows)
    x0 = noise(draw, rows)
    straight = (DATA.x[draw.index] - x0).square().mean(1)
    rng = Rng(draw.key, rows)
    given = OBJECTIVE(lambda x, t: 0 * x, DATA.x[draw.index], None, rng, x0=x0, t=torch.full((6,), 0.5))
    torch.testing.assert_close(given.rows, straight)
    assert replace(OBJECTIVE, coupling=Independent()).draw(rng, x0)[0].equal(x0)
