"""What a comparison runs and keeps: the same twice, the same after a stop, and honest of what failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rheos.compare import Study, chosen_rate, study
from rheos.compare.study import BUDGETS, Cell, contender
from rheos.core import DivergedError, InputError, RheosError
from rheos.recipes import Recipe, Run, toy
from rheos.training import Stopped, fit

CPU = torch.device("cpu")


def small() -> Recipe:
    recipe = toy(width=8)
    return replace(recipe, training=replace(recipe.training, steps=40, batch=32))


def made(out: Path, **changes: Any) -> Study:
    given = {"recipe": small(), "names": ("flow", "ddpm"), "rates": (1e-3, 1e-2), "seeds": 2, "count": 20, "out": out}
    return Study(**{**given, "device": CPU, **changes})


def untimed(value: Any) -> Any:
    """A result without what tells of the machine."""
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

    monkeypatch.setattr(study, "fit", stopping)
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

    monkeypatch.setattr(study, "fit", failing)
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

    monkeypatch.setattr(study, "fit", broken)
    result = made(tmp_path, names=("flow",), rates=(1e-3,), seeds=1).run(lambda line: None)
    assert result["contenders"]["flow"]["diverged"] == ["samples of 1 evaluations are not finite."]

    def full(*args: Any, **options: Any) -> Any:
        raise RheosError("the disk is full")

    # What is no property of a side is not kept as one.
    monkeypatch.setattr(study, "fit", full)
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

    monkeypatch.setattr(study, "fit", narrow)
    given = made(tmp_path, names=("flow",), rates=(1e-2,), seeds=1)
    result = given.run(lambda line: None)
    assert parts == [1, 2, 4]
    found = result["contenders"]["flow"]["quality by rate"]["0.01"]
    assert found == pytest.approx(whole[1]["contenders"]["flow"]["quality by rate"]["0.01"][:1], rel=1e-2)
    monkeypatch.setattr(study, "fit", lambda *args, **options: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
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

    monkeypatch.setattr(study, "fit", watched)
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
    parts = [study._seconds(folder / "before"), found["training seconds"][0]]
    assert 0 < parts[0] < parts[1]
    assert given.run(pytest.fail) == result


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
