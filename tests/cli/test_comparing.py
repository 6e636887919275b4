"""``rheos compare`` from the outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL = ("--steps", 40, "--batch", 32, "--width", 8, "--n", 20, "--rates", 0.003)


def test_a_comparison_is_made_resumed_and_kept_apart(rheos: Any, tmp_path: Path) -> None:
    words = ("compare", "toy", *SMALL, "--seeds", 1, "--contenders", "flow", "ddpm", "--out", tmp_path / "out")
    ended = rheos.done(*words)
    assert "comparison.html" in ended.out
    assert "2 of 2: DDPM, learning rate 0.003, seed 0" in ended.err
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(found["contenders"]) == ["flow", "ddpm"]
    text = (tmp_path / "out" / "comparison.html").read_text()
    assert "flow matching" in text
    assert text.count("<img class=samples") == 12
    # Nothing is trained again; more seeds and sides go on from there.
    again = rheos.done(*words)
    assert "of 2" not in again.err
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == found
    more = rheos.done(*words[:-4], "flow", "v", "--seeds", 2, "--out", tmp_path / "out")
    assert more.err.count("of 4:") == 3
    assert "other settings" in rheos.refused(*words, "--steps", 50)
    # A field that rheos did not have when the comparison began has its default.
    file = tmp_path / "out" / "study.json"
    content = json.loads(file.read_text())
    assert content["recipe"].pop("teacher", 0) is None
    file.write_text(json.dumps(content))
    assert "of 2" not in rheos.done(*words).err
    file.write_text("{")
    assert "damaged" in rheos.refused(*words)
    run = next((tmp_path / "out" / "runs" / "ddpm").glob("*/seed-0"))
    rheos.done("sample", run, "--n", 3, "--out", tmp_path / "x.png")


def test_models_of_few_steps_take_part(rheos: Any, tmp_path: Path) -> None:
    names = ("flow", "mean-flow", "flow-to-lagrangian", "reflow")
    words = ("compare", "toy", *SMALL, "--seeds", 1, "--contenders", *names, "--out", tmp_path / "out")
    assert "4 of 4: flow, then reflow, learning rate 0.003, seed 0" in rheos.done(*words).err
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [side["family"] for side in found["contenders"].values()] == ["flow", *["few steps"] * 3]
    text = (tmp_path / "out" / "comparison.html").read_text()
    assert text.count("<img class=samples") == 24
    assert "mean flow by its map" in text
    assert "made 64 pairs to learn from" in text
    assert "of 4" not in rheos.done(*words).err
    run = next((tmp_path / "out" / "runs" / "flow-to-lagrangian").glob("*/seed-0"))
    rheos.done("sample", run, "--n", 3, "--out", tmp_path / "x.png")
    assert "leave ':data' out" in rheos.refused(*words[:-1], tmp_path / "none", "--contenders", "mean-flow:data")


def test_what_cannot_be_compared_is_refused(rheos: Any, tmp_path: Path) -> None:
    words = ("compare", "toy", *SMALL, "--out", tmp_path / "out")
    assert "did you mean 'ddpm'" in rheos.refused(*words, "--contenders", "ddmp")
    assert "5 steps train nothing" in rheos.refused(*words, "--steps", 5)
    assert "--sweep is a choice of learning rates" in rheos.refused(*words, "--sweep")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    assert "is no comparison" in rheos.refused(*words[:-1], tmp_path / "full")
