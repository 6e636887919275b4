"""``rheos distill --guidance LOW HIGH``: a student that is told a scale, from the first command to a sample."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheos.cli import distill as command
from rheos.cli import main
from rheos.evaluation import Findings
from rheos.guidance import ClassifierFree, Interval, Told
from rheos.recipes import Images, Kind, Sampler
from support.stopping import student_stops_at

RANGE = ("--guidance", 1, 4, "--interval", 0.2, 0.9)
SHORT = ("--training-steps", 10)


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    """So short a training helps nobody, and a figure that has nothing to learn will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "PATIENCE", 99)
        patch.setattr(command, "COUNT", 40)
        patch.setattr(Images, "judge", Kind.judge)
        yield


@pytest.fixture(scope="module")
def pair(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, ``digits``, and its student, ``digits-lagrangian``."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(trained("images", "--net", "mlp"), folder / "digits")
    words = ("distill", folder / "digits", "--to", "lagrangian", *RANGE, *SHORT)
    assert main([str(word) for word in words]) == 0
    return folder


def sampled(rheos: Any, run: Path, file: Path, *words: object) -> tuple[np.ndarray[Any, Any], str]:
    said = rheos.done("sample", run, "--n", 8, *words, "--out", file).out
    return np.load(file)["samples"], said


def test_a_student_is_told_a_scale_in_one_pass(rheos: Any, pair: Path, tmp_path: Path) -> None:
    student = pair / "digits-lagrangian"
    stored = json.loads((student / "run.json").read_text())
    assert stored["request"]["options"]["guidance"] == [1.0, 4.0]
    assert stored["request"]["options"]["interval"] == [0.2, 0.9]
    assert stored["recipe"]["guidance"]["scale"] == 2.5
    assert stored["recipe"]["objective"]["guided"]["start"] == 0.2
    drawn, said = sampled(rheos, student, tmp_path / "x.npz")
    assert "1 evaluations (1 network passes) each, Euler" in said
    assert np.array_equal(sampled(rheos, student, tmp_path / "y.npz", "--guidance", 2.5)[0], drawn)
    _, said = sampled(rheos, student, tmp_path / "y.npz", "--guidance", 4, "--steps", 3)
    assert "3 evaluations (3 network passes)" in said
    assert "1 evaluations (1 network passes)" in sampled(rheos, student, tmp_path / "y.npz", "--guidance", 1)[1]


def test_what_the_student_did_not_learn_is_refused(rheos: Any, pair: Path, tmp_path: Path) -> None:
    student, out = pair / "digits-lagrangian", ("--out", tmp_path / "x.npz")
    assert "scales from 1 to 4, and was asked for 4.5" in rheos.refused("sample", student, "--guidance", 4.5, *out)
    assert "scales from 1 to 4, and was asked for 0.5" in rheos.refused("evaluate", student, "--guidance", 0.5)
    assert "has its guidance built in" in rheos.refused("sample", student, "--guidance", 2, "--zero-star", *out)
    assert not (tmp_path / "x.npz").exists()


def test_a_range_that_is_none_is_refused(rheos: Any, pair: Path, trained: Callable[..., Path], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "none")
    words = ("distill", pair / "digits", "--to", "shortcut", *out)
    assert "low < high" in rheos.refused(*words, "--guidance", 4, 1)
    assert "LOW and HIGH of a range, got 3" in rheos.refused(*words, "--guidance", 1, 2, 3)
    assert "a finite number" in rheos.refused(*words, "--guidance", "nan")
    assert "start < end" in rheos.refused(*words, "--guidance", 1, 4, "--interval", 0.9, 0.2)
    assert "low < high" in rheos.refused(*words, "--guidance", 3, "--interval", 0.9, 0.2)
    assert "give --guidance X" in rheos.refused(*words, "--interval", 0.2, 0.9)
    straighter = ("distill", pair / "digits", "--to", "reflow", "--pairs", 10, *out)
    assert "give one scale, or distil to a flow map" in rheos.refused(*straighter, "--guidance", 1, 4)
    assert "has no classes" in rheos.refused("distill", trained("toy"), "--to", "shortcut", "--guidance", 1, 4, *out)
    other = ("distill", pair / "digits", "--to", "lagrangian", *SHORT)
    assert "guidance [1.0, 4.0], training_steps 10, interval [0.2, 0.9]" in rheos.refused(*other, "--guidance", 1, 5)
    assert not (tmp_path / "none").exists()


def test_one_scale_may_have_an_interval_and_needs_no_telling(rheos: Any, pair: Path, tmp_path: Path) -> None:
    for method, more in (("shortcut", ()), ("reflow", ("--pairs", 20))):
        out = tmp_path / method
        words = ("distill", pair / "digits", "--to", method, *more, "--training-steps", 2, "--out", out)
        rheos.done(*words, "--guidance", 3, "--interval", 0.2, 0.9)
        stored = json.loads((out / "run.json").read_text())
        assert stored["request"]["options"]["guidance"] == 3.0
        assert stored["recipe"]["guidance"] is None
        interval = stored["recipe"]["teacher"]["guidance"]
        assert (interval["guidance"]["scale"], interval["low"], interval["high"]) == (3.0, 0.2, 0.9)
        assert "guided" not in stored["recipe"]["network"]["options"]


def test_a_student_of_scales_that_was_stopped_equals_one_that_was_not(rheos: Any, pair: Path, tmp_path: Path) -> None:
    words = ("distill", pair / "digits", "--to", "lagrangian", *RANGE, *SHORT, "--out", tmp_path / "cut")
    with student_stops_at(5):
        assert rheos(*words).code == 130
    rheos.done(*words)
    for name in ("model", "ema", "optimizer"):
        file = f"checkpoints/step-000010/{name}.safetensors"
        assert (tmp_path / "cut" / file).read_bytes() == (pair / "digits-lagrangian" / file).read_bytes()
    seen = "distillation.json"
    assert (tmp_path / "cut" / seen).read_text() == (pair / "digits-lagrangian" / seen).read_text()


def test_teacher_and_student_are_measured_at_one_scale(rheos: Any, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []

    def measure(self: Images, generate: Sampler, *rest: Any) -> Findings:
        measured.append(generate.recipe.guidance)
        return Findings(())

    monkeypatch.setattr(Images, "measure", measure)
    for words, scale in ((("--guidance", 1), 1.0), ((), 2.5)):
        measured.clear()
        rheos.done("evaluate", pair / "digits-lagrangian", "--n", 40, *words)
        assert measured == [Told(scale, 1.0, 4.0), Interval(ClassifierFree(scale), 0.2, 0.9)]
