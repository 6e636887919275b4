"""The algebra of states and rates."""

from __future__ import annotations

import pytest
import torch

from rheos.core import Ragged, ShapeError, combine
from rheos.core.tree import batch, leaves, transform

A = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
B = torch.tensor([[5.0, 7.0], [11.0, 13.0]])
C = torch.tensor([10.0, 20.0])


def test_leaves_stand_from_left_to_right() -> None:
    ragged = Ragged(torch.ones(2, 3, 1), torch.tensor([1, 3]), torch.zeros(2, 3))
    found = leaves((A, (C, ragged), "no tensor", B))
    assert [leaf.data_ptr() for leaf in found] == [t.data_ptr() for t in (A, C, ragged.values, B)]


def test_the_batch_is_the_first_axis_of_the_first_tensor() -> None:
    assert batch(torch.zeros(4, 5)) == 4
    assert batch((torch.zeros(3, 5, 7), torch.zeros(2))) == 3


def test_transform_meets_leaves_at_the_same_place() -> None:
    out = transform(lambda a, b: a - b, (A, (C, B)), (B, (C, A)))
    assert torch.equal(out[0], A - B)
    assert torch.equal(out[1][0], torch.zeros(2))
    assert torch.equal(out[1][1], B - A)
    with pytest.raises(ValueError, match="zip"):
        transform(lambda a, b: a, (A, B), (A,))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((2.0, 3.0), [[17.0, 25.0], [39.0, 47.0]]),
        ((1.0, 1.0), [[6.0, 9.0], [14.0, 17.0]]),
        ((0.0, 1.0), [[5.0, 7.0], [11.0, 13.0]]),
        ((1.0, 0.0), [[1.0, 2.0], [3.0, 4.0]]),
        ((0.0, 3.0), [[15.0, 21.0], [33.0, 39.0]]),
        ((1.0, -1.0), [[-4.0, -5.0], [-8.0, -9.0]]),
        ((0.0, 0.0), [[0.0, 0.0], [0.0, 0.0]]),
        ((torch.tensor(2.0), 3.0), [[17.0, 25.0], [39.0, 47.0]]),
        ((3.0, torch.tensor(2.0)), [[13.0, 20.0], [31.0, 38.0]]),
        ((torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])), [[16.0, 23.0], [61.0, 73.0]]),
        ((0.0, torch.tensor([3.0, 5.0])), [[15.0, 21.0], [55.0, 65.0]]),
    ],
)
def test_combine_is_the_weighted_sum(weights: tuple, expected: list) -> None:
    assert combine(weights, (A, B)).tolist() == expected
    pair = combine(weights, ((A, A), (B, B)))
    assert isinstance(pair, tuple)
    assert pair[0].tolist() == pair[1].tolist() == expected
    assert A.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert B.tolist() == [[5.0, 7.0], [11.0, 13.0]]


def test_a_rate_of_weight_one_is_not_copied() -> None:
    assert combine((1.0,), (A,)) is A
    assert combine((0.0, 1.0), (A, B)) is B


def test_a_weight_a_row_multiplies_leaves_of_any_rank() -> None:
    weight = torch.tensor([2.0, 3.0])
    out = combine((weight,), ((A, C, torch.ones(2, 2, 2)),))
    assert out[0].tolist() == [[2.0, 4.0], [9.0, 12.0]]
    assert out[1].tolist() == [20.0, 60.0]
    assert out[2][1].unique().tolist() == [3.0]
    with pytest.raises(ShapeError):
        combine((torch.ones(3),), (A,))


def test_combine_keeps_the_dtype_and_the_gradient() -> None:
    rate = A.clone().requires_grad_()
    out = combine((0.5, torch.tensor(2.0)), (rate, rate))
    out.sum().backward()
    assert rate.grad is not None
    assert rate.grad.unique().tolist() == [2.5]
    assert combine((2.0, 1.0), (A.half(), B.half())).dtype == torch.float16


def test_combine_wants_a_weight_a_rate() -> None:
    with pytest.raises(ValueError, match="zip"):
        combine((1.0,), (A, B))
    with pytest.raises(ValueError, match="zip"):
        combine((1.0, 1.0), ((A, B), (A,)))
