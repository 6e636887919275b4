"""A continuous normalizing flow on torchdiffeq, as FFJORD is written: likelihoods and their gradients, both ways."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos.core import Rng, Stream, expand
from rheos.dynamics import Flow
from rheos.dynamics.adjoint import integrate_adjoint
from rheos.objectives.simulated import SimulatedLikelihood
from rheos.solvers import RK4, Dopri5

TIGHT = Dopri5(rtol=1e-9, atol=1e-10)
BACK = torch.tensor([1.0, 0.0], dtype=torch.float64)
COUNT, SIZE = 5, 3


class Bent(nn.Module):
    """A nonlinear velocity."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Parameter(0.7 * Rng(1).normal(SIZE + 1, 8, dtype=torch.float64))
        self.outer = nn.Parameter(0.7 * Rng(2).normal(8, SIZE, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = expand(t, x).expand(len(x), 1)
        return torch.tanh(torch.cat([x, time], 1) @ self.inner) @ self.outer


class Augmented(nn.Module):
    """The pair (x, the divergence met) as the peer wants it: the trace by a loop, or along fixed probes (K, B, d)."""

    def __init__(self, field: Bent, probes: Tensor | None) -> None:
        super().__init__()
        self.field, self.probes = field, probes

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = state[0].requires_grad_() if state[0].is_leaf else state[0]
            velocity = self.field(x, t)
            total = torch.zeros(len(x), dtype=x.dtype)
            if self.probes is None:
                for k in range(SIZE):
                    total = total + torch.autograd.grad(velocity[:, k].sum(), x, create_graph=True)[0][:, k]
                return velocity, total
            for probe in self.probes:
                pulled = torch.autograd.grad(velocity, x, probe, create_graph=True)[0]
                total = total + (pulled * probe).sum(1) / len(self.probes)
            return velocity, total


def signs(rng: Rng, probes: int) -> Tensor:
    """The probes that the objective draws."""
    bits = rng.per_row(COUNT).fold(Stream.PROBE).bits(probes, SIZE)
    return torch.where(bits < 0, -1.0, 1.0).double().transpose(0, 1)


def ffjord(peer: ModuleType, field: Bent, x1: Tensor, probes: Tensor | None, adjoint: bool, **options: Any) -> Tensor:
    """-log p(x1)."""
    if adjoint:
        options["adjoint_params"] = tuple(field.parameters())
    solve = peer.odeint_adjoint if adjoint else peer.odeint
    x, change = solve(Augmented(field, probes), (x1, torch.zeros(COUNT, dtype=x1.dtype)), BACK, **options)
    return 0.5 * x[-1].square().sum(1) + 0.5 * SIZE * math.log(2 * math.pi) - change[-1]


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("gradient", ["backpropagation", "adjoint"])
def test_adaptive_likelihood_and_gradients(torchdiffeq: ModuleType, gradient: Any, trace: Any) -> None:
    field, x1, rng = Bent(), Rng(3).normal(COUNT, SIZE, dtype=torch.float64), Rng(4)
    parameters = list(field.parameters())
    ours = SimulatedLikelihood(TIGHT, trace, gradient, probes=2)(field, x1, rng=rng)
    probes = signs(rng, 2) if trace == "hutchinson" else None
    theirs = ffjord(
        torchdiffeq, field, x1.clone(), probes, gradient == "adjoint", method="dopri5", rtol=1e-9, atol=1e-10
    )
    torch.testing.assert_close(ours.parts["nll"], theirs, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(ours.rows, theirs / SIZE, rtol=1e-7, atol=1e-7)
    weights = torch.arange(1, COUNT + 1, dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad((ours.parts["nll"] * weights).sum(), parameters),
        torch.autograd.grad((theirs * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_a_fixed_grid_limit(torchdiffeq: ModuleType) -> None:
    """The peer's rk4 is another rule of order four, so that the two agree as the steps shrink."""
    field, x1 = Bent(), Rng(3).normal(COUNT, SIZE, dtype=torch.float64)
    grid = tuple(1 - n / 40 for n in range(41))
    ours = SimulatedLikelihood(RK4(), grid=grid)(field, x1).parts["nll"]
    theirs = ffjord(torchdiffeq, field, x1.clone(), None, False, method="rk4", options={"step_size": 1 / 40})
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grid", [BACK, BACK.flip(0)])
def test_the_adjoint_of_a_plain_flow(torchdiffeq: ModuleType, grid: Tensor) -> None:
    field, x = Bent(), Rng(3).normal(COUNT, SIZE, dtype=torch.float64).requires_grad_()
    inputs = [x, *field.parameters()]
    ours = integrate_adjoint(TIGHT, Flow(field), x, grid, parameters=field.parameters()).x
    theirs = torchdiffeq.odeint_adjoint(
        lambda t, x: field(x, t), x, grid, rtol=1e-9, atol=1e-10, adjoint_params=tuple(field.parameters())
    )[-1]
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    weights = Rng(6).normal(COUNT, SIZE, dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
