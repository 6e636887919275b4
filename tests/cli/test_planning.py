"""``rheos plan``, and what ``rheos sample`` makes of a plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUICK = ("--draws", 8, "--effort", 0, "--evaluations", 4, 6)


@pytest.fixture(scope="module")
def compiled(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rheos.cli import main

    run = tmp_path_factory.mktemp("planned") / "run"
    shutil.copytree(trained("toy"), run)
    assert main(["plan", str(run), *map(str, QUICK)]) == 0
    return run


def test_a_plan_is_kept_in_the_run_and_used(rheos: Any, compiled: Path, tmp_path: Path) -> None:
    content = json.loads((compiled / "plan.json").read_text())
    assert [entry["evaluations"] for entry in content["entries"]] == [4, 6]
    words = ("sample", compiled, "--n", 5, "--out", tmp_path / "x.csv")
    said = rheos.done(*words, "--evaluations", 4).out
    assert "4 evaluations (4 network passes) each, by the plan:" in said
    assert "expected error" in said
    first = (tmp_path / "x.csv").read_text()
    # Without a number it is the run's own, 10, for which the plan has no more than 6.
    assert "6 evaluations (6 network passes)" in rheos.done(*words).out
    rheos.done(*words, "--evaluations", 4)
    assert (tmp_path / "x.csv").read_text() == first


@pytest.mark.parametrize("literal", [("--solver", "ab2"), ("--grid", "uniform"), ("--steps", 4), ("--noise", "sde")])
def test_what_is_asked_for_by_name_is_taken_literally(
    rheos: Any, compiled: Path, tmp_path: Path, literal: tuple[Any, ...]
) -> None:
    ended = rheos.done("sample", compiled, "--n", 5, "--out", tmp_path / "x.csv", *literal)
    assert "AdamsBashforth, seed 0" in ended.out
    assert not ended.err


def test_a_plan_that_does_not_serve_is_not_used_and_said_so(rheos: Any, compiled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(compiled, run)
    words = ("sample", run, "--n", 5, "--out", tmp_path / "x.csv", "--evaluations", 4)
    few = rheos.done(*words[:-1], 3)
    assert "is not used: this plan begins at 4 evaluations, 3 are allowed" in few.err
    assert "AdamsBashforth" in few.out
    text = (run / "plan.json").read_text()
    (run / "plan.json").write_text(text.replace('"model": "', '"model": "0'))
    assert "is not used: this plan was compiled for another model" in rheos.done(*words).err
    (run / "plan.json").write_text(text[:100])
    assert "is not used: the plan is damaged" in rheos.done(*words).err


def test_what_cannot_be_compiled_is_refused(rheos: Any, compiled: Path, tmp_path: Path) -> None:
    before = rheos.prints(compiled)
    assert "has no classes; leave --guidance out" in rheos.refused("plan", compiled, *QUICK, "--guidance", 1, 4)
    assert "at least one evaluation, got [0]" in rheos.refused("plan", compiled, *QUICK[:4], "--evaluations", 0)
    assert "8 of each at least" in rheos.refused("plan", compiled, "--draws", 4)
    assert "is no run folder" in rheos.refused("plan", tmp_path / "none")
    assert rheos.prints(compiled) == before
