"""What a comparison runs and keeps: the same twice, the same after a stop, and honest of what failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rheos.compare import Study, chosen_rate, phases
from rheos.compare.study import BUDGETS, Cell, contender
from rheos.core import DivergedError, InputError, RheosError, integrate
from rheos.objectives import FlowMapMatching, Matching, lagrangian
from rheos.recipes import Recipe, Run, distilled, rectified, reflow, toy
from rheos.solvers import RK4, grids
from rheos.training import Stopped, fit

CPU = torch.device("cpu")


STUDENTS = ("flow-to-lagrangian", "reflow")


def small(steps: int = 40) -> Recipe:
    recipe = toy(width=8)
    return replace(recipe, training=replace(recipe.training, steps=steps, batch=32))


def made(out: Path, **changes: Any) -> Study:
    given = {"recipe": small(), "names": ("flow", "ddpm"), "rates": (1e-3, 1e-2), "seeds": 2, "count": 20, "out": out}
    return Study(**{**given, "device": CPU, **changes})


def untimed(value: Any) -> Any:
    """A result without what tells of the machine."""
    if isinstance(value, list):
        return [untimed(part) for part in value]
    if isinstance(value, dict):
        timed = ("seconds", "joules")
        return {key: untimed(part) for key, part in value.items() if not key.endswith(timed)}
    return value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    out, said = tmp_path_factory.mktemp("whole"), []
    return out, made(out).run(said.append), said


def test_every_side_is_measured_at_every_budget_and_seed(whole: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, result, said = whole
    assert list(result["contenders"]) == ["flow", "ddpm"]
    for side in result["contenders"].values():
        assert side["rate"] in (1e-3, 1e-2)
        assert set(side["quality by rate"]) == {"0.001", "0.01"}
        assert not side["diverged"]
        assert list(side["learning"]) == ["10", "20", "30", "40"]
        for way in side["ways"].values():
            assert list(way["quality"]) == [str(budget) for budget in BUDGETS]
            assert all(len(values) == 2 for values in way["quality"].values())
        assert len(side["training seconds"]) == 2
    assert list(result["contenders"]["ddpm"]["ways"]) == ["DDIM", "DPM-Solver++ (2M)", "Adams-Bashforth 2"]
    assert (result["figure"], result["seeds"], result["steps"]) == ("energy distance", 2, 40)
    assert 0 < result["floor"] < 0.01
    # Six trainings: two sides at two rates, and a second seed of each.
    assert len(said) == 6
    assert said[0].startswith("1 of 6: flow matching, learning rate 0.001, seed 0")
    assert "left" in said[5]


def test_each_side_keeps_its_best_rate(whole: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, result, _ = whole
    for side in result["contenders"].values():
        tried = side["quality by rate"]
        assert f"{side['rate']:g}" == min(tried, key=lambda rate: tried[rate][0])
        found = next(iter(side["ways"].values()))["quality"]["50"]
        assert found == tried[f"{side['rate']:g}"]
        # The best rate has every seed, the other the first alone.
        assert (side["seeds"], sorted(map(len, tried.values()))) == ([0, 1], [1, 2])


def test_a_second_comparison_is_equal_but_for_its_clock(
    whole: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    assert untimed(made(tmp_path).run(lambda line: None)) == untimed(whole[1])


def test_trainings_are_runs_of_their_own(whole: tuple[Path, dict[str, Any], list[str]]) -> None:
    out = whole[0]
    side = contender("ddpm", small())
    rate = whole[1]["contenders"]["ddpm"]["rate"]
    given = made(out)
    run = Run.open(given.folder(Cell(side, rate, 1)))
    assert (run.seed, run.recipe.training.learning_rate) == (1, rate)
    assert run.recipe.objective == side.recipe.objective
    assert given.picture(Cell(side, rate, 0), 10).exists()
    # All sides begin with the same weights.
    other = Run.open(given.folder(Cell(contender("flow", small()), whole[1]["contenders"]["flow"]["rate"], 1)))
    for a, b in zip(run.network().parameters(), other.network().parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_goes_on_where_it_stopped(
    whole: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def stopping(*args: Any, draw_samples: Any, **options: Any) -> Any:
        calls[0] += 1

        def look(step: int, average: Any) -> None:
            draw_samples(step, average)
            if calls[0] == 3 and step == 20:
                raise KeyboardInterrupt

        return fit(*args, draw_samples=look, **options)

    monkeypatch.setattr(phases, "fit", stopping)
    with pytest.raises((Stopped, KeyboardInterrupt)):
        made(tmp_path).run(lambda line: None)
    said: list[str] = []
    assert untimed(made(tmp_path).run(said.append)) == untimed(whole[1])
    # Two trainings were done; the third goes on.
    assert len(said) == 4
    assert said[0].startswith("3 of 6")
    assert made(tmp_path).run(pytest.fail)["contenders"]


def test_what_diverges_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(network: Any, objective: Any, *args: Any, **options: Any) -> Any:
        if objective.predict == "noise":
            raise DivergedError("the loss is not finite")
        return fit(network, objective, *args, **options)

    monkeypatch.setattr(phases, "fit", failing)
    result = made(tmp_path, rates=(1e-3,)).run(lambda line: None)
    ddpm = result["contenders"]["ddpm"]
    assert ddpm["diverged"] == ["the loss is not finite"]
    assert (ddpm["rate"], ddpm["ways"], ddpm["quality by rate"]) == (None, {}, {"0.001": [None]})
    assert len(result["contenders"]["flow"]["training seconds"]) == 2
    assert chosen_rate([]) is None


def test_samples_that_are_not_finite_are_a_divergence_and_other_errors_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, draw_samples: Any, **options: Any) -> Any:
        done = fit(*args, **options)
        for parameter in done.average.parameters():
            parameter.data.fill_(torch.nan)
        return done

    monkeypatch.setattr(phases, "fit", broken)
    result = made(tmp_path, names=("flow",), rates=(1e-3,), seeds=1).run(lambda line: None)
    assert result["contenders"]["flow"]["diverged"] == ["samples of 1 evaluations are not finite."]

    def full(*args: Any, **options: Any) -> Any:
        raise RheosError("the disk is full")

    # What is no property of a side is not kept as one.
    monkeypatch.setattr(phases, "fit", full)
    with pytest.raises(RheosError, match="the disk is full"):
        made(tmp_path / "full", names=("flow",), rates=(1e-3,), seeds=1).run(lambda line: None)
    assert not list((tmp_path / "full").glob("runs/*/*/*/cell.json"))


def test_too_little_memory_halves_the_parts_of_a_batch(
    whole: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []

    def narrow(*args: Any, **options: Any) -> Any:
        settings = args[4]
        parts.append(settings.accumulate)
        if settings.batch // settings.accumulate > 8:
            raise torch.OutOfMemoryError("too little")
        return fit(*args, **options)

    monkeypatch.setattr(phases, "fit", narrow)
    given = made(tmp_path, names=("flow",), rates=(1e-2,), seeds=1)
    result = given.run(lambda line: None)
    assert parts == [1, 2, 4]
    found = result["contenders"]["flow"]["quality by rate"]["0.01"]
    assert found == pytest.approx(whole[1]["contenders"]["flow"]["quality by rate"]["0.01"][:1], rel=1e-2)
    monkeypatch.setattr(phases, "fit", lambda *args, **options: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(InputError, match="cannot be halved; give a smaller --batch"):
        made(tmp_path / "none", names=("flow",), rates=(1e-2,), seeds=1).run(lambda line: None)


def test_every_seed_at_every_rate_when_all_are_asked_for(tmp_path: Path) -> None:
    said: list[str] = []
    found = made(tmp_path, names=("flow",), full=True).run(said.append)["contenders"]["flow"]
    assert len(said) == 4
    assert [len(values) for values in found["quality by rate"].values()] == [2, 2]
    best = found["quality by rate"][f"{found['rate']:g}"]
    assert next(iter(found["ways"].values()))["quality"]["50"] == best


def test_a_hybrid_trains_as_both_in_as_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Any] = []

    def watched(network: Any, objective: Any, *args: Any, start_from: Any, **options: Any) -> Any:
        starts.append((args[2].steps, objective.predict, None if start_from is None else dict(start_from)))
        done = fit(network, objective, *args, start_from=start_from, **options)
        starts.append(done.average.state_dict())
        return done

    monkeypatch.setattr(phases, "fit", watched)
    given = made(tmp_path, names=("v-to-flow",), rates=(1e-2,), seeds=1)
    result = given.run(lambda line: None)
    found = result["contenders"]["v-to-flow"]
    first, average, second, _ = starts
    assert (first[:2], second[:2]) == ((20, "v"), (20, "velocity"))
    assert first[2] is None
    assert all(torch.equal(second[2][name], average[name]) for name in average)
    # Looks of both parts, counted through.
    assert list(found["learning"]) == ["10", "20", "30", "40"]
    assert found["family"] == "hybrid"
    folder = given.folder(Cell(given.sides[0], 1e-2, 0))
    parts = [phases.training_seconds(folder / "before"), found["training seconds"][0]]
    assert 0 < parts[0] < parts[1]
    assert given.run(pytest.fail) == result


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, dict[str, Any], list[Any]]:
    """A comparison of students over 41 steps, and what each training was given and ended with."""
    seen: list[Any] = []

    def watched(network: Any, objective: Any, dataset: Any, order: Any, settings: Any, **options: Any) -> Any:
        # Copies, for training changes weights in place.
        start, initial = copied(options["start_from"]), copied(network.state_dict())
        done = fit(network, objective, dataset, order, settings, **options)
        seen.append((settings.steps, objective, dataset, start, initial, done.average))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "fit", watched)
        study = made(tmp_path_factory.mktemp("students"), recipe=small(41), names=STUDENTS, rates=(1e-2,), seeds=1)
        return study, study.run(lambda line: None), seen


def copied(weights: Any) -> Any:
    return None if weights is None else {name: value.clone() for name, value in weights.items()}


def cells(study: Study) -> list[Path]:
    return [study.folder(Cell(side, 1e-2, 0)) for side in study.sides]


def test_a_student_takes_half_of_the_steps_and_its_teacher_the_others(students: Any) -> None:
    study, result, seen = students
    assert [given[0] for given in seen] == [20, 21, 20, 21]
    for (_, _, _, none, _, teacher), (_, _, _, start, initial, _) in (seen[:2], seen[2:]):
        assert none is None
        weights = teacher.state_dict()
        # It begins at the teacher's average; what only a network of two times has is its own.
        assert start.keys() == initial.keys()
        for name, value in start.items():
            assert torch.equal(value, weights[name] if name in weights else initial[name])
    # The same flow teaches both.
    for a, b in zip(seen[0][-1].parameters(), seen[2][-1].parameters(), strict=True):
        assert torch.equal(a, b)
    for name in STUDENTS:
        found = result["contenders"][name]
        assert (found["family"], found["judged at"]) == ("few steps", 1)
        assert list(found["learning"]) == ["10", "20", "30", "40", "41"]
        assert found["quality by rate"]["0.01"] == next(iter(found["ways"].values()))["quality"]["1"]
    assert study.run(pytest.fail) == result


def test_a_map_learns_the_velocity_of_a_teacher_that_does_not_change(students: Any) -> None:
    _, _, seen = students
    objective, teacher = seen[1][1], seen[0][-1]
    assert isinstance(objective, FlowMapMatching)
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(1)), torch.full((5,), 0.3)
    assert objective.teacher is not None
    assert torch.equal(objective.teacher(x, t), teacher(x, t))
    assert not any(weights.requires_grad for weights in teacher.parameters())


def test_a_reflow_learns_from_pairs_that_its_first_half_leads_to_one_another(students: Any) -> None:
    study, result, seen = students
    pairs, teacher = seen[3][2].x, seen[2][-1]
    # 21 steps of 32 rows, each pair ten times.
    assert pairs.shape == (67, 2, 2)
    flow = Matching().dynamics(teacher)
    with torch.no_grad():
        ends = integrate(RK4(), flow, pairs[:, 0], grids.Uniform()(64)).x
    assert float((ends - pairs[:, 1]).abs().max()) < 0.01
    assert float((pairs[:, 0] - pairs[:, 1]).abs().max()) > 0.05
    found = result["contenders"]["reflow"]
    assert found["pairs"][0]["count"] == 67
    folder = cells(study)[1]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = 10 * lines[0]["seconds"] + 10 * lines[1]["seconds"] + lines[2]["seconds"]
    before = phases.training_seconds(folder / "before")
    made_in = json.loads((folder / "pairs.json").read_text())["seconds"]
    assert found["pairs"][0]["seconds"] == made_in > 0
    assert [line["step"] for line in lines] == [10, 20, 21]
    assert found["training seconds"][0] == pytest.approx(before + made_in + steps)


def test_students_are_the_runs_that_distilling_makes(students: Any) -> None:
    study, _, seen = students
    for folder, number in zip(cells(study), (0, 2), strict=True):
        teacher, student = Run.open(folder / "before"), Run.open(folder)
        network = seen[number][-1]
        if number == 0:
            expected = distilled(teacher, network, lagrangian, 1, None)
        else:
            expected = rectified(teacher, network, 67, 1, None)
        assert replace(student.recipe, training=expected.training) == expected
        assert (student.recipe.training.steps, student.seed) == (21, teacher.seed)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("flow-to-lagrangian", False), ("reflow", False), ("reflow", True)],
    ids=["map", "flow", "pairs"],
)
def test_students_go_on_where_they_stopped(students: Any, tmp_path: Path, name: str, pairs: bool) -> None:
    calls = [0]

    def stopping(*args: Any, draw_samples: Any, **options: Any) -> Any:
        calls[0] += 1

        def look(step: int, average: Any) -> None:
            draw_samples(step, average)
            if calls[0] == 2 and step == 10:
                raise KeyboardInterrupt

        return fit(*args, draw_samples=look, **options)

    def half(run: Any, *args: Any) -> Any:
        rows = args[-1]
        if pairs and int(rows[0]) >= 32:
            raise KeyboardInterrupt
        return shard(run, *args)

    shard = reflow._shard
    given = made(tmp_path, recipe=small(41), names=(name,), rates=(1e-2,), seeds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "fit", stopping)
        patch.setattr(reflow, "_shard", half)
        patch.setattr(reflow, "SHARD", 16)
        with pytest.raises((Stopped, KeyboardInterrupt)):
            given.run(lambda line: None)
        patch.undo()
        patch.setattr(reflow, "SHARD", 16)
        earlier = phases.pairing_seconds(cells(given)[0])
        again = given.run(lambda line: None)["contenders"][name]
    assert (earlier > 0) == (name == "reflow")
    for found in again["pairs"]:
        # Where every pair was there, none is made anew.
        assert (found["seconds"] > earlier) == pairs
    assert untimed(again) == untimed(students[1]["contenders"][name])


def test_a_map_that_diverges_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(network: Any, objective: Any, *args: Any, **options: Any) -> Any:
        if isinstance(objective, FlowMapMatching):
            raise DivergedError("the loss is not finite")
        return fit(network, objective, *args, **options)

    monkeypatch.setattr(phases, "fit", failing)
    names = ("mean-flow", "flow-to-lagrangian", "reflow")
    found = made(tmp_path, names=names, rates=(1e-2,), seeds=1).run(lambda line: None)["contenders"]
    assert [found[name]["diverged"] for name in names] == [["the loss is not finite"]] * 2 + [[]]
    assert found["reflow"]["ways"]


def test_a_model_of_few_steps_keeps_the_rate_that_is_best_in_them() -> None:
    def cell(rate: float, at_one: float, at_fifty: float) -> dict[str, Any]:
        return {"rate": rate, "seed": 0, "ways": {"its map": {"quality": {"1": at_one, "50": at_fifty}}}}

    cells = [cell(1e-3, 3.0, 1.0), cell(1e-2, 2.0, 4.0)]
    assert (chosen_rate(cells), chosen_rate(cells, 1)) == (1e-3, 1e-2)


def test_what_makes_no_comparison_is_refused(tmp_path: Path) -> None:
    short = replace(small(), training=replace(small().training, steps=39))
    for changes, said in (
        ({"recipe": short}, "39 steps train nothing that could be compared; give at least 40"),
        ({"names": ()}, "a contender, a learning rate and a seed at least"),
        ({"seeds": 0}, "a contender, a learning rate and a seed at least"),
        ({"count": 9}, "at least 10 samples"),
        ({"rates": (1e-3, 1e-3)}, "each of its rates once"),
        ({"names": ("flow", "flow")}, "each of its names once"),
        ({"names": ("flaw",)}, "there is no contender 'flaw'"),
    ):
        with pytest.raises(InputError, match=said):
            made(tmp_path, **changes)


def test_what_is_kept_is_plain(whole: tuple[Path, dict[str, Any], list[str]]) -> None:
    out, result, _ = whole
    cells = sorted(out.glob("runs/*/*/*/cell.json"))
    assert len(cells) == 6
    assert all(json.loads(cell.read_text())["ways"] for cell in cells)
    assert json.loads(json.dumps(result)) == result
