"""Flows: the laws, and what a flow knows of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import Rng, ShapeError
from rheos.dynamics import Flow

X = Rng(1).normal(3, 2, dtype=torch.float64)


def field(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x) + (t[:, None] if t.dim() else t)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flow_keeps_the_laws(dtype: torch.dtype) -> None:
    testing.check_dynamics(Flow(field), X.to(dtype))


def test_a_rate_is_the_velocity_and_a_move_goes_along_it() -> None:
    t, s = torch.tensor(0.25, dtype=torch.float64), torch.tensor(0.75, dtype=torch.float64)
    flow = Flow(field)
    assert torch.equal(flow.rate(X, t, s), torch.tanh(X) + 0.25)
    assert torch.equal(flow.move(X, 2 * X, t, s), 2 * X)
    assert torch.equal(flow.move(X, 2 * X, s, t), torch.zeros_like(X))
    moved = flow.move(X, torch.ones_like(X), torch.zeros(3), torch.tensor([0.0, 1.0, 2.0]))
    assert torch.equal(moved, X + torch.tensor([[0.0], [1.0], [2.0]]))
    with pytest.raises(ShapeError):
        flow.move(X, X, torch.zeros(2), torch.ones(2))


@pytest.mark.parametrize("clock", [torch.tensor(0.5, dtype=torch.float64), torch.full((3,), 0.5, dtype=torch.float64)])
def test_a_clock_in_double_leaves_the_state_in_single(clock: Tensor) -> None:
    assert Flow(field).move(X.float(), X.float(), clock, clock + 0.1).dtype == torch.float32


def test_a_flow_is_independent_and_determined_everywhere_unless_told_otherwise() -> None:
    t = torch.tensor([0.0, 1.0])
    assert Flow(field).independent is True
    assert Flow(field).determined(t) is None
    known = Flow(field, known=lambda t: t > 0.5).determined(t)
    assert known is not None
    assert known.tolist() == [False, True]


def test_over_keeps_what_a_flow_knows() -> None:
    def doubled(model: Any) -> Any:
        return lambda *args: 2 * model(*args)

    flow = Flow(field, False, lambda t: t > 0)
    twice = flow.over(doubled)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(twice.rate(X, t), 2 * flow.rate(X, t))
    assert (twice.independent, twice.known) == (flow.independent, flow.known)
    assert flow.velocity is field
