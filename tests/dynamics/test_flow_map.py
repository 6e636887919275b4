"""A flow map: exact in one step and in many, there and back; and restarts, which keep the marginals."""

from __future__ import annotations

import math

import pytest
import torch
from tests.support.normal_map import NormalMap
from torch import Tensor

from rheos import testing
from rheos.core import InputError, Rng, UndeterminedError, integrate
from rheos.dynamics import AncestralNoise, DiffusionNoise, Flow, FlowMap, Restarted, RestartNoise
from rheos.guidance import Autoguidance, ClassifierFree, Interval
from rheos.nn import MLP, seeded
from rheos.paths import Affine
from rheos.schedules import Cosine
from rheos.solvers import RK4, AdamsBashforth, Dopri5, DPMSolver, Euler, Heun, Stork, TeaCache, UniPC
from rheos.solvers.grids import Uniform

F64 = torch.float64
EXACT = NormalMap()
X = Rng(1).normal(6, 2, dtype=F64)


def bowed(x: Tensor, t: Tensor, cond: object = None, s: Tensor | None = None) -> Tensor:
    end = t if s is None else s
    return torch.tanh(x) * (1 + (end - t).reshape(-1, 1)) if t.dim() else torch.tanh(x) * (1 + end - t)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_it_keeps_the_laws_of_a_dynamics(dtype: torch.dtype) -> None:
    testing.check_dynamics(FlowMap(bowed), X.to(dtype))
    testing.check_dynamics(Restarted(FlowMap(bowed), Affine(Cosine()), 0.6), X.to(dtype))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_known_map_is_exact_in_any_number_of_steps(steps: int) -> None:
    zero, one = torch.zeros((), dtype=F64), torch.ones((), dtype=F64)
    grid = Uniform()(steps, F64)
    there = integrate(Euler(), FlowMap(EXACT), X, grid)
    torch.testing.assert_close(there.x, EXACT.carried(X, zero, one), rtol=1e-12, atol=1e-12)
    assert there.evaluations == there.passes == steps
    back = integrate(Euler(), FlowMap(EXACT), there.x, grid.flip(0))
    torch.testing.assert_close(back.x, X, rtol=1e-12, atol=1e-12)


def test_its_flow_is_the_velocity_on_the_diagonal() -> None:
    velocity = FlowMap(EXACT, independent=False).flow
    assert velocity == Flow(EXACT, independent=False)
    found = integrate(RK4(), velocity, X, Uniform()(64, F64)).x
    torch.testing.assert_close(found, EXACT.carried(X, *torch.tensor([0.0, 1.0], dtype=F64)), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "solver",
    [Heun(), RK4(), Dopri5(), AdamsBashforth(2), UniPC(Affine()), DPMSolver(Affine()), Stork(2, 2), TeaCache()],
    ids=lambda solver: type(solver).__name__,
)
@pytest.mark.parametrize("dynamics", [FlowMap(EXACT), Restarted(FlowMap(EXACT), Affine())], ids=["map", "restarted"])
def test_solvers_that_combine_rates_refuse_it(solver: object, dynamics: object) -> None:
    with pytest.raises(InputError, match=r"Euler\(\)"):
        integrate(solver, dynamics, X, Uniform()(4, F64), rng=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_restarts_keep_the_marginals(share: float) -> None:
    count, grid = 60_000, Uniform()(3, F64)
    start = Rng(2).rows(torch.arange(count)).normal(1, dtype=F64)
    found = integrate(Euler(), Restarted(FlowMap(EXACT), Affine(), share), start, grid, rng=5, trajectory=True)
    assert found.trajectory is not None
    for t, states in zip(grid, found.trajectory, strict=True):
        spread = float(EXACT.spread(t))
        assert abs(float(states.mean()) - float(t) * EXACT.mean) < 5 * spread / math.sqrt(count)
        assert abs(float(states.std()) / spread - 1) < 5 / math.sqrt(2 * count)


def test_a_restart_forgets_as_much_as_its_share_says() -> None:
    """What is left of a start at t = 1/2, by its correlation: fresh noise has the share of sigma there, and all else
    follows from the start."""
    count, grid = 60_000, torch.tensor([0.0, 0.5], dtype=F64)
    start = Rng(2).rows(torch.arange(count)).normal(1, dtype=F64)
    for share in (0.0, 0.5, 1.0):
        x = integrate(Euler(), Restarted(FlowMap(EXACT), Affine(), share), start, grid, rng=5).x
        kept = float(torch.corrcoef(torch.stack([x.flatten(), start.flatten()]))[0, 1])
        assert kept == pytest.approx(math.sqrt(1 - (share * 0.5 / float(EXACT.spread(grid[1]))) ** 2), abs=0.01)


def test_restarts_draw_noise_a_key_a_row_and_none_at_the_data() -> None:
    dynamics, grid = Restarted(FlowMap(EXACT), Affine()), Uniform()(2, F64)
    with pytest.raises(InputError, match="rng"):
        integrate(Euler(), dynamics, X, grid)
    whole = integrate(Euler(), dynamics, X, grid, rng=3).x
    keys = Rng(3).rows(torch.arange(6))
    assert torch.equal(integrate(Euler(), dynamics, X[2:4], grid, rng=Rng(keys.key[2:4])).x, whole[2:4])
    one = integrate(Euler(), dynamics, X, Uniform()(1, F64), rng=3).x
    torch.testing.assert_close(one, EXACT.carried(X, *torch.tensor([0.0, 1.0], dtype=F64)), rtol=1e-12, atol=1e-12)


def test_towards_noise_restarts_add_none() -> None:
    grid = torch.tensor([0.9, 0.2], dtype=F64)
    found = integrate(Euler(), Restarted(FlowMap(EXACT), Affine()), X, grid, rng=1).x
    torch.testing.assert_close(found, EXACT.carried(X, *grid), rtol=1e-12, atol=1e-12)


def test_restarts_are_refused_where_they_are_wrong() -> None:
    with pytest.raises(UndeterminedError, match="coupled"):
        Restarted(FlowMap(EXACT, independent=False), Affine())
    with pytest.raises(InputError, match=r"between 0 and 1, got 1\.5"):
        Restarted(FlowMap(EXACT), Affine(), 1.5)
    with pytest.raises(InputError, match="got a Flow"):
        RestartNoise()(Flow(EXACT), Affine())
    assert RestartNoise(0.5)(FlowMap(EXACT), Affine()) == Restarted(FlowMap(EXACT), Affine(), 0.5)


def test_other_noise_is_added_to_the_flow_of_a_map() -> None:
    assert AncestralNoise()(FlowMap(EXACT), Affine()).flow == Flow(EXACT)
    assert DiffusionNoise()(FlowMap(EXACT), Affine()).flow == Flow(EXACT)


@pytest.mark.parametrize("guidance", [ClassifierFree(2.0), Interval(ClassifierFree(2.0), 0.0, 1.0)], ids=repr)
def test_guidance_contrasts_the_maps_of_the_same_step(guidance: ClassifierFree) -> None:
    def labelled(x: Tensor, t: Tensor, cond: Tensor | None = None, s: Tensor | None = None) -> Tensor:
        assert cond is not None
        assert s is not None
        return x * (cond + 2).to(x.dtype)[:, None] * (s - t)

    t, s = torch.tensor(0.25, dtype=F64), torch.tensor(0.75, dtype=F64)
    label = torch.arange(6)
    guided = FlowMap(guidance(labelled)).over(lambda model: lambda x, t, **end: model(x, t, label, **end))
    # 2*(label + 2) - 1*(-1 + 2)
    torch.testing.assert_close(guided.rate(X, t, s), 0.5 * X * (2 * (label + 2) - 1).to(F64)[:, None])


def test_a_weaker_map_guides_a_map() -> None:
    weak, t, s = NormalMap(0.2, 1.0), torch.tensor(0.1, dtype=F64), torch.tensor(0.6, dtype=F64)
    found = FlowMap(Autoguidance(weak, 3.0)(EXACT)).rate(X, t, s)
    torch.testing.assert_close(found, 3 * EXACT(X, t, None, s) - 2 * weak(X, t, None, s))


def test_a_condition_and_a_count_reach_the_network() -> None:
    with seeded(0):
        network = MLP(2, 8, 1, classes=3, two_times=True)
    found = integrate(Euler(), FlowMap(ClassifierFree(2.0)(network)), X.float(), Uniform()(3), torch.arange(6) % 3)
    assert (found.evaluations, found.passes) == (3, 6)
