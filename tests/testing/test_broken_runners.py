"""The kit must be able to fail: each law is broken once, and the sentence says which."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import testing
from rheos.core import Loss, Rng, Solver, Step
from rheos.core.condition import null
from rheos.couplings import Independent
from rheos.dynamics import Flow
from rheos.guidance import ClassifierFree
from rheos.objectives import Matching
from rheos.schedules import Linear
from rheos.solvers import RK4, AdamsBashforth, Dopri5, Euler, Heun, Midpoint
from support.laws import fails

X = Rng(1).normal(4, 3, dtype=torch.float64)


# Solvers.


@pytest.mark.parametrize(
    "solver", [Euler(), Midpoint(), Heun(), RK4(), Dopri5(), *(AdamsBashforth(k) for k in range(1, 5))]
)
def test_built_in_solvers_have_their_order(solver: Solver[Any]) -> None:
    testing.check_solver(solver)


@dataclass(frozen=True)
class BrokenSolver(Solver[Any]):
    """The explicit midpoint rule with one thing wrong."""

    fault: str
    order: int = 2

    def step(self, dynamics: Any, x: Any, t: Tensor, s: Tensor, memory: Any = (), rng: Any = None) -> Step[Any]:
        if self.fault == "short":
            return Step(x, t)
        if self.fault == "backward" and bool(s < t):
            return Step(dynamics.move(x, dynamics.rate(x, t, s), t, s), s)
        node = t + (0.5 if self.fault != "node" else 0.4) * (s - t)
        rate = dynamics.rate(dynamics.move(x, dynamics.rate(x, t, s), t, node), node, s)
        moved = dynamics.move(x, rate, t, s)
        if self.fault == "tuple" and isinstance(x, tuple):
            moved = (moved[0], moved[0] + 1e-3)
        if self.fault == "wide" and not isinstance(x, tuple):
            moved = moved.double()
        if self.fault == "mean" and not isinstance(x, tuple):
            moved = moved + 1e-3 * (s - t) ** 3 * moved.mean(0)
        return Step(moved, s)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("node", r"the order on an even grid forward is 2 to 0\.15: 1\.\d+ was measured"),
        ("backward", r"the order on an even grid backward is 2 to 0\.15: 1\.\d+ was measured"),
        ("short", "ends its step at the time"),
        ("tuple", "a tuple of states goes part by part"),
        ("wide", "float32 stays float32"),
        ("mean", "row 0 does not depend on the others"),
    ],
)
def test_a_broken_solver(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_solver(BrokenSolver(fault)))


def test_a_solver_may_be_excused_from_tuples() -> None:
    testing.check_solver(BrokenSolver("tuple"), tuples=False)
    testing.check_solver(BrokenSolver("none"))


def test_a_wrong_claim_of_order() -> None:
    fails("is 3 to 0.15", lambda: testing.check_solver(BrokenSolver("none", order=3)))
    assert testing.measured_order(BrokenSolver("none"), steps=40) == pytest.approx(2, abs=0.01)


# Models.


class Net(nn.Module):
    """A small network with labels and one thing wrong."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        if self.fault == "scalar" and t.dim() == 0:
            raise TypeError("one clock a sample only")
        unknown = torch.full((len(x),), -1)
        label = unknown if cond is None else cond
        if self.fault == "none" and cond is None:
            label = unknown + 1
        if self.fault == "leak" and bool((label == -1).any()):
            label = unknown
        time = t.reshape(-1, 1) if t.dim() else t
        out = torch.tanh(self.dropout(x)) * time + label.to(x.dtype)[:, None]
        if self.fault == "norm":
            return out - out.mean(0)
        if self.fault == "shape":
            return out[:, :1]
        if self.fault == "end":
            return out / time
        if self.fault == "dtype":
            return out.double()
        if self.fault == "clock" and t.dim() == 0:
            return out + 1
        return out


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("scalar", r"a model takes a state \(4, 3\) and times \(\) and \(B,\): it raised TypeError"),
        ("norm", "row 0 depends on itself alone"),
        ("shape", r"keeps the state's shape \(4, 3\): it is \(4, 1\)"),
        ("end", "the output is finite at t = 0.0"),
        ("dtype", "keeps the dtype of the state"),
        ("clock", r"a time of shape \(\) is that time for every row"),
        ("none", "no condition is the same as an unknown one"),
        ("leak", "its neighbours keep theirs"),
    ],
)
def test_a_broken_model(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_model(Net(fault), X.float(), torch.tensor([0, 1, 2, 3])))


def test_a_lawful_model_is_left_in_the_mode_it_was_in() -> None:
    net = Net().train()
    testing.check_model(net, X.float(), torch.tensor([0, 1, 2, 3]))
    testing.check_model(net.eval(), X)
    assert not net.training
    testing.check_model(net.train(), X)
    assert net.training
    fails("needs a state of at least two rows", lambda: testing.check_model(net, X[:1]))


# Guidance.


class Halves:
    """A guided model that hides its network from ``over``, or mixes its rows."""

    def __init__(self, model: Any, fault: str) -> None:
        self.model, self.fault = model, fault

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        out = self.model(x, t, cond) + self.model(x, t, null(cond))
        if self.fault == "rows":
            return out - out.mean(0)
        if self.fault == "clock" and t.dim():
            return 2 * out
        return out.float() if self.fault == "dtype" else out

    def over(self, wrap: Any) -> Halves:
        return self if self.fault == "over" else Halves(wrap(self.model), self.fault)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("over", "over reaches every call of the guided network: 2 calls were made, 0 were reached"),
        ("rows", "row 0 depends on itself alone"),
        ("clock", r"a time of shape \(\) is that time for every row"),
        ("dtype", "keeps the shape and dtype"),
    ],
)
def test_a_broken_guidance(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_guidance(lambda model: Halves(model, fault)))
    testing.check_guidance(lambda model: Halves(model, ""))
    testing.check_guidance(ClassifierFree(2.0))


# Objectives.


class BrokenObjective:
    """Flow matching with one thing wrong."""

    learned: Any = {}  # noqa: RUF012
    coupling: Any = Independent()

    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0

    def __call__(
        self, model: Any, x1: Tensor, cond: Any = None, rng: Any = None, *, x0: Any = None, t: Any = None
    ) -> Loss:
        self.calls += 1
        if self.fault == "redraw":
            x0 = None
        loss = Matching()(model, x1, cond, rng, x0=x0, t=t)
        if self.fault == "redraw" and t is not None:
            return Loss(loss.rows + 1)
        if self.fault == "mean":
            return Loss(loss.rows.mean())
        if self.fault == "infinite":
            return Loss(loss.rows / 0)
        if self.fault == "mood":
            return Loss(loss.rows + self.calls)
        if self.fault == "parts":
            return Loss(loss.rows, {"half": loss.rows.mean()})
        return Loss(loss.rows.detach() + 0 * loss.rows if self.fault == "gradient" else loss.rows)

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        x0, t = Matching().draw(rng, like)
        if self.fault == "times":
            return x0, t + 1
        if self.fault == "split":
            return x0, torch.linspace(0.1, 0.9, len(like))
        if self.fault == "noise":
            return x0 - x0.mean(0), t
        return x0, t

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        start = Matching().prior(rng, like)
        return start - start.mean(0) if self.fault == "prior" else start

    def dynamics(self, network: Any) -> Flow:
        return Matching().dynamics(lambda x, t: network(x, t)[:, :1] if self.fault == "dynamics" else network(x, t))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("mean", r"the loss is one number a row: its shape is \(\)"),
        ("infinite", "the loss is finite"),
        ("mood", "the same rng gives the same loss"),
        ("parts", r"the part 'half' is one number a row"),
        ("gradient", "the gradient reaches the network"),
        ("times", r"times lie in \[0, 1\]"),
        ("split", "the time of a row is a function of its key alone"),
        ("noise", "the noise of a row is a function of its key alone"),
        ("prior", "a row's start of sampling is a function of its key alone"),
        ("redraw", "what is given is neither drawn nor joined again"),
        ("dynamics", "the dynamics has a rate like the state"),
    ],
)
def test_a_broken_objective(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_objective(BrokenObjective(fault)))
    testing.check_objective(BrokenObjective(""))


def test_what_is_compared_says_where_and_by_how_much() -> None:
    from rheos.testing.law import agree, lawful, refuses

    t = torch.tensor([0.25, 0.5])
    got, want = torch.tensor([[1.0, 2.0], [3.0, 4.5]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    fails(
        r"^law: at t = 0\.5 the difference is 0\.5, and 0\.05 is allowed\.$", lambda: agree("law", got, want, 0.01, t)
    )
    fails(r"law: the shape is \(2, 2\) and should be \(2,\)", lambda: agree("law", got, want[0], 0.01))
    fails("difference is inf", lambda: agree("law", math.nan, 0.0, 0.01))
    agree("law", math.inf, math.inf, 0.0)
    agree("law", torch.zeros(0), torch.zeros(0), 0.0)
    agree("law", got, want, 0.11)
    fails("law: ValueError should have been raised", lambda: refuses("law", ValueError, lambda: None))

    def raising() -> None:
        with lawful("law"):
            raise TypeError("why")

    fails("law: it raised TypeError: why", raising)
    assert Linear().bounded
