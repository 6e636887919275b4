import pickle

import pytest
import torch

from rheos.core import DataError, InputError
from rheos.data import Shuffled, split


def test_every_epoch_is_a_permutation_of_its_own():
    count, order = 37, Shuffled(37)
    index = order(5, torch.arange(4 * count)).index.view(4, count)
    assert torch.equal(index.sort(1).values, torch.arange(count).expand(4, count))
    assert len({tuple(row.tolist()) for row in index}) == 4
    assert not torch.equal(index, order(6, torch.arange(4 * count)).index.view(4, count))


def test_a_row_is_the_same_in_any_batch_and_any_order():
    order = Shuffled(10)
    whole = order(1, torch.arange(95))
    rows = torch.tensor([94, 0, 9, 10, 33, 0, 71])
    some = order(1, rows)
    assert torch.equal(some.index, whole.index[rows])
    assert torch.equal(some.key, whole.key[rows])
    assert some.index.dtype == some.key.dtype == torch.int64


def test_keys_follow_seed_and_row_only():
    rows = torch.arange(500)
    assert torch.equal(Shuffled(7)(3, rows).key, Shuffled(100)(3, rows).key)
    assert Shuffled(7)(3, rows).key.unique().numel() == 500
    assert not bool((Shuffled(7)(3, rows).key == Shuffled(7)(4, rows).key).any())


def test_places_are_uniform():
    # Datum 0's place over 2,000 epochs of 5: a fair shuffle gives 400 each, with standard deviation 18.
    index = Shuffled(5)(0, torch.arange(10_000)).index.view(2000, 5)
    counts = (index == 0).sum(0)
    assert bool(((counts - 400).abs() < 90).all())


def test_order_is_a_value():
    order = Shuffled(10)
    order(0, torch.arange(3))
    assert pickle.loads(pickle.dumps(order)) == order == Shuffled(10)
    assert order != Shuffled(11)


@pytest.mark.parametrize("rows", [torch.tensor([-1, 2]), torch.tensor([0.0]), torch.tensor([1], dtype=torch.int32)])
def test_rows_that_are_none(rows):
    with pytest.raises(InputError, match="rows are int64"):
        Shuffled(3)(0, rows)


def test_order_of_nothing():
    with pytest.raises(InputError, match="at least one"):
        Shuffled(0)


def test_split_parts_all_data_once():
    train, held = split(1000, 0.1, seed=0)
    assert torch.equal(torch.cat([train, held]).sort().values, torch.arange(1000))
    assert 60 <= len(held) <= 140
    assert torch.equal(held, held.sort().values)
    assert torch.equal(train, train.sort().values)
    assert all(torch.equal(a, b) for a, b in zip(split(1000, 0.1, seed=0), (train, held), strict=True))
    assert not torch.equal(split(1000, 0.1, seed=1)[1], held)


def test_split_keeps_sides_when_data_grow():
    small, large = split(500, 0.2, seed=3)[1], split(900, 0.2, seed=3)[1]
    assert torch.equal(large[large < 500], small)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_split_leaves_no_side_empty(fraction, seed):
    train, held = split(2, fraction, seed)
    assert len(train) == len(held) == 1


def test_split_refuses():
    with pytest.raises(DataError, match="at least 2"):
        split(1, 0.5, 0)
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="between 0 and 1"):
            split(10, fraction, 0)
