"""The kit must be able to fail: each law is broken once, and the sentence says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import PathSample, Rng, expand
from rheos.dynamics import Diffusion, Flow
from rheos.paths import Affine
from rheos.schedules import Cosine, Schedule
from support.laws import fails

X = Rng(1).normal(4, 3, dtype=torch.float64)


# Schedules.


def schedule(call: Callable[[Tensor], Any], **methods: Any) -> Schedule:
    members = {"__call__": lambda self, t: call(t), **methods}
    return type("Broken", (Schedule,), members)()


def line(t: Tensor) -> tuple[Tensor, Tensor]:
    return t, 1 - t


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (schedule(lambda t: (t, 1 - t.mean())), "shape|treats every time by itself|raised"),
        (schedule(lambda t: (t - t.mean() + 0.5, 1 - t)), "alpha treats every time by itself"),
        (schedule(lambda t: (t.double(), 1 - t)), "alpha keeps the dtype"),
        (schedule(lambda t: (t, (1 - t).double())), "sigma keeps the dtype"),
        (schedule(lambda t: (t - 0.1, 1 - t)), "alpha is finite and not negative on .* at t = 0"),
        (schedule(lambda t: (t, torch.log(t))), "sigma is finite and not negative"),
        (schedule(lambda t: (1 - t, t)), "sigma is positive at t = 0"),
        (schedule(lambda t: (t * (1 - t), 1 - t * t)), "alpha is positive at t = 1"),
        (schedule(lambda t: (0.2 + (t - 0.3) ** 2, 1 - t)), "alpha/sigma increases: it does not after t ="),
        (schedule(line, derivative=lambda self, t: (1.01, -1.0)), "d_alpha is the forward-mode derivative"),
        (schedule(line, derivative=lambda self, t: (1.0, -1.01)), "d_sigma is the forward-mode derivative"),
        (schedule(lambda t: (t, (1 - t).detach())), "d_sigma is the limit of finite differences"),
        (schedule(line, time_of=lambda self, alpha, sigma: alpha), "time_of inverts alpha/sigma"),
        (
            schedule(line, time_of=lambda self, alpha, sigma: (alpha / (alpha + sigma)).clamp(0.01)),
            "time_of pure noise",
        ),
        (
            schedule(line, time_of=lambda self, alpha, sigma: (alpha / (alpha + sigma)).clamp(0, 0.99)),
            "time_of pure data",
        ),
    ],
)
def test_a_broken_schedule(broken: Schedule, law: str) -> None:
    fails(law, lambda: testing.check_schedule(broken))


@pytest.mark.parametrize(
    ("entry", "law"),
    [
        ("alpha", "frame.alpha is alpha"),
        ("sigma", "frame.sigma is sigma"),
        ("d_alpha", "frame.d_alpha is the derivative"),
        ("d_sigma", "frame.d_sigma is the derivative"),
        ("p", r"p\*sigma - q\*alpha is 1"),
        ("q", r"p\*sigma - q\*alpha is 1"),
        ("speed", r"speed is d_alpha\*sigma - alpha\*d_sigma"),
        ("flux", r"flux is speed\*sigma"),
    ],
)
def test_a_broken_frame(entry: str, law: str) -> None:
    def frame(self: Schedule, t: Tensor) -> Any:
        right = Cosine().frame(t)
        return right._replace(**{entry: getattr(right, entry) * 1.001 + 0.001})

    broken = schedule(lambda t: Cosine()(t), frame=frame)
    fails(law, lambda: testing.check_schedule(broken))


def test_a_frame_along_another_direction() -> None:
    """p and q that keep the identity and are wrong all the same."""

    def frame(self: Schedule, t: Tensor) -> Any:
        right = Cosine().frame(t)
        return right._replace(p=right.p + right.alpha, q=right.q + right.sigma)

    fails(r"p\*speed is d_alpha", lambda: testing.check_schedule(schedule(lambda t: Cosine()(t), frame=frame)))


# Paths.


@dataclass(frozen=True)
class BrokenPath:
    """A straight path with one thing wrong."""

    fault: str

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor, rng: Any = None) -> PathSample[Tensor]:
        if self.fault == "lenient" and t.shape == (4, 1):
            t = t[:, 0]
        right = Affine().sample(x0, x1, t)
        if self.fault == "sign":
            return right._replace(target=-right.target)
        if self.fault == "clock":
            return right._replace(t=t + 0.1)
        if self.fault == "dtype":
            return right._replace(x=right.x.double())
        if t.dim() == 2 and self.fault == "scalar":
            raise TypeError("one clock a sample only")
        if self.fault == "broadcast" and t.dim() == 1 and x0.dim() == 2 and len(t) == x0.shape[-1]:
            return PathSample(t * x1 + (1 - t) * x0, t, x1 - x0)
        return right


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("sign", "the target is the time derivative of the point: at t ="),
        ("clock", "and returns them"),
        ("dtype", "the point keeps the dtype"),
        ("scalar", r"a path takes times of shape \(4, 3\) for states of shape \(4, 3, 2\): it raised TypeError"),
        ("broadcast", "row 0 of a batch of 2 in 2 dimensions moves by its own clock"),
        ("lenient", r"a time of shape \(4, 1\) is refused"),
    ],
)
def test_a_broken_path(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_path(BrokenPath(fault)))


@pytest.mark.parametrize("at_end", [True, False])
def test_a_broken_conversion(at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Affine.convert

    def convert(self: Affine, value: Tensor, x: Tensor, t: Tensor, *, given: Any, want: Any) -> Tensor:
        out = right(self, value, x, t, given=given, want=want)
        wrong = given == "v" and want == "noise" and (not at_end or bool((t == 1).all()))
        return out + 1e-3 if wrong else out

    monkeypatch.setattr(Affine, "convert", convert)
    fails(
        "the noise follows from the v:" + (" at t = 1 " if at_end else ""), lambda: testing.check_path(Affine(Cosine()))
    )


# Dynamics.


@dataclass(frozen=True)
class BrokenFlow:
    """A flow with one thing wrong."""

    fault: str
    velocity: Any = lambda x, t: torch.tanh(x)

    def over(self, wrap: Any) -> Any:
        if self.fault == "kind":
            return Flow(self.velocity).over(wrap)
        return self if self.fault == "over" else replace(self, velocity=wrap(self.velocity))

    def rate(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        if self.fault == "twice":
            return (self.velocity(x, t) + self.velocity(x, t)) / 2
        rate = self.velocity(x, t)
        if self.fault == "batch":
            return rate - rate.mean(0)
        if self.fault == "shape":
            return rate[:1]
        return rate

    def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Any = None) -> Tensor:
        if self.fault == "drift":
            return x + 0.1
        if self.fault == "bend":
            return Flow(self.velocity).move(x, rate * (1 + expand(s - t, x)), t, s)
        if self.fault == "scalar" and t.dim():
            raise TypeError("one clock only")
        if self.fault == "first" and t.dim():
            return Flow(self.velocity).move(x, rate, t[-1], s[-1])
        return Flow(self.velocity).move(x, rate, t, s)

    def determined(self, t: Tensor) -> Any:
        return torch.ones(3, dtype=torch.bool) if self.fault == "known" else None


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("kind", "over returns the same kind of dynamics, not Flow"),
        ("over", "a rate is one call of the model inside over: 0 calls"),
        ("twice", "a rate is one call of the model inside over: 2 calls"),
        ("batch", "row 0 depends on itself and its key alone"),
        ("shape", "a rate has the batch in front: 1 rows for 4"),
        ("drift", "moving by no time changes nothing"),
        ("bend", "moving there and back along one rate ends where it began"),
        ("scalar", r"a dynamics takes times of shape \(B,\): it raised TypeError"),
        ("first", "a row that moves by no time stands still"),
        ("known", "determined.* is None or bools of the shape"),
    ],
)
def test_a_broken_dynamics(fault: str, law: str) -> None:
    fails(law, lambda: testing.check_dynamics(BrokenFlow(fault), X))


def test_a_dynamics_needs_rows_to_be_checked() -> None:
    fails("needs a state of at least two rows", lambda: testing.check_dynamics(Flow(torch.add), X[:1]))


def test_noise_that_does_not_see_its_key_is_found() -> None:
    class Shared:
        def __init__(self, sde: Diffusion) -> None:
            self.sde = sde

        def over(self, wrap: Any) -> Shared:
            return Shared(self.sde.over(wrap))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sde, name)

        def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tensor:
            return self.sde.move(x, rate, t, s, None if rng is None else Rng(0))

    sde = Diffusion(Flow(lambda x, t: torch.tanh(x)), Affine(), torch.ones_like)
    fails("row 1 depends on itself and its key alone", lambda: testing.check_dynamics(Shared(sde), X))
