"""Flow maps by regression: no loss at the truth and a gradient towards it, for every identity; what rows are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.support.normal_map import NormalMap, bent
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.couplings import BatchOT
from rheos.dynamics import FlowMap
from rheos.nn import UNet, seeded
from rheos.objectives import (
    Compositional,
    Consistency,
    Eulerian,
    FlowMapMatching,
    Identity,
    Lagrangian,
    consistency,
    consistency_flow_matching,
    continuous_consistency,
    improved_mean_flow,
    lagrangian,
    mean_flow,
    shortcut,
)
from rheos.objectives.derivative import derivative
from rheos.objectives.identities import Known, Map
from rheos.objectives.times import Uniform
from rheos.paths import Affine
from rheos.schedules import Cosine, VariancePreserving

F64 = torch.float64
EXACT = NormalMap()
IDENTITIES: list[Identity] = [Eulerian(), Eulerian(improved=True), Lagrangian(), Compositional()]
X1 = EXACT.mean + EXACT.std * Rng(3).normal(64, 2, dtype=F64)
X0 = Rng(4).normal(64, 2, dtype=F64)
T = Rng(5).uniform(64, dtype=F64)


def teacher(x: Tensor, t: Tensor, cond: object = None) -> Tensor:
    return EXACT(x, t)


def row_losses(objective: FlowMapMatching, model: Any, state: Any = None) -> Tensor:
    return objective(model, X1, None, 7, x0=X0, t=T, state=state).rows


@pytest.mark.parametrize(
    "make", [mean_flow, improved_mean_flow, lagrangian, shortcut, consistency, consistency_flow_matching]
)
def test_objectives_keep_the_laws(make: Callable[..., FlowMapMatching]) -> None:
    testing.check_objective(make())
    testing.check_objective(make(how="difference", power=1.0, backward=0.5, ramp=5), X1[:6].reshape(6, 2, 1))
    testing.check_objective(make(coupling=BatchOT(), diagonal=0.0))


@pytest.mark.parametrize("backward", [0.0, 1.0])
@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
def test_the_truth_has_no_loss(identity: Identity, backward: float) -> None:
    objective = FlowMapMatching(identity, teacher=teacher, diagonal=0.2, backward=backward)
    rows = row_losses(objective, EXACT)
    assert float(rows.max()) < 1e-20
    wrong = row_losses(objective, NormalMap(EXACT.mean + 0.01, EXACT.std))
    # Any map composes with itself: then only the rows on the diagonal tell.
    assert float((wrong > 1e-6).float().mean()) > (0.1 if isinstance(identity, Compositional) else 0.99)


@pytest.mark.parametrize("how", ["exact", "difference"])
@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
@pytest.mark.parametrize("amount", [-0.2, 0.2])
def test_the_gradient_points_to_the_truth(identity: Identity, amount: float, how: Any) -> None:
    error = torch.tensor(amount, dtype=F64, requires_grad=True)
    objective = FlowMapMatching(identity, teacher=teacher, how=how)
    rows = row_losses(objective, bent(error, EXACT), EXACT)
    (gradient,) = torch.autograd.grad(rows.mean(), error)
    assert float(gradient) * amount > 0


@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
def test_data_teach_the_same_as_a_teacher_in_the_mean(identity: Identity) -> None:
    """Without a teacher the velocity is a sample; at the truth the gradient has no mean, and the row's error is the
    sample's own."""
    count = 40_000
    x1 = EXACT.mean + EXACT.std * Rng(8).rows(torch.arange(count)).normal(1, dtype=F64)
    error = torch.zeros((), dtype=F64, requires_grad=True)
    objective = FlowMapMatching(identity, times=Uniform(), diagonal=0.3)
    x0, t = objective.draw(Rng(9).rows(torch.arange(count)), x1)
    loss = objective(bent(error, EXACT), x1, None, 9, x0=x0, t=t.double(), state=EXACT)
    slopes = torch.autograd.grad(loss.rows.mean(), error)[0]
    assert abs(float(slopes)) < 0.02
    shifted = torch.full((), 0.2, dtype=F64, requires_grad=True)
    rows = objective(bent(shifted, EXACT), x1, None, 9, x0=x0, t=t.double(), state=EXACT).rows
    assert float(torch.autograd.grad(rows.mean(), shifted)[0]) > 0.05


@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
def test_a_wrong_sign_of_the_gap_is_no_identity(identity: Identity) -> None:
    """The map of the flow that runs the other way has a loss: the order of the two times tells."""

    def reversed_gap(x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
        return EXACT(x, t, None, t if s is None else 2 * t - s)

    rows = row_losses(FlowMapMatching(identity, teacher=teacher, diagonal=0.0), reversed_gap)
    assert float(rows.median()) > 1e-4


def test_the_average_makes_the_targets() -> None:
    calls = {"own": 0, "average": 0}

    def counting(name: str) -> Any:
        def model(x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
            calls[name] += 1
            return EXACT(x, t, None, s)

        return model

    for identity, asked in ((Lagrangian(), 1), (Compositional(), 2), (Eulerian(), 0)):
        calls |= {"own": 0, "average": 0}
        row_losses(FlowMapMatching(identity), counting("own"), counting("average"))
        assert calls["average"] == asked
        calls |= {"own": 0, "average": 0}
        row_losses(FlowMapMatching(identity, averaged=False), counting("own"), counting("average"))
        assert calls["average"] == 0
    slow = NormalMap(EXACT.mean + 0.3, EXACT.std)
    for identity in (Lagrangian(), Compositional()):
        objective = FlowMapMatching(identity, diagonal=0.0)
        assert float(row_losses(objective, EXACT, EXACT).max()) < 1e-20
        assert float(row_losses(objective, EXACT, slow).min()) > 1e-4


def test_rows_on_the_diagonal_are_rows_of_flow_matching() -> None:
    loss = FlowMapMatching(diagonal=1.0)(EXACT, X1, None, 7, x0=X0, t=T)
    x = T[:, None] * X1 + (1 - T[:, None]) * X0
    want = (EXACT(x, T) - (X1 - X0)).square().mean(1)
    torch.testing.assert_close(loss.rows, want)
    torch.testing.assert_close(loss.parts["diagonal"], want)
    assert not loss.parts["map"].any()


def asked(objective: FlowMapMatching, count: int = 4000) -> tuple[Tensor, Tensor]:
    """Where the steps of many rows start and end."""
    steps = []

    def model(x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled():
            steps.append((t, s))
        return x

    objective(model, torch.zeros(count, 1), None, 3)
    return steps[0]


def test_steps_are_drawn_as_asked() -> None:
    t, s = asked(FlowMapMatching(Compositional(), diagonal=0.25))
    assert float((s == t).float().mean()) == pytest.approx(0.25, abs=0.03)
    off = s != t
    assert bool((s > t)[off].all())
    # The gap of two uniform times is triangular, of mean 1/3.
    assert float((s - t)[off].mean()) == pytest.approx(1 / 3, abs=0.02)
    t, s = asked(FlowMapMatching(Compositional(), diagonal=0.0, backward=0.3))
    assert float((s < t).float().mean()) == pytest.approx(0.3, abs=0.03)
    t, s = asked(FlowMapMatching(Compositional(), diagonal=0.0, times=Uniform(stratified=True)))
    assert float((s - t).mean()) == pytest.approx(1 / 3, abs=0.02)


def test_gaps_grow_with_the_rows_of_training() -> None:
    t, s = asked(FlowMapMatching(Compositional(), diagonal=0.0, ramp=8000))
    gaps = (s - t).reshape(4, -1).mean(1)
    torch.testing.assert_close(gaps, torch.tensor([1.0, 3.0, 5.0, 7.0]) / 48, rtol=0.1, atol=0.0)


def test_the_weight_evens_losses_out() -> None:
    plain, even = (FlowMapMatching(power=p)(bent(torch.tensor(0.3), EXACT), X1, None, 7, x0=X0, t=T) for p in (0, 1))
    torch.testing.assert_close(even.rows, plain.rows / (plain.rows + 1e-3))
    assert torch.equal(even.parts["map"], plain.parts["map"])


@pytest.mark.parametrize("identity", IDENTITIES, ids=repr)
def test_labels_reach_every_evaluation_in_their_rows(identity: Identity) -> None:
    means = torch.tensor([0.5, -1.0], dtype=F64)
    label = torch.arange(64) % 2

    def labelled(x: Tensor, t: Tensor, cond: Tensor, s: Tensor | None = None) -> Tensor:
        both = torch.stack([NormalMap(float(mean), 0.4)(x, t, None, s) for mean in means])
        return both[cond, torch.arange(len(x))]

    objective = FlowMapMatching(identity, teacher=lambda x, t, cond: labelled(x, t, cond), diagonal=0.3)
    assert float(objective(labelled, X1, label, 7, x0=X0, t=T).rows.max()) < 1e-20
    assert float(objective(labelled, X1, 1 - label, 7, x0=X0, t=T).rows.max()) < 1e-20


def test_it_gives_a_map() -> None:
    assert lagrangian().dynamics(EXACT) == FlowMap(EXACT)
    assert lagrangian(coupling=BatchOT()).dynamics(EXACT) == FlowMap(EXACT, independent=False)


def test_presets_are_those_of_the_papers() -> None:
    assert mean_flow() == FlowMapMatching(Eulerian(), diagonal=0.75, averaged=False)
    assert improved_mean_flow().identity == Eulerian(improved=True)
    assert lagrangian(ramp=5) == FlowMapMatching(Lagrangian(), ramp=5)
    assert consistency().identity == Consistency(halved=50_000)
    assert continuous_consistency() == FlowMapMatching(
        Eulerian(evened=0.1, warm=100_000), Affine(Cosine()), diagonal=0.25, averaged=False, segments=1
    )
    assert consistency_flow_matching() == FlowMapMatching(Consistency(1 / 64, straight=1e-4), diagonal=0.25, segments=2)
    assert shortcut(diagonal=0.5) == FlowMapMatching(Compositional(), diagonal=0.5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"diagonal": 1.5}, "diagonal is a share"),
        ({"backward": -0.1}, "backward is a share"),
        ({"ramp": -1}, "ramp is 0 or more"),
        ({"power": -1.0}, "power is 0 or more"),
        ({"segments": -2}, "segments is 0 or more"),
        ({"how": "guess"}, "'guess'"),
        ({"path": Affine(VariancePreserving())}, "infinite at an end"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        FlowMapMatching(**wrong)


def test_a_network_of_another_shape_or_no_rng_is_refused() -> None:
    with pytest.raises(ShapeError, match="state's shape"):
        FlowMapMatching(diagonal=1.0)(lambda x, t, s: x[:, :1], X1, None, 1)
    with pytest.raises(InputError, match="rng"):
        FlowMapMatching()(EXACT, X1, None, None, x0=X0, t=T)


def exact_map(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    return EXACT(x, t, None, s)


def knowing(target: Map = exact_map, seen: int = 0, own: Map = exact_map) -> Known:
    return Known(own, target, lambda x, t: EXACT(x, t), "exact", torch.full((len(X0),), seen))


def test_an_identity_sees_what_it_may_ask() -> None:
    """The improved Eulerian identity follows the network, the plain one the velocity that it is given."""
    x, t, s = X0, T / 2, T / 2 + 0.4
    known = knowing(lambda *_: X0)
    noisy = EXACT(x, t) + 1.0
    exact = EXACT(x, t, None, s)
    torch.testing.assert_close(Eulerian(True)(known, x, t, s, noisy), exact + 1.0, rtol=1e-9, atol=1e-9)
    plain = Eulerian()(known, x, t, s, noisy)
    # The end of a step moves by the map's slope in x where the start is pushed aside.
    slope = (EXACT.spread(s) / EXACT.spread(t))[:, None]
    torch.testing.assert_close(plain, exact + slope, rtol=1e-9, atol=1e-9)


def test_the_end_is_the_same_a_little_later() -> None:
    x, t, s = X0, T / 2, T / 2 + 0.4
    v, want = EXACT(x, t), EXACT(x, t, None, s)
    assert torch.equal(Consistency(1.0)(knowing(), x, t, s, v), v)
    errors = [
        float((Consistency(share, least=1e-4)(knowing(), x, t, s, v) - want).abs().max()) for share in (0.02, 0.01)
    ]
    # A step of Euler's rule errs by the square of its length.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] < 1e-3


@pytest.mark.parametrize(("seen", "share"), [(0, 0.5), (99, 0.5), (100, 0.25), (250, 0.125), (10_000, 1 / 64)])
def test_gaps_are_halved_by_stages(seen: int, share: float) -> None:
    times = []

    def target(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        times.append(t)
        return exact_map(x, t, s)

    t, s = torch.full((64,), 0.2, dtype=F64), torch.ones(64, dtype=F64)
    Consistency(halved=100)(knowing(target, seen), X0, t, s, EXACT(X0, t))
    torch.testing.assert_close(times[0], 0.2 + 0.8 * torch.full((64,), share, dtype=F64))


def test_targets_are_evened_out_and_warmed_up() -> None:
    x, t, s = X0, T / 2, T / 2 + 0.4
    v = EXACT(x, t)

    def own(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return EXACT(x, t, None, s) + 2 * (s - t)[:, None]

    far = Eulerian()(knowing(own=own), x, t, s, v)
    now = own(x, t, s)
    near = Eulerian(evened=0.5)(knowing(own=own), x, t, s, v)
    size = (far - now).square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(near - now, (far - now) / (size + 0.5))
    half = Eulerian(warm=100)(knowing(own=own, seen=49), x, t, s, v)
    torch.testing.assert_close(half - v, (far - v) / 2)
    torch.testing.assert_close(Eulerian(warm=100)(knowing(own=own, seen=500), x, t, s, v), far)


def test_steps_may_all_end_at_the_data() -> None:
    t, s = asked(FlowMapMatching(Compositional(), diagonal=0.25, segments=1))
    assert bool(((s == 1) | (s == t)).all())
    assert float((s == t).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(t.mean()) == pytest.approx(0.5, abs=0.02)


def test_steps_may_end_where_segments_do() -> None:
    t, s = asked(FlowMapMatching(Compositional(), diagonal=0.0, segments=4))
    assert torch.equal(s.unique(), torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=s.dtype))
    assert bool(((s > t) & (s - t <= 0.25)).all())


def test_an_average_velocity_may_be_asked_to_stay_the_same() -> None:
    """The target is where the two squares together are least."""
    x, t, s = X0, T / 2, T / 2 + 0.4
    v, weight = EXACT(x, t) + 1.0, 0.3
    ahead = t + 0.5 * (s - t)
    there = x + (ahead - t)[:, None] * v
    same = exact_map(there, ahead, s)
    end = there + (s - ahead)[:, None] * same
    u = Consistency(straight=weight)(knowing(), x, t, s, v).requires_grad_()
    both = (x + (s - t)[:, None] * u - end).square() + weight * (u - same).square()
    (slope,) = torch.autograd.grad(both.sum(), u)
    assert float(slope.abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (Consistency, {"share": 0.0}),
        (Consistency, {"least": 0.9}),
        (Consistency, {"straight": -1.0}),
        (Eulerian, {"warm": -1}),
        (Eulerian, {"evened": -1}),
    ],
)
def test_settings_of_an_identity_that_make_no_sense_are_refused(make: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"(needed|0 or more), got"):
        make(**wrong)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_exact_derivatives_and_differences_agree(dtype: torch.dtype) -> None:
    t = torch.tensor([0.0, 1e-4, 0.3, 1.0], dtype=dtype)

    def curve(t: Tensor) -> Tensor:
        return torch.stack([(3 * t).sin(), t**2], 1)

    want = torch.stack([3 * (3 * t).cos(), 2 * t], 1)
    torch.testing.assert_close(derivative(curve, t, "exact"), want)
    # One-sided at the ends, and in the middle of second order.
    found = derivative(curve, t, "difference")
    inner = 1e-9 if dtype == F64 else 1e-3
    torch.testing.assert_close(found[2], want[2], rtol=inner, atol=inner)
    ends = 2e-5 if dtype == F64 else 5e-3
    torch.testing.assert_close(found, want, rtol=ends, atol=ends)


def test_a_difference_stays_within_the_times() -> None:
    seen = []

    def curve(t: Tensor) -> Tensor:
        seen.append(t)
        return t[:, None]

    derivative(curve, torch.tensor([0.0, 1.0]), "difference")
    assert float(torch.cat(seen).min()) == 0.0
    assert float(torch.cat(seen).max()) == 1.0


def test_derivatives_are_taken_in_the_type_of_the_state() -> None:
    weight = Rng(1).normal(8, 8)

    def curve(t: Tensor) -> Tensor:
        return (t[:, None] * torch.ones(8)) @ weight

    t = torch.tensor([0.3, 0.6])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for how in ("exact", "difference"):
            found = derivative(curve, t, how)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, weight.sum(0).expand(2, 8), rtol=1e-3, atol=1e-3)


def test_a_layer_without_a_forward_derivative_is_named() -> None:
    with seeded(0):
        network = UNet(1, 8, (1,), 1, two_times=True).to(memory_format=torch.channels_last)
    x, t = Rng(1).normal(2, 1, 4, 4), torch.tensor([0.2, 0.4])
    with pytest.raises(InputError, match='derivative="difference"'):
        derivative(lambda time: network(x, t, s=time), t, "exact")
    assert derivative(lambda time: network(x, t, s=time), t, "difference").shape == x.shape
