"""The objective: what the network is shown and asked for, its minimiser, and what it stands for afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Pairs, Rng, ShapeError, Stream, UndeterminedError
from rheos.core.protocols import Quantity
from rheos.couplings import BatchOT, Independent
from rheos.data.mixtures import GaussianMixture
from rheos.objectives import Matching, MinSNR, Normal, PseudoHuber, Squared, VelocityWeight
from rheos.objectives.times import LogitNormal, Shifted, Uniform
from rheos.paths import QUANTITIES, Affine
from rheos.schedules import Cosine, Linear, Polynomial, VarianceExploding, VariancePreserving

T = torch.tensor([0.1, 0.4, 0.7], dtype=torch.float64)
X0, X1 = Rng(1).normal(3, 2, dtype=torch.float64), Rng(2).normal(3, 2, dtype=torch.float64)


def zero(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return torch.zeros_like(x)


@pytest.mark.parametrize(
    "objective",
    [
        Matching(),
        Matching(Affine(Cosine()), predict="data", weight=VelocityWeight()),
        Matching(Affine(VariancePreserving()), predict="noise", weight=MinSNR(), times=LogitNormal()),
        Matching(predict="v", loss=PseudoHuber(), times=Shifted(stratified=True)),
        Matching(Affine(VarianceExploding(0.1, 3.0)), predict="score"),
        Matching(coupling=BatchOT()),
    ],
)
def test_objectives_keep_the_laws(objective: Matching) -> None:
    testing.check_objective(objective)
    testing.check_objective(objective, Rng(5).normal(4, 2, 3, dtype=torch.float64))


TARGETS: dict[Quantity, Callable[[float, float, float], float]] = {
    "velocity": lambda x0, x1, t: x1 - x0,
    "data": lambda x0, x1, t: x1,
    "noise": lambda x0, x1, t: x0,
    "score": lambda x0, x1, t: -x0 / (1 - t),
    "v": lambda x0, x1, t: t * x0 - (1 - t) * x1,
}


@pytest.mark.parametrize("predict", QUANTITIES)
def test_the_network_is_shown_the_path_and_asked_for_one_quantity(predict: Quantity) -> None:
    seen = []

    def model(x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        seen.append((x, t, cond))
        return torch.zeros_like(x)

    label = torch.tensor([0, 1, 2])
    loss = Matching(predict=predict)(model, X1, label, x0=X0, t=T)
    Matching(predict=predict)(model, X1, x0=X0, t=T)
    (x, t, cond), (_, _, nothing) = seen
    assert t is T
    assert (cond, nothing) == ((label,), ())
    for b, k in itertools.product(range(3), range(2)):
        x0, x1, time = float(X0[b, k]), float(X1[b, k]), float(T[b])
        assert float(x[b, k]) == pytest.approx(time * x1 + (1 - time) * x0, rel=1e-12)
    expected = [
        sum(TARGETS[predict](float(X0[b, k]), float(X1[b, k]), float(T[b])) ** 2 for k in range(2)) / 2
        for b in range(3)
    ]
    assert loss.rows.tolist() == pytest.approx(expected, rel=1e-12)
    assert loss.parts == {}


def test_the_parts_are_used() -> None:
    doubled = Matching(weight=lambda path, t, predict: 2 * t.float())(zero, X1, x0=X0, t=T)
    plain = Matching()(zero, X1, x0=X0, t=T)
    torch.testing.assert_close(doubled.rows, plain.rows * 2 * T, rtol=1e-6, atol=0)
    assert doubled.rows.dtype == torch.float64
    robust = Matching(loss=PseudoHuber(0.1))(zero, X1, x0=X0, t=T)
    torch.testing.assert_close(robust.rows, PseudoHuber(0.1)(torch.zeros_like(X1), X1 - X0))
    moved = Matching(Affine(Polynomial()))(zero, X1, x0=X0, t=T)
    torch.testing.assert_close(moved.rows, plain.rows * (2 * T) ** 2)


def test_noise_and_times_are_drawn_from_streams_of_their_own() -> None:
    rng = Rng(7).rows(torch.arange(3))
    x0, t = Matching().draw(rng, X1)
    assert torch.equal(x0, rng.fold(Stream.SOURCE).normal(2, dtype=torch.float64))
    assert torch.equal(t, rng.fold(Stream.TIME).uniform(dtype=torch.float32))
    want = Matching()(zero, X1, x0=x0, t=t).rows
    for source in (rng, Rng(7), 7):
        assert torch.equal(Matching()(zero, X1, rng=source).rows, want)
    assert torch.equal(Matching()(zero, X1, rng=7, x0=X0).rows, Matching()(zero, X1, x0=X0, t=t).rows)
    assert torch.equal(Matching()(zero, X1, rng=7, t=T).rows, Matching()(zero, X1, x0=x0, t=T).rows)
    start = Matching(Affine(VarianceExploding())).prior(rng, X1)
    torch.testing.assert_close(start, 50 * x0)


def test_a_source_of_ones_own_stands_at_the_start() -> None:
    class Wide:
        def __call__(self, rng: Rng, like: Tensor) -> Tensor:
            return 10 + rng.normal(*like.shape[1:], dtype=like.dtype)

    objective = Matching(source=Wide())
    rng = Rng(7).rows(torch.arange(3))
    torch.testing.assert_close(objective.draw(rng, X1)[0], 10 + Matching().draw(rng, X1)[0])
    assert objective.dynamics(zero).independent is False


def test_a_coupling_joins_noise_and_data() -> None:
    order = torch.tensor([2, 0, 1])
    far = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)

    class Shifted:
        def __call__(self, rng: Rng, like: Tensor) -> Tensor:
            return far[order] + 1

    joined = Matching(coupling=BatchOT(), source=Shifted())
    torch.testing.assert_close(joined(zero, far, rng=1, t=T).rows, torch.ones(3, dtype=torch.float64))
    # What is given is joined already.
    apart = Matching()(zero, far, x0=far[order] + 1, t=T).rows
    torch.testing.assert_close(joined(zero, far, x0=far[order] + 1, t=T).rows, apart)
    assert bool((apart > 2).all())


def test_a_condition_follows_its_datum() -> None:
    class Turned:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Pairs[Tensor]:
            i, j = torch.arange(3), torch.tensor([2, 0, 1])
            return Pairs(x0, x1[j], i, j)

    seen = []

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        seen.append(cond.tolist())
        return x

    Matching(coupling=Turned())(network, X1, torch.tensor([5, 6, 7]), 1)
    assert seen == [[7, 5, 6]]


def test_a_coupling_has_a_stream_of_its_own() -> None:
    seen = []

    class Spy:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Any:
            seen.append(None if rng is None else rng.key.tolist())
            return Independent()(x0, x1)

    Matching(coupling=Spy())(zero, X1, rng=7)
    Matching(coupling=Spy())(zero, X1, rng=7, x0=X0, t=T)
    assert seen == [Rng(7).fold(Stream.COUPLING).key.tolist()]


MIX = GaussianMixture(
    torch.tensor([1.0, 2.0], dtype=torch.float64),
    torch.tensor([[1.0, -0.5], [-1.0, 0.3]], dtype=torch.float64),
    torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.4]]], dtype=torch.float64),
)


@pytest.mark.parametrize("predict", QUANTITIES)
@pytest.mark.parametrize("path", [Affine(Linear()), Affine(Cosine())])
def test_the_minimiser_is_the_exact_field(predict: Quantity, path: Affine) -> None:
    """The derivative of the expected loss, in any direction, is 0 at the field of the mixture and not beside it."""
    count = 4000
    x1 = MIX.sample(count, 1)
    x0 = Rng(2).rows(torch.arange(count)).normal(2, dtype=torch.float64)
    t = 0.1 + 0.8 * Rng(3).rows(torch.arange(count)).uniform(dtype=torch.float64)
    score, objective = MIX.score(path), Matching(path, predict=predict)

    def exact(x: Tensor, t: Tensor) -> Tensor:
        return path.convert(score(x, t), x, t, given="score", want=predict)

    def significance(direction: Callable[[Tensor, Tensor], Tensor], scale: float) -> float:
        """The derivative of the loss at ``scale`` times the exact field, in its standard errors."""

        def rows(step: Tensor) -> Tensor:
            return objective(lambda x, t: scale * exact(x, t) + step * direction(x, t), x1, x0=x0, t=t).rows

        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        slope = torch.func.jvp(rows, (zero,), (one,))[1]
        return float(slope.mean() / (slope.std() / count**0.5))

    directions: list[Callable[[Tensor, Tensor], Tensor]] = [
        exact,
        lambda x, t: torch.ones_like(x),
        lambda x, t: x,
        lambda x, t: torch.sin(2 * x.flip(1)),
        lambda x, t: (t[:, None] - 0.5) * x.square(),
    ]
    assert max(abs(significance(direction, 1.0)) for direction in directions) < 4
    assert significance(exact, 0.7) < -6
    assert significance(exact, 1.3) > 6


@pytest.mark.parametrize("predict", QUANTITIES)
def test_the_dynamics_is_the_flow_that_the_network_stands_for(predict: Quantity) -> None:
    path = Affine(Cosine())
    score = MIX.score(path)

    def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return path.convert(score(x, t), x, t, given="score", want=predict)

    flow = Matching(path, predict=predict).dynamics(network)
    t = torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(flow.rate(X0, t), MIX.velocity(path)(X0, t), rtol=1e-10, atol=1e-10)
    assert flow.independent
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    known = flow.determined(ends)
    if predict == "velocity":
        assert known is None
        assert flow.velocity is network
    else:
        assert known is not None
        assert known.tolist() == path.determined(ends, predict).tolist()
    if predict != "score":
        assert not Matching(path, BatchOT(), predict).dynamics(network).independent


def test_defaults() -> None:
    plain = Matching()
    assert plain.path == Affine(Linear())
    assert plain.coupling == Independent()
    assert plain.predict == "velocity"
    assert plain.weight is None
    assert plain.times == Uniform()
    assert plain.loss == Squared()
    assert plain.source == Normal()
    assert plain.learned == {}


def test_what_cannot_be_predicted_is_refused() -> None:
    with pytest.raises(InputError, match=r"'nois' cannot be predicted; did you mean 'noise'\?"):
        Matching(predict="nois")  # pyright: ignore[reportArgumentType]
    for schedule in (VariancePreserving(), Polynomial(0.5)):
        with pytest.raises(InputError, match="infinite at an end, so no network can predict it"):
            Matching(Affine(schedule))
        assert Matching(Affine(schedule), predict="data").predict == "data"
    with pytest.raises(UndeterminedError, match="a score exists only for noise independent of the data"):
        Matching(coupling=BatchOT(), predict="score")
    assert Matching(coupling=BatchOT(), predict="noise").predict == "noise"


def test_what_is_missing_or_of_another_shape_is_refused() -> None:
    for given in ({}, {"x0": X0}, {"t": T}):
        with pytest.raises(InputError, match="give an rng"):
            Matching()(zero, X1, **given)
    for t in (torch.tensor(0.5), torch.full((2,), 0.5), torch.full((3, 2), 0.5)):
        with pytest.raises(ShapeError, match=r"training times are one a row, \(3,\), got") as caught:
            Matching()(zero, X1, x0=X0, t=t)
        assert str(tuple(t.shape)) in str(caught.value)
    with pytest.raises(ShapeError, match=r"must return the state's shape \(3, 2\), got \(3, 1\)"):
        Matching()(lambda x, t: x[:, :1], X1, x0=X0, t=T)
    with pytest.raises(ShapeError, match="noise and data must have one shape"):
        Matching()(zero, X1, x0=X0[:, :1], t=T)
    with pytest.raises(ShapeError, match="the batch has 3 rows, the Rng has 2 keys"):
        Matching()(zero, X1, rng=Rng(1).rows(torch.arange(2)))
