"""The values that pass between parts, and what a solver is when it says nothing."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch

from rheos.core import Draw, Loss, Pairs, Quantity, Solver, Step, over
from rheos.core.loop import Conditioned, Counted


class Idle(Solver[Any]):
    def step(self, dynamics: Any, x: Any, t: Any, s: Any, memory: Any = (), rng: Any = None) -> Step[Any]:
        return Step(x, s)


def test_a_solver_is_of_order_one_fixed_and_forgetful_unless_it_says_otherwise() -> None:
    assert Idle().order == 1
    assert Idle().adaptive is False
    assert Idle().start(None, None, None) == ()  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        Solver()  # pyright: ignore[reportAbstractUsage]


def test_defaults_of_the_values() -> None:
    zero = torch.zeros(())
    assert Step(zero, zero)[2:] == ((), None)
    assert Pairs(zero, zero, zero, zero).gap is None
    assert Loss(zero).parts == {}
    assert Loss(zero).parts is not Loss(zero).parts
    with pytest.raises(dataclasses.FrozenInstanceError):
        Loss(zero).rows = zero  # pyright: ignore[reportAttributeAccessIssue]
    draw = Draw(index=zero, key=zero + 1)
    assert (float(draw.index), float(draw.key)) == (0.0, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        draw.key = zero  # pyright: ignore[reportAttributeAccessIssue]
    assert get_args(Quantity) == ("velocity", "data", "noise", "score", "v")


def test_over_wraps_a_network_itself_and_reaches_inside_a_wrapper() -> None:
    def network(x: float, t: float, cond: float = 0.0) -> float:
        return x + t + cond

    def doubled(model: Any) -> Any:
        return lambda *args: 2 * model(*args)

    assert over(network, doubled)(1.0, 2.0) == 6.0
    tally = [0]
    wrapped = over(Conditioned(Counted(network, tally), 3.0), doubled)  # pyright: ignore[reportArgumentType]
    assert isinstance(wrapped, Conditioned)
    assert wrapped(1.0, 2.0) == 12.0
    assert wrapped(1.0, 2.0) == 12.0
    assert tally == [2]


def test_the_public_names_are_where_the_design_says():
    import rheos.data
    import rheos.dynamics
    import rheos.guidance
    import rheos.objectives
    import rheos.paths
    import rheos.schedules
    import rheos.solvers
    import rheos.testing

    names = [
        (rheos.data.mixtures, "GaussianMixture"),
        (rheos.dynamics, "Flow Diffusion log_likelihood"),
        (rheos.guidance, "ClassifierFree ZeroStar Interval Autoguidance"),
        (rheos.objectives, "Matching"),
        (rheos.paths, "Affine Rescheduled as_velocity"),
        (rheos.schedules, "Linear Cosine Polynomial VariancePreserving VarianceExploding"),
        (rheos.solvers, "Euler Midpoint Heun RK4 Dopri5 AdamsBashforth DPMSolver UniPC integrate walk grids"),
        (rheos.testing, "check_schedule check_path check_coupling check_dynamics check_solver check_model"),
    ]
    missing = [name for module, listed in names for name in listed.split() if not hasattr(module, name)]
    assert not missing
