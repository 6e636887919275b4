"""First weights are a function of the key, and counted right."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rheos.core import InputError, Rng
from rheos.nn import MLP, parameter_count, seeded


def weights(seed) -> list[torch.Tensor]:
    with seeded(seed):
        return list(MLP(3, 8, 2, classes=2).parameters())


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_key_gives_the_same_weights_whatever_the_global_generator_does():
    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    torch.rand(3)
    assert same(first, weights(Rng(5)))
    assert not same(first, weights(6))


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    weights(5)
    assert torch.equal(torch.rand(4), expected)


def test_the_global_generator_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shapes"), seeded(1):
        nn.Linear(2, 3)(torch.rand(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_of_keys_are_refused():
    with pytest.raises(InputError, match="single key"), seeded(Rng(1).rows(torch.arange(3))):
        pass


def test_shared_parameters_count_once_and_buffers_do_not():
    layer = nn.Linear(3, 4)
    assert parameter_count(layer) == 16
    assert parameter_count(nn.ModuleList([layer, layer, nn.BatchNorm1d(5)])) == 16 + 10
