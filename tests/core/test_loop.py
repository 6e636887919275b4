"""The one loop: what it hands to solvers, what it counts, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, RheosError, Rng, ShapeError, Solver, Step, Stream, integrate, loop, walk
from rheos.dynamics import Flow

GRID = torch.tensor([0.0, 0.25, 1.0])


@dataclass(frozen=True)
class Recorder(Solver[Tensor]):
    """Euler's rule that remembers how often it stepped and writes down what it was given."""

    seen: list = field(default_factory=list)
    started: list = field(default_factory=list)

    def start(self, dynamics: Any, x: Tensor, grid: Tensor) -> int:
        self.started.append((x, grid))
        return 0

    def step(
        self, dynamics: Any, x: Tensor, t: Tensor, s: Tensor, memory: Any = (), rng: Rng | None = None
    ) -> Step[Tensor]:
        self.seen.append((float(t), float(s), memory, rng))
        return Step(dynamics.move(x, dynamics.rate(x, t, s), t, s), s, memory + 1, torch.full((len(x),), float(s)))


@dataclass(frozen=True)
class Crawler(Solver[Tensor]):
    """An adaptive rule whose every attempt reaches the next of ``reach``, a time a row; the last one for ever after."""

    reach: tuple[Any, ...] = ()
    attempts: list = field(default_factory=list)
    adaptive: ClassVar[bool] = True

    def step(
        self, dynamics: Any, x: Tensor, t: Tensor, s: Tensor, memory: Any = (), rng: Rng | None = None
    ) -> Step[Tensor]:
        self.attempts.append((t, s, memory, rng))
        reached = self.reach[min(len(self.attempts), len(self.reach)) - 1]
        return Step(x + 1, torch.as_tensor(reached), len(self.attempts))


def growth(x: Tensor, t: Tensor) -> Tensor:
    return x + t


X = torch.tensor([[1.0], [2.0]])


def test_walk_yields_a_step_at_every_grid_point_the_first_included() -> None:
    solver = Recorder()
    steps = list(walk(solver, Flow(growth), X, GRID))
    assert [float(step.t) for step in steps] == [0.0, 0.25, 1.0]
    assert torch.equal(steps[0].x, X)
    middle = X + 0.25 * X
    assert torch.equal(steps[1].x, middle)
    assert torch.equal(steps[2].x, middle + 0.75 * (middle + 0.25))
    assert [step.memory for step in steps] == [0, 1, 2]
    assert [(t, s, memory) for t, s, memory, _ in solver.seen] == [(0.0, 0.25, 0), (0.25, 1.0, 1)]
    assert len(solver.started) == 1
    assert solver.started[0][0] is X
    assert solver.started[0][1] is GRID


def test_a_memory_that_is_given_goes_on() -> None:
    solver = Recorder()
    solution = integrate(solver, Flow(growth), X, GRID, memory=5)
    assert solver.started == []
    assert solution.memory == 7


def test_a_solution_holds_the_end_the_error_and_the_trajectory_when_asked() -> None:
    solution = integrate(Recorder(), Flow(growth), X, GRID, trajectory=True)
    assert solution.trajectory is not None
    assert len(solution.trajectory) == 3
    assert torch.equal(solution.trajectory[0], X)
    assert torch.equal(solution.trajectory[1], 1.25 * X)
    assert torch.equal(solution.trajectory[2], solution.x)
    assert solution.error is not None
    assert solution.error.tolist() == [1.0, 1.0]
    assert solution.memory == 2
    plain = integrate(Recorder(), Flow(growth), X, GRID)
    assert plain.trajectory is None
    assert torch.equal(plain.x, solution.x)


def test_the_grid_may_run_backward() -> None:
    solution = integrate(Recorder(), Flow(lambda x, t: torch.ones_like(x)), X, GRID.flip(0))
    assert torch.equal(solution.x, X - 1)


def test_evaluations_count_the_model_and_passes_the_networks_inside() -> None:
    class Mean:
        def __init__(self, parts: list[Any]) -> None:
            self.parts = parts

        def __call__(self, x: Tensor, *args: Any) -> Tensor:
            return torch.stack([part(x, *args) for part in self.parts]).mean(0)

        def over(self, wrap: Any) -> Mean:
            return Mean([wrap(part) for part in self.parts])

    solution = integrate(Recorder(), Flow(Mean([growth, growth, growth])), X, GRID)
    assert solution.evaluations == 2
    assert solution.passes == 6
    single = integrate(Recorder(), Flow(growth), X, GRID)
    assert (single.evaluations, single.passes) == (2, 2)


def test_a_condition_reaches_the_model_and_none_does_not() -> None:
    seen = []

    def model(x: Tensor, t: Tensor, *cond: Any) -> Tensor:
        seen.append(cond)
        return x

    label = torch.tensor([1, 2])
    integrate(Recorder(), Flow(model), X, GRID, label)
    integrate(Recorder(), Flow(model), X, GRID)
    assert seen == [(label,), (label,), (), ()]


@pytest.mark.parametrize("source", [7, Rng(7), Rng(7).rows(torch.arange(2))])
def test_each_step_has_its_own_noise_a_key_a_row(source: Any) -> None:
    solver = Recorder()
    integrate(solver, Flow(growth), X, GRID, rng=source)
    rows = Rng(7).rows(torch.arange(2)).fold(Stream.STEP)
    assert [rng.key.tolist() for *_, rng in solver.seen] == [rows.fold(n).key.tolist() for n in (0, 1)]
    silent = Recorder()
    integrate(silent, Flow(growth), X, GRID)
    assert [rng for *_, rng in silent.seen] == [None, None]


def test_keys_of_another_batch_are_refused() -> None:
    with pytest.raises(ShapeError, match="the batch has 2 rows, the Rng has 3 keys"):
        integrate(Recorder(), Flow(growth), X, GRID, rng=Rng(7).rows(torch.arange(3)))


def test_an_adaptive_solver_is_asked_again_until_every_row_has_arrived() -> None:
    reach = ([0.5, 0.2], [1.0, 0.6], [1.0, 1.0])
    solver = Crawler(reach)
    steps = list(walk(solver, Flow(growth), X, torch.tensor([0.0, 1.0]), rng=3))
    assert len(steps) == 2
    assert len(solver.attempts) == 3
    assert torch.equal(steps[-1].x, X + 3)
    starts = [t.tolist() for t, *_ in solver.attempts]
    assert starts == [0.0, pytest.approx([0.5, 0.2]), pytest.approx([1.0, 0.6])]
    assert [memory for _, _, memory, _ in solver.attempts] == [(), 1, 2]
    assert len({tuple(rng.key.tolist()) for *_, rng in solver.attempts if rng is not None}) == 1


def test_a_fixed_solver_is_never_asked_again() -> None:
    @dataclass(frozen=True)
    class Short(Recorder):
        def step(self, dynamics: Any, x: Tensor, t: Any, s: Any, memory: Any = (), rng: Any = None) -> Step[Tensor]:
            self.seen.append(0)
            return Step(x, t, memory)

    solver = Short()
    integrate(solver, Flow(growth), X, GRID)
    assert len(solver.seen) == 2


def test_the_bounds_of_the_patience() -> None:
    assert loop.MAX_ATTEMPTS == 10_000
    assert loop.MAX_STALLED == 100


def test_a_solver_that_makes_no_way_is_stopped() -> None:
    solver = Crawler((0.25,))
    with pytest.raises(RheosError) as caught:
        integrate(solver, Flow(growth), X, torch.tensor([0.0, 1.0]))
    assert len(solver.attempts) == 101
    assert "made 101 attempts" in str(caught.value)
    assert "still lacks 0.75 of the way to t = 1" in str(caught.value)
    assert "too stiff for its tolerances, or not finite" in str(caught.value)


def test_a_hundred_stalled_attempts_are_forgiven_when_the_next_one_moves() -> None:
    solver = Crawler((*(0.25,) * 100, 0.5, *(0.5,) * 99, 1.0))
    assert torch.equal(integrate(solver, Flow(growth), X, torch.tensor([0.0, 1.0])).x, X + 201)


def test_a_solver_that_crawls_is_stopped_after_the_last_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MAX_ATTEMPTS", 8)
    steps = tuple(n / 8 for n in range(1, 9))
    grid = torch.tensor([0.0, 1.0])
    assert torch.equal(integrate(Crawler(steps), Flow(growth), X, grid).x, X + 8)
    slow = Crawler(tuple(n / 9 for n in range(1, 10)))
    with pytest.raises(RheosError, match=r"made 8 attempts and still lacks 0\.111111"):
        integrate(slow, Flow(growth), X, grid)
    assert len(slow.attempts) == 8


def test_a_backward_crawl_is_measured_by_its_size() -> None:
    with pytest.raises(RheosError, match=r"still lacks 0\.25 of the way to t = 0\.5"):
        integrate(Crawler((0.75,)), Flow(growth), X, torch.tensor([1.0, 0.5]))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([0.0, 1.0], r"at least two times \(N\+1,\), got list"),
        (torch.tensor(0.5), r"at least two times \(N\+1,\), got \(\)"),
        (torch.tensor([0.5]), r"got \(1,\)"),
        (torch.tensor([]), r"got \(0,\)"),
        (torch.zeros(2, 2), r"got \(2, 2\)"),
        (torch.tensor([0, 1]), r"a grid is a floating tensor"),
        (torch.tensor([0.0, 1.0], dtype=torch.float16), "float32 or wider, got a grid in torch.float16"),
        (torch.tensor([0.0, 1.0], dtype=torch.bfloat16), "float32 or wider, got a grid in torch.bfloat16"),
        (torch.tensor([0.0, 0.5, 0.5, 1.0]), r"strictly decreasing, got \[0.0, 0.5, 0.5, 1.0\]"),
        (torch.tensor([0.0, 0.5, 0.25]), "strictly increasing or strictly decreasing"),
        (torch.tensor([1.0, 0.5, 0.5]), "strictly increasing or strictly decreasing"),
        (torch.tensor([0.0, float("nan")]), "strictly increasing or strictly decreasing"),
    ],
)
def test_a_grid_that_is_none_is_refused(grid: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        integrate(Recorder(), Flow(growth), X, grid)


def test_two_times_are_a_grid() -> None:
    loop.check_grid(torch.tensor([0.0, 1.0]))
    loop.check_grid(torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_the_walk_leaves_grad_mode_as_it_is() -> None:
    x = X.clone().requires_grad_()
    integrate(Recorder(), Flow(lambda x, t: x), x, torch.tensor([0.0, 0.5, 1.0])).x.sum().backward()
    assert x.grad is not None
    assert x.grad.unique().tolist() == [2.25]
    with torch.no_grad():
        assert not integrate(Recorder(), Flow(growth), x, GRID).x.requires_grad
