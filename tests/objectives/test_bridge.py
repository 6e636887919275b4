"""The Schroedinger bridge: its minimiser, and the processes it stands for, against the closed form of normal ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import nn, testing
from rheos.core import Coupling, InputError, Loss, Model, Rng, ShapeError, Stream, integrate
from rheos.couplings import BatchOT, Independent
from rheos.data import Shuffled, Tensors
from rheos.dynamics import Flow
from rheos.dynamics.drift import ScoredDiffusion
from rheos.objectives import Normal, PseudoHuber, Squared
from rheos.objectives.bridge import SchroedingerBridge, Twin
from rheos.objectives.times import LogitNormal, Uniform
from rheos.paths.bridge import Told
from rheos.solvers import Dopri5, Euler, Heun
from rheos.training import Training, fit

F64 = torch.float64
T = torch.tensor([0.1, 0.4, 0.7], dtype=F64)
X0, X1 = Rng(1).normal(3, 2, dtype=F64), Rng(2).normal(3, 2, dtype=F64)
SIGMA = 0.8
MEANS = torch.tensor([[1.0, -0.5], [-0.6, 1.5]], dtype=F64)
STARTS = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=F64)
ENDS = torch.tensor([[0.5, -0.3], [-0.3, 1.2]], dtype=F64)


def root(matrix: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    return axes @ torch.diag(values.sqrt()) @ axes.T


def entropic_cross_covariance() -> Tensor:
    """Cov(x0, x1) under the entropic plan between the two normal laws (Bunne et al. 2023)."""
    half, eye = root(STARTS), torch.eye(2, dtype=F64)
    d = root(4 * half @ ENDS @ half + SIGMA**4 * eye)
    return (half @ d @ torch.linalg.inv(half) - SIGMA**2 * eye) / 2


CROSS = entropic_cross_covariance()
JOINT = torch.cat([torch.cat([STARTS, CROSS], 1), torch.cat([CROSS.T, ENDS], 1)])


def moments(t: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the bridge at a time."""
    mixed = t * (1 - t) * (CROSS + CROSS.T + SIGMA**2 * torch.eye(2, dtype=F64))
    return (1 - t) * MEANS[0] + t * MEANS[1], (1 - t) ** 2 * STARTS + t**2 * ENDS + mixed


def exact(told: Told) -> Model:
    """The network that gives the closed form: all is linear in x."""

    def network(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        time = t.expand(len(x))[:, None, None]
        covariance = (1 - time) ** 2 * STARTS + time**2 * ENDS
        covariance = covariance + time * (1 - time) * (CROSS + CROSS.T + SIGMA**2 * torch.eye(2, dtype=F64))
        offset = x[:, :, None] - (MEANS[0] + time * (MEANS[1] - MEANS[0])[:, None].T).transpose(1, 2)
        score = -torch.linalg.solve(covariance, offset)
        with_x = (1 - time) * (CROSS.T - STARTS) + time * (ENDS - CROSS)
        displacement = (MEANS[1] - MEANS[0])[:, None] - with_x @ score
        scale = SIGMA * torch.sqrt(time * (1 - time))
        return torch.cat([displacement, -scale * score if told == "noise" else score], 1)[..., 0]

    return network


def ends(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs from the entropic plan."""
    z = Rng(seed).rows(torch.arange(count)).normal(4, dtype=F64) @ torch.linalg.cholesky(JOINT).T
    return z[:, :2] + MEANS[0], z[:, 2:] + MEANS[1]


def zero(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return torch.zeros(len(x), 2 * x.shape[1], *x.shape[2:], dtype=x.dtype)


@dataclass(frozen=True)
class Doubled:
    """The objective, for a kit whose network gives the state's shape: that is told twice."""

    inner: SchroedingerBridge

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def coupling(self) -> Coupling[Tensor]:
        return self.inner.coupling

    def __call__(self, model: Model, *args: Any, **given: Any) -> Loss:
        return self.inner(self._twice(model), *args, **given)

    def dynamics(self, network: Model) -> Flow:
        return self.inner.dynamics(self._twice(network))

    def _twice(self, model: Model) -> Model:
        return lambda *args: torch.cat([model(*args), 2 * model(*args)], 1)


@pytest.mark.parametrize(
    "objective",
    [
        SchroedingerBridge(0.5, Independent()),
        SchroedingerBridge(2.0, Independent(), LogitNormal(), "noise", PseudoHuber()),
    ],
)
def test_objectives_keep_the_laws(objective: SchroedingerBridge) -> None:
    testing.check_objective(Doubled(objective))  # pyright: ignore[reportArgumentType]
    testing.check_objective(Doubled(objective), Rng(5).normal(4, 2, 3, dtype=F64))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("told", ["score", "noise"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_it_stands_for_keeps_the_laws_of_a_dynamics(told: Told, dtype: torch.dtype) -> None:
    objective = SchroedingerBridge(0.5, Independent(), told=told)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([torch.tanh(x), x.flip(1)], 1)

    x = Rng(3).normal(5, 2, dtype=dtype)
    for times in ((0.3, 0.45), (0.45, 0.3)):
        testing.check_dynamics(objective.dynamics(network), x, times=times)
        testing.check_dynamics(objective.diffusion(network), x, times=times)
        testing.check_dynamics(objective.diffusion(network, lambda t: 1 + t), x, times=times)


def test_the_closed_form_is_the_entropic_plan() -> None:
    """The plan has density ``f(x0)*g(x1)*exp(x0.x1/sigma**2)``, so its precision off the diagonal is -1/sigma**2."""
    precision = torch.linalg.inv(JOINT)[:2, 2:]
    torch.testing.assert_close(precision, -torch.eye(2, dtype=F64) / SIGMA**2, rtol=0, atol=1e-12)


def test_epsilon_is_twice_the_square_of_sigma() -> None:
    """Sinkhorn's plan of the squared distance with epsilon 2*sigma**2, on a grid in one dimension."""
    ot = pytest.importorskip("ot")
    start, end, sigma = 1.0, 0.5, 0.6
    grid = torch.linspace(-5, 5, 201, dtype=F64)
    laws = [torch.exp(-(grid**2) / (2 * v)) for v in (start, end)]
    weights = [(law / law.sum()).numpy() for law in laws]
    cost = (grid[:, None] - grid).square().numpy()
    plan = torch.from_numpy(ot.sinkhorn(*weights, cost, 2 * sigma**2, numItermax=2000, stopThr=1e-12))
    cross = (math.sqrt(4 * start * end + sigma**4) - sigma**2) / 2
    assert float(grid @ plan @ grid) == pytest.approx(cross, rel=1e-3)


@pytest.mark.parametrize("told", ["score", "noise"])
def test_the_minimiser_is_the_closed_form(told: Told) -> None:
    """The derivative of the expected loss, in any direction of either half, is 0 at the closed form, not beside it."""
    count = 4000
    objective, network = SchroedingerBridge(SIGMA, Independent(), told=told), exact(told)
    x0, x1 = ends(count, 2)
    t = 0.05 + 0.9 * Rng(3).rows(torch.arange(count)).uniform(dtype=F64)

    def significance(direction: Callable[[Tensor, Tensor], Tensor], half: int, scale: float = 1.0) -> float:
        """The derivative of the loss at ``scale`` times the closed form, in its standard errors."""

        def rows(step: Tensor) -> Tensor:
            def model(x: Tensor, t: Tensor) -> Tensor:
                parts = list(network(x, t).chunk(2, 1))
                parts[half] = scale * parts[half] + step * direction(x, t)
                return torch.cat(parts, 1)

            return objective(model, x1, rng=Rng(7), x0=x0, t=t).rows

        zero, one = torch.zeros((), dtype=F64), torch.ones((), dtype=F64)
        slope = torch.func.jvp(rows, (zero,), (one,))[1]
        return float(slope.mean() / (slope.std() / count**0.5))

    directions: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, t: torch.ones_like(x),
        lambda x, t: x,
        lambda x, t: torch.sin(2 * x.flip(1)),
        lambda x, t: (t[:, None] - 0.5) * x.square(),
    ]
    for half in (0, 1):
        assert max(abs(significance(direction, half)) for direction in directions) < 4

        def own(x: Tensor, t: Tensor, half: int = half) -> Tensor:
            return network(x, t).chunk(2, 1)[half]

        assert abs(significance(own, half)) < 4
        assert significance(own, half, 0.7) < -6
        assert significance(own, half, 1.3) > 6


def agrees(x: Tensor, time: float, slack: float = 0.01) -> None:
    """Within four standard errors, and ``slack`` for the length of the steps."""
    mean, covariance = moments(time)
    variance = covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() < 4 * (variance / len(x)).sqrt() + slack).all())
    limit = 4 * ((variance[:, None] * variance + covariance**2) / len(x)).sqrt() + slack
    assert bool(((x.T.cov() - covariance).abs() < limit).all())


@pytest.mark.parametrize("told", ["score", "noise"])
@pytest.mark.parametrize("backward", [False, True])
def test_the_flow_has_the_marginals_of_the_bridge(told: Told, backward: bool) -> None:
    flow = SchroedingerBridge(SIGMA, Independent(), told=told).dynamics(exact(told))
    assert isinstance(flow, Flow)
    assert not flow.independent
    start, end = (1.0, 0.0) if backward else (0.0, 1.0)
    # Points whose mean and covariance are those of the start exactly; a linear flow keeps them exact.
    points = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=F64)
    mean, covariance = moments(start)
    x = mean + points @ torch.linalg.cholesky(covariance).T
    clock = torch.linspace(start, end, 6, dtype=F64)
    grid = (1 - torch.cos(math.pi * torch.linspace(start, end, 201, dtype=F64))) / 2 if told == "noise" else clock
    solver = Heun() if told == "noise" else Dopri5(1e-8, 1e-8)
    states = integrate(solver, flow, x, grid, trajectory=True).trajectory
    assert states is not None
    for time, state in zip(grid.tolist(), states, strict=True):
        mean, covariance = moments(time)
        tolerance = 2e-5 if told == "noise" else 1e-6
        torch.testing.assert_close(state.mean(0), mean, rtol=0, atol=tolerance)
        torch.testing.assert_close(state.T.cov(correction=0), covariance, rtol=0, atol=tolerance)


@pytest.mark.parametrize("told", ["score", "noise"])
@pytest.mark.parametrize("backward", [False, True])
def test_the_diffusion_is_the_bridge(told: Told, backward: bool) -> None:
    """Its marginals, and the joint law of both ends, which is the entropic plan."""
    count = 10_000
    process = SchroedingerBridge(SIGMA, Independent(), told=told).diffusion(exact(told))
    assert isinstance(process, ScoredDiffusion)
    start, end = ends(count, 4)
    grid = torch.linspace(0, 1, 41, dtype=F64)
    first, grid = (end, grid.flip(0)) if backward else (start, grid)
    states = integrate(Heun(), process, first, grid, rng=5, trajectory=True).trajectory
    assert states is not None
    for k in (10, 20, 30, 40):
        agrees(states[k], float(grid[k]), 0.02)
    one, two = (states[-1], states[0]) if backward else (states[0], states[-1])
    cross = (one - one.mean(0)).T @ (two - two.mean(0)) / count
    torch.testing.assert_close(cross, CROSS, rtol=0, atol=0.04)


def test_another_coefficient_keeps_the_marginals_and_not_the_plan() -> None:
    objective, count = SchroedingerBridge(SIGMA, Independent()), 10_000
    start, _ = ends(count, 4)
    process = objective.diffusion(exact("score"), lambda t: 2 + 0 * t)
    x = integrate(Heun(), process, start, torch.linspace(0, 1, 41, dtype=F64), rng=5).x
    agrees(x, 1.0, 0.03)
    cross = (start - start.mean(0)).T @ (x - x.mean(0)) / count
    assert float((cross - CROSS).abs().max()) > 0.3


def test_the_network_is_shown_the_bridge_and_asked_for_both_halves() -> None:
    seen = []

    def model(x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        seen.append((x, t, cond))
        return torch.cat([3 * torch.ones_like(x), 2 * torch.ones_like(x)], 1)

    label, rng = torch.tensor([0, 1, 2]), Rng(7).rows(torch.arange(3))
    z = rng.fold(Stream.PATH).normal(2, dtype=F64)
    scale, time = SIGMA * torch.sqrt(T * (1 - T))[:, None], T[:, None]
    for told, second in (("score", 2 * scale + z), ("noise", 2 - z)):
        objective = SchroedingerBridge(SIGMA, Independent(), told=told)
        loss = objective(model, X1, label, rng, x0=X0, t=T)
        torch.testing.assert_close(loss.parts["displacement"], (3 - (X1 - X0)).square().mean(1))
        torch.testing.assert_close(loss.parts["score"], SIGMA**2 * second.square().mean(1))
        torch.testing.assert_close(loss.rows, loss.parts["displacement"] + loss.parts["score"])
        assert torch.equal(objective(model, X1, rng=7, x0=X0, t=T).rows, loss.rows)
    x, t, cond = seen[0]
    torch.testing.assert_close(x, (1 - time) * X0 + time * X1 + scale * z)
    assert t is T
    assert cond == (label,)
    assert seen[1][2] == ()


def test_the_unit_of_the_data_does_not_matter() -> None:
    def give(unit: float) -> Tensor:
        def model(x: Tensor, t: Tensor) -> Tensor:
            return torch.cat([x, 0.3 * x / unit**2], 1)

        return SchroedingerBridge(unit * SIGMA, Independent())(model, unit * X1, rng=7, x0=unit * X0, t=T).rows

    torch.testing.assert_close(give(10.0), 100 * give(1.0))


def test_noise_and_times_are_drawn_from_streams_of_their_own() -> None:
    objective, rng = SchroedingerBridge(SIGMA, Independent()), Rng(7).rows(torch.arange(3))
    x0, t = objective.draw(rng, X1)
    assert torch.equal(x0, rng.fold(Stream.SOURCE).normal(2, dtype=F64))
    assert torch.equal(t, rng.fold(Stream.TIME).uniform(dtype=torch.float32))
    assert torch.equal(objective.prior(rng, X1), x0)
    want = objective(zero, X1, rng=rng, x0=x0, t=t).rows
    assert torch.equal(objective(zero, X1, rng=7).rows, want)
    assert torch.equal(objective(zero, X1, rng=7, x0=x0).rows, want)
    assert torch.equal(objective(zero, X1, rng=7, t=t).rows, want)


def test_a_coupling_joins_what_was_drawn_and_nothing_that_was_given() -> None:
    seen, conds = [], []

    class Turned:
        independent = False

        def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Rng | None = None) -> Any:
            seen.append(None if rng is None else rng.key.tolist())
            j = torch.tensor([1, 2, 0])
            return Independent()(x0, x1)._replace(x1=x1[j], j=j)

    def model(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        conds.append(cond)
        return zero(x, t)

    label = torch.tensor([5, 6, 7])
    joined = SchroedingerBridge(SIGMA, Turned())
    drawn = joined(model, X1, label, Rng(7), t=T).rows
    assert seen == [Rng(7).fold(Stream.COUPLING).key.tolist()]
    assert conds[-1].tolist() == [6, 7, 5]
    x0, _ = joined.draw(Rng(7).per_row(3), X1)
    assert torch.equal(drawn, joined(model, X1.roll(-1, 0), label, Rng(7), x0=x0, t=T).rows)
    assert conds[-1] is label
    assert len(seen) == 1
    # Far clusters: transport within the batch leaves each start in its own.
    far = torch.tensor([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0]], dtype=F64)

    class Shuffle:
        def __call__(self, rng: Rng, like: Tensor) -> Tensor:
            return far[[2, 0, 1]]

    loss = SchroedingerBridge(0.1, BatchOT(), source=Shuffle())(zero, far, rng=7)
    torch.testing.assert_close(loss.parts["displacement"], torch.zeros(3, dtype=F64))


def test_twins_and_a_unet_with_twice_the_channels_fit() -> None:
    with nn.seeded(0):
        twin = Twin(nn.MLP(2, 8, 1, classes=3), nn.MLP(2, 8, 1, classes=3)).double()
        unet = nn.UNet(1, 8, (1,), 1, out_channels=2)
        torch.nn.init.ones_(twin.get_submodule("score").get_parameter("leave.bias"))
    t, label = torch.full((3,), 0.5, dtype=F64), torch.tensor([0, 1, 2])
    assert torch.equal(twin(X0, t, label), torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=F64).expand(3, 4))
    assert SchroedingerBridge(SIGMA, Independent())(twin, X1, label, 7).rows.shape == (3,)
    images = Rng(1).normal(2, 1, 4, 4)
    objective = SchroedingerBridge(SIGMA, Independent())
    assert objective(unet, images, rng=7).rows.shape == (2,)
    process = objective.diffusion(unet)
    with torch.no_grad():
        drawn = integrate(Euler(), process, images, torch.linspace(0, 1, 3), rng=1).x
    assert drawn.shape == images.shape


def test_it_trains(tmp_path: Path) -> None:
    with nn.seeded(0):
        twin = Twin(nn.MLP(2, 8, 1), nn.MLP(2, 8, 1))
    settings = Training(steps=3, batch=8, log_every=1, sample_every=0, checkpoint_every=3, snapshots=0)
    objective = SchroedingerBridge(SIGMA, BatchOT())
    data = Tensors(Rng(1).normal(16, 2))
    done = fit(twin, objective, data, Shuffled(16), settings, seed=0, out=tmp_path, progress=False, forecast=False)
    assert done.step == 3
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert "displacement" in lines
    assert "score" in lines


def test_defaults() -> None:
    plain = SchroedingerBridge(0.5, Independent())
    assert plain.path.sigma == 0.5
    assert plain.times == Uniform()
    assert plain.told == "score"
    assert plain.loss == Squared()
    assert plain.source == Normal()
    assert plain.learned == {}
    ends = torch.tensor([0.0, 0.5, 1.0])
    for name, known in (("score", None), ("noise", [False, True, False])):
        objective = SchroedingerBridge(0.5, Independent(), told=name)  # pyright: ignore[reportArgumentType]
        for dynamics in (objective.dynamics(zero), objective.diffusion(zero)):
            found = dynamics.determined(ends)
            assert (None if found is None else found.tolist()) == known
    assert plain.diffusion(zero).diffusion(ends).tolist() == [0.5, 0.5, 0.5]


def test_what_is_missing_or_of_another_shape_is_refused() -> None:
    objective = SchroedingerBridge(SIGMA, Independent())
    with pytest.raises(InputError, match="a bridge is random: give an rng"):
        objective(zero, X1, x0=X0, t=T)
    with pytest.raises(InputError, match="a diffusion needs randomness: give integrate an rng"):
        integrate(Euler(), objective.diffusion(zero), X0, torch.tensor([0.0, 1.0], dtype=F64))
    with pytest.raises(InputError, match="sigma of a bridge must be positive"):
        SchroedingerBridge(0.0, Independent())
    with pytest.raises(InputError, match="a score is not told as 'data'"):
        SchroedingerBridge(1.0, Independent(), told="data")  # pyright: ignore[reportArgumentType]
    for t in (torch.tensor(0.5), torch.full((2,), 0.5), torch.full((3, 2), 0.5)):
        with pytest.raises(ShapeError, match=r"training times are one a row, \(3,\), got"):
            objective(zero, X1, rng=7, x0=X0, t=t)
    with pytest.raises(ShapeError, match=r"each of the state's shape \(3, 2\), got halves of shape \(3, 1\)"):
        objective(lambda x, t: x, X1, rng=7)
    with pytest.raises(ShapeError, match="side by side along axis 1"):
        objective(lambda x, t: x[:, :1], X1, rng=7)
    with pytest.raises(ShapeError, match="the ends of a bridge must have one shape"):
        objective(zero, X1, rng=7, x0=X0[:, :1], t=T)
