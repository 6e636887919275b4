"""Both ends of a path: limits where a quantity is determined, the least norm where it is not, finite gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheos.core import Rng
from rheos.core.protocols import Quantity
from rheos.paths import QUANTITIES, Affine
from rheos.schedules import Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving

SCHEDULES = [Linear(), Cosine(), Polynomial(), Polynomial(0.5), VariancePreserving(), VarianceExploding(0.1, 3.0)]
ZERO, ONE = (torch.tensor(end, dtype=torch.float64) for end in (0.0, 1.0))
X = Rng(1).normal(4, 3, dtype=torch.float64)
VALUE = Rng(2).normal(4, 3, dtype=torch.float64)
NOTHING = torch.zeros(4, 3, dtype=torch.float64)
HALF_PI = torch.pi / 2


def convert(schedule: Schedule, t: Tensor, given: Quantity, want: Quantity) -> Tensor:
    return Affine(schedule).convert(VALUE, X, t, given=given, want=want)


# The table of undetermined cells in rheos.paths.affine: (schedule, time, given, want, the answer of least norm).
CELLS: list[tuple[Schedule, Tensor, Quantity, Quantity, Tensor]] = [
    # data where sigma = 0: the noise is missing.
    (Linear(), ONE, "data", "noise", NOTHING),
    (Linear(), ONE, "data", "score", NOTHING),
    (Linear(), ONE, "data", "v", NOTHING),
    (Linear(), ONE, "data", "velocity", VALUE),
    (Cosine(), ONE, "data", "noise", NOTHING),
    (Cosine(), ONE, "data", "velocity", NOTHING),
    (Polynomial(), ONE, "data", "velocity", 2 * VALUE),
    (VariancePreserving(), ONE, "data", "noise", NOTHING),
    (VariancePreserving(), ONE, "data", "velocity", 0.05 * VALUE),
    # noise where alpha = 0: the data are missing.
    (Linear(), ZERO, "noise", "data", NOTHING),
    (Linear(), ZERO, "noise", "v", NOTHING),
    (Linear(), ZERO, "noise", "velocity", -VALUE),
    (Cosine(), ZERO, "noise", "velocity", NOTHING),
    (Cosine(), ZERO, "noise", "data", NOTHING),
    (Polynomial(), ZERO, "noise", "velocity", NOTHING),
    (Polynomial(0.5), ZERO, "noise", "velocity", NOTHING),
    # score where alpha = 0: likewise, with the noise -sigma*score.
    (Linear(), ZERO, "score", "data", NOTHING),
    (Linear(), ZERO, "score", "noise", -VALUE),
    (Linear(), ZERO, "score", "velocity", VALUE),
    (Cosine(), ZERO, "score", "velocity", NOTHING),
    (Polynomial(0.5), ZERO, "score", "velocity", NOTHING),
    # velocity where the speed is 0: the state alone speaks.
    (Polynomial(), ZERO, "velocity", "data", NOTHING),
    (Polynomial(), ZERO, "velocity", "noise", X),
    (Polynomial(), ZERO, "velocity", "score", -X),
    (Polynomial(), ZERO, "velocity", "v", NOTHING),
    # the score where sigma = 0.
    (Linear(), ONE, "velocity", "score", NOTHING),
    (Linear(), ONE, "noise", "score", NOTHING),
    (Linear(), ONE, "v", "score", NOTHING),
    (Cosine(), ONE, "velocity", "score", NOTHING),
    (VariancePreserving(), ONE, "noise", "score", NOTHING),
    (VariancePreserving(), ONE, "v", "score", NOTHING),
    # the velocity where the speed is infinite: its infinite part is left out.
    (VariancePreserving(), ONE, "noise", "velocity", 0.05 * X),
    (VariancePreserving(), ONE, "v", "velocity", 0.05 * X),
    (Polynomial(0.5), ZERO, "data", "velocity", NOTHING),
    (Polynomial(0.5), ZERO, "v", "velocity", NOTHING),
    # a finite velocity where the speed is infinite says that data and noise balance.
    (VariancePreserving(), ONE, "velocity", "data", X),
    (VariancePreserving(), ONE, "velocity", "noise", NOTHING),
    (Polynomial(0.5), ZERO, "velocity", "data", X),
    (Polynomial(0.5), ZERO, "velocity", "noise", X),
]


@pytest.mark.parametrize(("schedule", "t", "given", "want", "expected"), CELLS)
def test_an_undetermined_cell_gives_the_answer_of_least_norm(
    schedule: Schedule, t: Tensor, given: Quantity, want: Quantity, expected: Tensor
) -> None:
    for time in (t, t.expand(4), t.expand(4, 3)):
        got = Affine(schedule).convert(VALUE, X, time, given=given, want=want)
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-15)


def expectations(schedule: Schedule, t: Tensor) -> dict[Quantity, Tensor]:
    """The expectations given x of every quantity, for independent data of mean 0.4 and variance 0.3."""
    frame = schedule.frame(t)
    variance = frame.alpha**2 * 0.3 + frame.sigma**2
    offset = (X - frame.alpha * 0.4) / variance
    data, noise = 0.4 + frame.alpha * 0.3 * offset, frame.sigma * offset
    # d_sigma*sigma = q*flux stays finite where d_sigma does not.
    velocity = frame.d_alpha * data + torch.as_tensor(frame.q * frame.flux) * offset
    return {
        "data": data,
        "noise": noise,
        "velocity": velocity,
        "score": -offset,
        "v": frame.alpha * noise - frame.sigma * data,
    }


def undetermined(schedule: Schedule, end: float, given: Quantity, want: Quantity) -> bool:
    """The table of the docstring, for expectations, which unlike one pair of ends have a score at sigma = 0."""
    frame = schedule.frame(torch.tensor(end, dtype=torch.float64))
    alpha, sigma, speed = float(frame.alpha), float(frame.sigma), float(frame.speed)
    if given == want:
        return False
    if want == "score" and sigma == 0:
        return True
    if "velocity" in (given, want) and speed == float("inf") and given != "score":
        return True
    if given == "velocity" and speed == 0:
        return want in ("data", "v")
    if given == "data" and sigma == 0:
        return want == "velocity" and float(frame.d_sigma) != 0
    if given in ("noise", "score") and alpha == 0:
        return want == "data" or (want == "velocity" and float(frame.d_alpha) != 0) or want == "v"
    return False


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_expectations_follow_from_one_another_at_the_ends(schedule: Schedule, end: float) -> None:
    """What a network learns is an expectation: at an end its conversions are the limits of those inside."""
    t, path = torch.tensor(end, dtype=torch.float64), Affine(schedule)
    at = expectations(schedule, t)
    checked = 0
    for given in QUANTITIES:
        for want in QUANTITIES:
            if undetermined(schedule, end, given, want):
                continue
            if not bool(torch.isfinite(at[given]).all() and torch.isfinite(at[want]).all()):
                continue
            got = path.convert(at[given], X, t, given=given, want=want)
            torch.testing.assert_close(got, at[want], rtol=1e-12, atol=1e-12)
            checked += given != want
    assert checked >= 8


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("given", QUANTITIES)
@pytest.mark.parametrize("want", QUANTITIES)
def test_values_and_gradients_are_finite_at_both_ends(schedule: Schedule, given: Quantity, want: Quantity) -> None:
    for t in (ZERO, ONE, torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)):
        value, x = VALUE.clone().requires_grad_(), X.clone().requires_grad_()
        out = Affine(schedule).convert(value, x, t, given=given, want=want)
        assert bool(torch.isfinite(out).all())
        gradients = torch.autograd.grad(out.sum(), (value, x), allow_unused=True)
        for gradient in gradients:
            assert gradient is None or bool(torch.isfinite(gradient).all())


def test_rows_at_an_end_do_not_disturb_rows_inside() -> None:
    t = torch.tensor([0.0, 0.3, 1.0, 0.7], dtype=torch.float64)
    for schedule in SCHEDULES:
        for given in QUANTITIES:
            for want in QUANTITIES:
                whole = convert(schedule, t, given, want)
                for row in range(4):
                    alone = Affine(schedule).convert(VALUE[row], X[row], t[row], given=given, want=want)
                    torch.testing.assert_close(whole[row], alone, rtol=1e-14, atol=1e-14)
