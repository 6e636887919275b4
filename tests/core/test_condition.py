"""Conditions, whole, unknown and in part."""

from __future__ import annotations

import torch

from rheos.core import drop, null
from rheos.core.condition import UNKNOWN_LABEL, known, take

LABELS = torch.tensor([3, 0, 5])
VECTORS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
BOTH = {"label": LABELS, "text": VECTORS}
SOME = torch.tensor([True, False, True])


def test_an_unknown_label_is_minus_one_and_an_unknown_vector_nan() -> None:
    assert UNKNOWN_LABEL == -1
    assert null(LABELS).tolist() == [-1, -1, -1]
    nothing = null(VECTORS)
    assert nothing.shape == VECTORS.shape
    assert bool(nothing.isnan().all())
    both = null(BOTH)
    assert set(both) == {"label", "text"}
    assert both["label"].tolist() == [-1, -1, -1]
    assert both["label"].dtype == torch.int64
    assert bool(both["text"].isnan().all())
    assert LABELS.tolist() == [3, 0, 5]


def test_dropped_rows_are_unknown_and_the_others_stay() -> None:
    assert drop(LABELS, SOME).tolist() == [-1, 0, -1]
    vectors = drop(VECTORS, SOME)
    assert vectors.isnan().tolist() == [[True, True], [False, False], [True, True]]
    assert vectors[1].tolist() == [3.0, 4.0]
    both = drop(BOTH, SOME)
    assert both["label"].tolist() == [-1, 0, -1]
    assert both["text"].isnan().any(1).tolist() == [True, False, True]
    assert not bool(VECTORS.isnan().any())


def test_take_picks_rows_in_order() -> None:
    index = torch.tensor([2, 0])
    assert take(None, index) is None
    assert take(LABELS, index).tolist() == [5, 3]
    both = take(BOTH, index)
    assert both["label"].tolist() == [5, 3]
    assert both["text"].tolist() == [[5.0, 6.0], [1.0, 2.0]]


def test_a_row_is_known_where_anything_of_it_is() -> None:
    assert known(torch.tensor([3, -1, 0]), 3).tolist() == [True, False, True]
    nan = float("nan")
    vectors = torch.tensor([[nan, nan], [nan, 0.0], [nan, nan]])
    assert known(vectors, 3).tolist() == [False, True, False]
    assert known(vectors[:, None, :], 3).tolist() == [False, True, False]
    assert known({"label": torch.tensor([-1, -1, 2]), "text": vectors}, 3).tolist() == [False, True, True]
    assert known({}, 2).tolist() == [False, False]
    assert not known(null(BOTH), 3).any()
