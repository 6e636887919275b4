"""A run folder says all of its run, appears whole, and is refused in a sentence when it is not what was written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rheos.core import CheckpointError
from rheos.nn import MLP
from rheos.recipes import Run, toy


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", toy(width=8), 3, {"recipe": "toy", "options": {"width": 8}}).create()


def change(run: Run, **fields: Any) -> None:
    file = run.folder / "run.json"
    content = json.loads(file.read_text())
    for name, value in fields.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    file.write_text(json.dumps(content))


def test_what_is_created_is_opened(run: Run) -> None:
    assert Run.open(run.folder) == run
    assert Run.exists(run.folder)
    assert [file.name for file in run.folder.iterdir()] == ["run.json"]


def test_the_network_is_a_function_of_the_seed(run: Run) -> None:
    one, two = Run.open(run.folder).network().state_dict(), run.network().state_dict()
    assert isinstance(run.network(), MLP)
    assert all(one[name].equal(two[name]) for name in one)
    other = Run(run.folder, run.recipe, 4, {}).network().state_dict()
    assert any(not one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "[" * 100_000,
        '{"format": 2}',
        '{"format": 2, "seed": "x", "recipe": {}, "request": {}}',
        '{"format": 2, "seed": Infinity, "recipe": {}, "request": {}}',
        '{"format": 2, "seed": 0, "recipe": {}, "request": 5}',
        '{"format": 2, "seed": 0, "recipe": {}, "request": {"options": 5}}',
        "\x00\xff",
    ],
)
def test_damage_is_named(run: Run, text: str) -> None:
    (run.folder / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        Run.open(run.folder)


def test_every_cut_of_the_file_is_refused(run: Run) -> None:
    file = run.folder / "run.json"
    content = file.read_bytes().rstrip()
    for length in range(0, len(content), 97):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            Run.open(run.folder)


def test_another_recipe_object_is_refused(run: Run) -> None:
    change(run, recipe={"class": "rheos.schedules.straight:Linear"})
    with pytest.raises(CheckpointError, match="holds no recipe"):
        Run.open(run.folder)


def test_another_format_is_named_even_without_its_fields(run: Run) -> None:
    change(run, format=3, seed=None, recipe=None)
    with pytest.raises(CheckpointError, match="has format 3, this version of rheos reads format 2"):
        Run.open(run.folder)


def test_foreign_code_is_not_run(run: Run) -> None:
    change(run, recipe={"class": "os:system", "command": "touch /tmp/never"})
    with pytest.raises(CheckpointError, match="outside rheos, 'os:system', which is not run"):
        Run.open(run.folder)


def test_options_that_fit_no_network_are_named(run: Run) -> None:
    content = json.loads((run.folder / "run.json").read_text())
    for options in ({"shape": 2, "breadth": 3}, {"shape": "x"}, {"shape": 2, "width": -4}):
        content["recipe"]["network"]["options"] = options
        (run.folder / "run.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"MLP|width|shape") as caught:
            Run.open(run.folder).network()
        assert "rheos" in type(caught.value).__module__


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "none", tmp_path / "file", tmp_path):
        with pytest.raises(CheckpointError, match="is no run folder"):
            Run.open(place)


def test_a_folder_of_others_is_not_taken(tmp_path: Path) -> None:
    assert not Run.exists(tmp_path)
    assert not Run.exists(tmp_path / "none")
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(CheckpointError, match="is no run folder; give --out another name"):
        Run.exists(tmp_path)
    with pytest.raises(CheckpointError, match="is no run folder"):
        Run.exists(tmp_path / "thesis.tex")


def test_a_kill_while_it_is_written_leaves_a_folder_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", toy(width=8), 0, {})
    with monkeypatch.context() as patch:

        def killed(*paths: Any) -> None:
            raise SystemExit

        patch.setattr(os, "fsync", killed)
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(SystemExit):
            run.create()
    assert [file.name.endswith(".draft") for file in run.folder.iterdir()] == [True]
    assert not Run.exists(run.folder)
    assert Run.open(run.create().folder) == run
