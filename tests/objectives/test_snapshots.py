"""Several snapshots: how draws are joined, the minimiser, and the marginals that the flow passes through."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import nn, testing
from rheos.core import InputError, Rng, ShapeError, Stream, integrate
from rheos.couplings import BatchOT, Independent
from rheos.data import Shuffled, Tensors
from rheos.objectives import Matching, PseudoHuber, Squared
from rheos.objectives.snapshots import Snapshots, trajectories
from rheos.objectives.times import LogitNormal, Uniform
from rheos.paths.spline import Chain, Curve, Spline
from rheos.solvers import Dopri5
from rheos.training import Training, fit

F64 = torch.float64
TIMES = (0.0, 0.4, 1.0)
X = Rng(1).normal(5, 3, 2, dtype=F64)
T = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=F64)


class First:
    """A source that draws a first snapshot."""

    def __call__(self, rng: Rng, like: Tensor) -> Tensor:
        return 10 + rng.normal(*like.shape[1:], dtype=like.dtype)


def zero(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return torch.zeros_like(x)


@pytest.mark.parametrize(
    "objective",
    [
        Snapshots(Spline(TIMES), BatchOT(), source=First()),
        Snapshots(Chain(TIMES), Independent(), LogitNormal(), PseudoHuber(), First()),
    ],
)
def test_objectives_keep_the_laws(objective: Snapshots) -> None:
    testing.check_objective(objective, Rng(4).normal(6, 3, 2))
    testing.check_objective(objective, Rng(5).normal(4, 3, 2, 3, dtype=F64))


@pytest.mark.parametrize("curve", [Spline(TIMES), Chain(TIMES)])
def test_the_network_is_shown_the_curve_and_asked_for_its_velocity(curve: Curve) -> None:
    seen = []

    def model(x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        seen.append((x, t, cond))
        return torch.zeros_like(x)

    label = torch.arange(5)
    loss = Snapshots(curve, Independent())(model, X, label, t=T)
    Snapshots(curve, Independent())(model, X, t=T)
    sample = curve.sample(X, T)
    assert torch.equal(seen[0][0], sample.x)
    assert seen[0][0].shape == (5, 2)
    assert seen[0][1] is T
    assert (seen[0][2], seen[1][2]) == ((label,), ())
    torch.testing.assert_close(loss.rows, sample.target.square().mean(1))
    assert loss.parts == {}


def test_with_two_snapshots_it_is_flow_matching_between_them() -> None:
    x = X[:, :2]

    def model(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(3 * x) * t[:, None]

    ours = Snapshots(Spline((0.0, 1.0)), BatchOT())(model, x, t=T).rows
    pairs = BatchOT()(x[:, 0], x[:, 1])
    # Times stay with the rows, which there are those of the second snapshot and here those of the first.
    theirs = Matching()(model, x[pairs.i.argsort(), 1], x0=x[:, 0], t=T).rows
    torch.testing.assert_close(ours, theirs)


def joint(count: int, seed: int) -> Tensor:
    """Trajectories whose three states are jointly normal, entry by entry."""
    z = Rng(seed).rows(torch.arange(count)).normal(2, 3, dtype=F64)
    return (z @ FACTOR.T + MEAN).transpose(1, 2)


FACTOR = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.6, 0.0], [-0.4, 0.3, 0.8]], dtype=F64)
MEAN = torch.tensor([0.0, 2.0, 1.0], dtype=F64)


def exact(curve: Curve) -> Callable[..., Tensor]:
    """The velocity of jointly normal trajectories: the regression of the curve's velocity on its point."""
    covariance = FACTOR @ FACTOR.T

    def field(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        w, dw = curve.weights(t)
        slope = ((dw @ covariance) * w).sum(-1) / ((w @ covariance) * w).sum(-1)
        mean, drift = w @ MEAN, dw @ MEAN
        return (drift[..., None] + slope[..., None] * (x - mean[..., None])) if t.dim() else drift + slope * (x - mean)

    return field


@pytest.mark.parametrize("curve", [Spline(TIMES), Chain(TIMES)])
def test_the_minimiser_is_the_exact_field(curve: Curve) -> None:
    """The derivative of the expected loss, in any direction, is 0 at the exact field and not beside it."""
    count = 4000
    x1, field, objective = joint(count, 1), exact(curve), Snapshots(curve, Independent())
    t = 0.02 + 0.96 * Rng(3).rows(torch.arange(count)).uniform(dtype=F64)

    def significance(direction: Callable[[Tensor, Tensor], Tensor], scale: float) -> float:
        def rows(step: Tensor) -> Tensor:
            return objective(lambda x, t: scale * field(x, t) + step * direction(x, t), x1, t=t).rows

        zero, one = torch.zeros((), dtype=F64), torch.ones((), dtype=F64)
        slope = torch.func.jvp(rows, (zero,), (one,))[1]
        return float(slope.mean() / (slope.std() / count**0.5))

    directions: list[Callable[[Tensor, Tensor], Tensor]] = [
        field,
        lambda x, t: torch.ones_like(x),
        lambda x, t: x,
        lambda x, t: torch.sin(2 * x.flip(1)),
        lambda x, t: (t[:, None] - 0.5) * x.square(),
    ]
    assert max(abs(significance(direction, 1.0)) for direction in directions) < 4
    assert significance(field, 0.7) < -6
    assert significance(field, 1.3) > 6


def test_the_flow_passes_through_every_snapshot() -> None:
    objective = Snapshots(Spline(TIMES), Independent())
    flow = objective.dynamics(exact(objective.path))
    assert not flow.independent
    # Points of mean 0 and variance 1 exactly: those of the first snapshot. A linear flow keeps such moments exact.
    x = torch.tensor([[1.0], [-1.0]], dtype=F64)
    grid = torch.tensor([0.0, 0.2, 0.4, 0.7, 1.0], dtype=F64)
    states = integrate(Dopri5(1e-9, 1e-9), flow, x, grid, trajectory=True).trajectory
    assert states is not None
    for time, state in zip(grid, states, strict=True):
        w = objective.path.weights(time)[0]
        assert float(state.mean()) == pytest.approx(float(w @ MEAN), abs=1e-7)
        assert float(state.var(correction=0)) == pytest.approx(float((w @ FACTOR).square().sum()), abs=1e-7)
    for k, time in enumerate(TIMES):
        assert float(states[grid.tolist().index(time)].mean()) == pytest.approx(float(MEAN[k]), abs=1e-7)


def test_neighbours_are_joined_by_the_cheapest_chain() -> None:
    joined = trajectories(X, BatchOT())
    assert torch.equal(joined[:, 0], X[:, 0])
    for k in (1, 2):
        assert torch.equal(joined[:, k].sort(0).values, X[:, k].sort(0).values)

        def cost(order: tuple[int, ...], k: int = k) -> float:
            return float((X[:, k - 1] - X[list(order), k]).square().sum())

        best = X[list(min(itertools.permutations(range(5)), key=cost)), k]
        for before, after in zip(X[:, k - 1], best, strict=True):
            row = int((joined[:, k - 1] == before).all(1).nonzero())
            assert torch.equal(joined[row, k], after)


def test_a_row_keeps_its_condition_and_its_time() -> None:
    """Three clusters, whose draws stand in another order in each snapshot: OT finds the own one, whatever the rows."""
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]], dtype=F64)
    x = torch.stack([centres, centres[[2, 0, 1]] + 1, centres[[1, 0, 2]] + 2], 1)
    seen = []

    def model(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        seen.append((x, cond))
        return torch.zeros_like(x)

    label = torch.tensor([7, 8, 9])
    t = torch.full((3,), 0.4, dtype=F64)
    with pytest.warns(UserWarning, match="condition"):
        Snapshots(Spline(TIMES), BatchOT())(model, x, label, rng=1, t=t)
    torch.testing.assert_close(seen[0][0], centres + 1)
    assert seen[0][1] is label
    torch.testing.assert_close(trajectories(x, BatchOT())[:, 2], centres + 2)


def test_a_coupling_may_move_both_sides_and_use_a_datum_twice() -> None:
    class Odd:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Any:
            i, j = torch.tensor([2, 0, 4, 1, 3]), torch.tensor([1, 1, 0, 3, 4])
            return Independent()(x0, x1)._replace(x0=x0[i], x1=x1[j], i=i, j=j)

    # 0 -> 1, 1 -> 3, 2 -> 1, 3 -> 4, 4 -> 0, twice over.
    first, second = [1, 3, 1, 4, 0], [3, 4, 3, 0, 1]
    joined = trajectories(X, Odd())
    assert torch.equal(joined, torch.stack([X[:, 0], X[first, 1], X[second, 2]], 1))


def test_each_pair_of_neighbours_has_a_key_of_its_own() -> None:
    seen = []

    class Spy:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Any:
            seen.append((cond, None if rng is None else rng.key.tolist()))
            return Independent()(x0, x1)

    label = torch.arange(5)
    objective = Snapshots(Spline(TIMES), Spy())
    objective(zero, X, label, rng=7)
    objective(zero, X, t=T)
    stream = Rng(7).fold(Stream.COUPLING)
    keys = [stream.fold(k).key.tolist() for k in (0, 1)]
    assert seen == [(label, keys[0]), (label, keys[1]), (None, None), (None, None)]
    assert objective.coupling == Independent()


def test_times_are_drawn_and_noise_is_not() -> None:
    objective, rng = Snapshots(Spline(TIMES), BatchOT(), source=First()), Rng(7).rows(torch.arange(5))
    x0, t = objective.draw(rng, X)
    assert torch.equal(x0, torch.zeros_like(X))
    assert torch.equal(t, rng.fold(Stream.TIME).uniform(dtype=torch.float32))
    want = objective(zero, X, t=t).rows
    assert torch.equal(objective(zero, X, rng=7).rows, want)
    assert torch.equal(objective(zero, X, x0=x0 + 5, t=t).rows, want)
    start = objective.prior(rng, X[:, 0])
    assert torch.equal(start, 10 + rng.fold(Stream.SOURCE).normal(2, dtype=F64))


def test_it_trains(tmp_path: Path) -> None:
    with nn.seeded(0):
        network = nn.MLP(2, 8, 1)
    settings = Training(steps=3, batch=8, log_every=1, sample_every=0, checkpoint_every=3, snapshots=0)
    objective = Snapshots(Spline(TIMES), BatchOT())
    data = Tensors(Rng(1).normal(16, 3, 2))
    done = fit(network, objective, data, Shuffled(16), settings, seed=0, out=tmp_path, progress=False, forecast=False)
    assert done.step == 3
    assert float(done.network.get_parameter("leave.bias").detach().abs().max()) > 0


def test_defaults() -> None:
    plain = Snapshots(Spline(TIMES), Independent())
    assert plain.times == Uniform()
    assert plain.loss == Squared()
    assert plain.source is None
    assert plain.learned == {}
    assert plain.dynamics(zero).velocity is zero


def test_what_is_missing_or_of_another_shape_is_refused() -> None:
    objective = Snapshots(Spline(TIMES), Independent())
    with pytest.raises(InputError, match=r"give an rng .* to draw the times with"):
        objective(zero, X)
    with pytest.raises(InputError, match="give Snapshots a source that draws it"):
        objective.prior(Rng(0).rows(torch.arange(5)), X[:, 0])
    with pytest.raises(ShapeError, match=r"this curve passes 3 states, \(B, 3, ...\), got \(5, 2, 2\)"):
        objective(zero, X[:, :2], t=T)
    for t in (torch.tensor(0.5), torch.full((2,), 0.5), torch.full((5, 2), 0.5)):
        with pytest.raises(ShapeError, match=r"training times are one a row, \(5,\), got"):
            objective(zero, X, t=t)
    with pytest.raises(ShapeError, match=r"must return the shape \(5, 2\) of one state a row, got \(5, 1\)"):
        objective(lambda x, t: x[:, :1], X, t=T)
