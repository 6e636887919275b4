"""Sequences of different lengths against plain Python lists."""

from __future__ import annotations

import pytest
import torch

from rheos.core import Ragged, Rng, ShapeError


def ragged(lengths: list[int], width: int, stream: int = 0) -> Ragged:
    rng = Rng(stream)
    count = len(lengths)
    return Ragged(rng.fold(1).normal(count, width, 2), torch.tensor(lengths), rng.fold(2).uniform(count, width))


def as_lists(state: Ragged) -> list[list[tuple[list[float], float]]]:
    return [
        [(state.values[b, i].tolist(), float(state.born[b, i])) for i in range(int(n))]
        for b, n in enumerate(state.lengths)
    ]


def test_the_mask_marks_elements() -> None:
    state = ragged([2, 0, 3], 3)
    assert state.mask.tolist() == [[True, True, False], [False, False, False], [True, True, True]]


def test_an_element_has_its_own_time() -> None:
    state = Ragged(torch.zeros(2, 3), torch.tensor([3, 2]), torch.tensor([[0.0, 0.25, 0.5], [0.5, 1.5, 0.0]]))
    assert state.times(torch.tensor(0.5)).tolist() == [[0.5, 0.25, 0.0], [0.0, 0.0, 0.5]]
    assert state.times(torch.tensor([1.25, 2.0])).tolist() == [[1.0, 1.0, 0.75], [1.0, 0.5, 1.0]]
    with pytest.raises(ShapeError):
        state.times(torch.zeros(3))


@pytest.mark.parametrize("stream", range(12))
@pytest.mark.parametrize("one_clock", [True, False])
def test_insert_is_what_lists_do(stream: int, one_clock: bool) -> None:
    rng = Rng(100 + stream)
    count, width = 5, 4
    lengths = (rng.fold(0).uniform(count) * (width + 1)).long().tolist()
    state = ragged(lengths, width, stream)
    after = rng.fold(1).uniform(count, width) < (0.0, 0.5, 1.0)[stream % 3]
    values = rng.fold(2).normal(count, width, 2)
    born = torch.tensor(0.75) if one_clock else rng.fold(3).uniform(count)
    expected = []
    for b, row in enumerate(as_lists(state)):
        grown = []
        for i, element in enumerate(row):
            grown.append(element)
            if after[b, i]:
                grown.append((values[b, i].tolist(), float(born if one_clock else born[b])))
        expected.append(grown)
    before = as_lists(state)
    out = state.insert(after, values, born)
    assert as_lists(out) == expected
    assert out.values.shape[1] == out.born.shape[1] == max(1, *(len(row) for row in expected))
    assert out.values.dtype == state.values.dtype
    assert as_lists(state) == before
    padding = ~out.mask
    assert not out.values[padding].any()
    assert not out.born[padding].any()


def test_an_empty_batch_of_sequences_keeps_one_column() -> None:
    state = ragged([0, 0], 3)
    out = state.insert(torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3, 2), torch.tensor(0.5))
    assert out.values.shape == (2, 1, 2)
    assert out.lengths.tolist() == [0, 0]


def test_a_birth_is_stored_in_the_dtype_of_the_clock() -> None:
    state = ragged([1], 1)
    out = state.insert(torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, 2), torch.tensor(0.1, dtype=torch.float64))
    assert out.born.dtype == torch.float32
    assert float(out.born[0, 1]) == float(torch.tensor(0.1))


@pytest.mark.parametrize(
    ("values", "lengths", "born"),
    [((2,), (2,), (2, 1)), ((2, 3), (3,), (2, 3)), ((2, 3), (2,), (2, 4)), ((2, 3, 4), (2, 3), (2, 3))],
)
def test_shapes_that_do_not_fit_are_refused(values: tuple, lengths: tuple, born: tuple) -> None:
    with pytest.raises(ShapeError) as caught:
        Ragged(torch.zeros(values), torch.zeros(lengths, dtype=torch.int64), torch.zeros(born))
    assert f"got {values}, {lengths} and {born}" in str(caught.value)


def test_elements_may_be_numbers() -> None:
    Ragged(torch.zeros(2, 3), torch.tensor([1, 2]), torch.zeros(2, 3))
