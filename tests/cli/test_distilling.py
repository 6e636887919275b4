"""``rheos distill``, and flow maps trained from scratch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rheos.cli import distill as command
from support.stopping import student_stops_at

SHORT = ("--training-steps", 20)


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    """So short a training helps nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "PATIENCE", 99)
        yield


@pytest.fixture(scope="module")
def pair(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, ``toy``, and its student, ``toy-lagrangian``."""
    from rheos.cli import main

    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(trained("toy"), folder / "toy")
    assert main(["distill", str(folder / "toy"), "--to", "lagrangian", *map(str, SHORT)]) == 0
    return folder


def test_a_student_stands_beside_its_teacher_and_is_sampled_in_one_step(rheos: Any, pair: Path, tmp_path: Path) -> None:
    student = pair / "toy-lagrangian"
    seen = json.loads((student / "distillation.json").read_text())
    assert seen["figure"] == "energy distance"
    assert list(seen["teacher"]) == ["1", "2", "4", "10"]
    assert [*seen["student"]] == [str(2 * look) for look in range(1, 11)]
    assert all([*figures] == ["1", "2", "4"] for figures in seen["student"].values())
    said = rheos.done("sample", student, "--n", 5, "--out", tmp_path / "x.csv").out
    assert "1 evaluations (1 network passes) each, Euler" in said
    said = rheos.done("sample", student, "--n", 5, "--steps", 4, "--noise", "restarts", "--out", tmp_path / "x.csv")
    assert "4 evaluations" in said.out
    # Another solver integrates the velocity on the diagonal.
    said = rheos.done("sample", student, "--n", 5, "--steps", 3, "--solver", "rk4", "--out", tmp_path / "x.csv")
    assert "12 evaluations (12 network passes) each, RK4" in said.out


def test_a_student_needs_its_teacher_no_more(rheos: Any, pair: Path, tmp_path: Path) -> None:
    student = shutil.copytree(pair / "toy-lagrangian", tmp_path / "alone")
    rheos.done("sample", student, "--n", 5, "--out", tmp_path / "x.csv")
    rheos.done("evaluate", student, "--n", 40)
    curves = json.loads((student / "evaluation.json").read_text())["findings"]["curves"]
    assert [*curves] == ["energy distance", "energy distance, of the teacher"]
    assert [budget for budget, _ in curves["energy distance"]][:4] == [1, 2, 4, 5]
    stored = json.loads((student / "run.json").read_text())
    stored["recipe"]["teacher"]["path"] = str(tmp_path / "gone")
    (student / "run.json").write_text(json.dumps(stored))
    rheos.done("evaluate", student, "--n", 40)
    assert [*json.loads((student / "evaluation.json").read_text())["findings"]["curves"]] == ["energy distance"]


def test_before_training_the_student_is_its_teacher(rheos: Any, pair: Path, tmp_path: Path) -> None:
    """Whatever the step, a student at step 0 gives the teacher's velocity."""
    teacher, student = pair / "toy", tmp_path / "student"
    shutil.copytree(pair / "toy-lagrangian", student)
    for folder in (student / "checkpoints").iterdir():
        if not folder.name.endswith("000000"):
            shutil.rmtree(folder)
    for run, file in ((teacher, "one"), (student, "other")):
        rheos.done("sample", run, "--n", 5, "--solver", "euler", "--steps", 1, "--out", tmp_path / f"{file}.csv")
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "other.csv").read_text()


def test_a_student_that_was_stopped_equals_one_that_was_not(rheos: Any, pair: Path, tmp_path: Path) -> None:
    words = ("distill", pair / "toy", "--to", "lagrangian", *SHORT, "--out", tmp_path / "cut")
    with student_stops_at(10):
        assert rheos(*words).code == 130
    rheos.done(*words)
    for name in ("model", "ema", "optimizer"):
        file = f"checkpoints/step-000020/{name}.safetensors"
        assert (tmp_path / "cut" / file).read_bytes() == (pair / "toy-lagrangian" / file).read_bytes()
    assert (tmp_path / "cut/distillation.json").read_text() == (pair / "toy-lagrangian/distillation.json").read_text()
    assert "next: rheos sample" in rheos.done(*words).out


def test_it_ends_where_it_no_longer_helps(
    rheos: Any, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PATIENCE", 4)
    monkeypatch.setattr(command, "GAIN", 1e9)
    words = ("distill", pair / "toy", "--to", "shortcut", *SHORT, "--steps", 2, "--out", tmp_path / "short")
    said = rheos.done(*words).out
    # Five looks are the first after which four in a row can have failed.
    assert "10 steps, where it no longer helped" in said
    assert [folder.name for folder in (tmp_path / "short/checkpoints").iterdir()][-1] == "step-000010"
    assert "all that helped" in rheos.done(*words).out
    assert "2 evaluations" in rheos.done("sample", tmp_path / "short", "--n", 2, "--out", tmp_path / "x.csv").out


def test_a_run_is_made_straighter_by_pairs(rheos: Any, pair: Path, tmp_path: Path) -> None:
    words = ("distill", pair / "toy", "--to", "reflow", "--pairs", 300, *SHORT, "--out", tmp_path / "straight")
    said = rheos.done(*words).out
    assert "300 of 300 pairs" in said
    assert "straightness" in said
    rheos.done("sample", tmp_path / "straight", "--n", 5, "--steps", 3, "--out", tmp_path / "x.csv")
    # A second time, of the straighter one.
    again = ("distill", tmp_path / "straight", "--to", "reflow", "--pairs", 100, "--training-steps", 2)
    assert "100 of 100 pairs" in rheos.done(*again).out
    assert (tmp_path / "straight-reflow/run.json").is_file()
    # And its map, on pairs of its own.
    onward = ("distill", tmp_path / "straight", "--to", "lagrangian", "--pairs", 100, "--training-steps", 2)
    assert "100 of 100 pairs" in rheos.done(*onward).out
    said = rheos.done("sample", tmp_path / "straight-lagrangian", "--n", 5, "--out", tmp_path / "x.csv").out
    assert "1 evaluations (1 network passes) each, Euler" in said
    rheos.done("evaluate", tmp_path / "straight-lagrangian", "--n", 40)
    assert "--pairs are those that reflow, and the map of a straightened run, learn from" in rheos.refused(
        "distill", pair / "toy", "--to", "shortcut", "--pairs", 5, "--out", tmp_path / "x"
    )


def test_guidance_is_built_in(rheos: Any, trained: Callable[..., Path], tmp_path: Path) -> None:
    teacher = trained("images", "--net", "mlp")
    out = tmp_path / "guided"
    rheos.done("distill", teacher, "--to", "mean_flow", "--guidance", 3, "--training-steps", 4, "--out", out)
    stored = json.loads((out / "run.json").read_text())["recipe"]
    assert stored["guidance"] is None
    assert stored["teacher"]["guidance"] == {"class": "rheos.guidance.classifier_free:ClassifierFree", "scale": 3.0}
    assert "1 evaluations (1 network passes)" in rheos.done("sample", out, "--n", 4, "--out", tmp_path / "x.npz").out


def test_a_map_leads_back_to_noise(rheos: Any, pair: Path, tmp_path: Path) -> None:
    words = ("distill", pair / "toy", "--to", "shortcut", "--backward", 0.5, "--training-steps", 4)
    rheos.done(*words, "--out", tmp_path / "back")
    rheos.done("evaluate", tmp_path / "back", "--n", 40)
    rows = {row["name"]: row for row in json.loads((tmp_path / "back/evaluation.json").read_text())["findings"]["rows"]}
    told = rows["log-density by the map, 1 step, nats of 500 held-out data"]
    assert (told["meaning"], told["better"]) == ("its flow", "higher")
    assert rows["cycle error, 4 steps back and as many forward"]["value"] > 0
    rheos.done("train", "toy", "--objective", "shortcut", "--backward", 0.5, "--steps", 1, "--out", tmp_path / "new")
    stored = json.loads((tmp_path / "new/run.json").read_text())["recipe"]
    assert stored["objective"]["backward"] == 0.5
    assert "Matching has no --backward" in rheos.refused("train", "toy", "--backward", 0.5, "--out", tmp_path / "x")
    assert "a share of rows, between 0 and 1, got 2" in rheos.refused(*words, "--backward", 2, "--out", tmp_path / "x")


def test_what_cannot_be_distilled_is_refused(rheos: Any, pair: Path, tmp_path: Path) -> None:
    before = rheos.prints(pair)
    teacher, student = pair / "toy", pair / "toy-lagrangian"
    out = ("--out", tmp_path / "none")
    assert "did you mean 'lagrangian'" in rheos.refused("distill", teacher, "--to", "lagrange", *out)
    assert "from 1 to 4 --steps, got 5" in rheos.refused("distill", teacher, "--to", "shortcut", "--steps", 5, *out)
    assert "was trained by FlowMapMatching" in rheos.refused("distill", student, "--to", "shortcut", *out)
    assert "has no classes" in rheos.refused("distill", teacher, "--to", "shortcut", "--guidance", 2, *out)
    assert "is no run folder" in rheos.refused("distill", tmp_path, "--to", "shortcut", *out)
    assert "was made by another command" in rheos.refused("distill", teacher, "--to", "lagrangian", "--steps", 2)
    assert "not of 'toy'" in rheos.refused("train", "toy", "--out", student)
    assert not (tmp_path / "none").exists()
    assert rheos.prints(pair) == before


def test_a_teacher_that_changed_is_refused(rheos: Any, pair: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pair, tmp_path / "both")
    words = ("distill", folder / "toy", "--to", "lagrangian", "--training-steps", 20, "--out", folder / "again")
    rheos.done(*words)
    shutil.rmtree(folder / "toy/checkpoints/step-000020")
    assert "no longer the one that this run was made with" in rheos.refused(*words)


@pytest.mark.parametrize("content", ["{", "[1]", '{"student": {"two": {}}}', '{"teacher": 5}'])
def test_damaged_looks_are_named(rheos: Any, pair: Path, content: str) -> None:
    folder = pair / "toy-lagrangian"
    whole = (folder / "distillation.json").read_text()
    (folder / "distillation.json").write_text(content)
    refused = rheos.refused("distill", pair / "toy", "--to", "lagrangian", *SHORT)
    assert "distillation.json is damaged" in refused
    (folder / "distillation.json").write_text(whole)


@pytest.mark.parametrize("objective", ["mean_flow", "shortcut", "consistency", "continuous-consistency"])
def test_a_map_is_trained_from_scratch_by_name(rheos: Any, tmp_path: Path, objective: str) -> None:
    out = tmp_path / "run"
    words = ("train", "toy", "--objective", objective, *rheos.small, "--out", out)
    rheos.done(*words)
    stored = json.loads((out / "run.json").read_text())["recipe"]
    assert stored["network"]["options"]["two_times"] is True
    assert stored["objective"]["class"] == "rheos.objectives.flow_map:FlowMapMatching"
    assert "1 evaluations" in rheos.done("sample", out, "--n", 3, "--out", tmp_path / "x.csv").out
    assert "all of its 20 steps were taken before" in rheos.done(*words).out
    assert "a plan is fitted to a flow" in rheos.refused("plan", out)


def test_parts_of_a_map_can_be_named_where_it_has_them(rheos: Any, tmp_path: Path) -> None:
    words = ("train", "toy", "--objective", "lagrangian", *rheos.small)
    chosen = ("--coupling", "ot", "--path", "cosine", "--times", "logit-normal", "--loss", "pseudo-huber")
    rheos.done(*words, *chosen, "--out", tmp_path / "run")
    assert "FlowMapMatching has no --weight" in rheos.refused(*words, "--weight", "min-snr", "--out", tmp_path / "x")
