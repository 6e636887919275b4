from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from rheos.training.distributed import Layout
from rheos.training.journal import Journal, Window, cut, span


def lines(path: Path) -> list[int]:
    return [json.loads(text)["step"] for text in path.read_text().splitlines()]


def test_lines_behind_a_step_and_broken_ones_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 10}\n{"step": 15}\n{"step": 2')
    cut(path, 20)
    assert lines(path) == [5, 10, 15]
    cut(path, 10)
    assert lines(path) == [5, 10]
    cut(tmp_path / "none.jsonl", 10)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_window_is_the_mean_over_steps_and_parts() -> None:
    window = Window()
    for loss in (1.0, 3.0):
        parts = [{"near": torch.tensor([loss, 0.0])}, {"near": torch.tensor([0.0, 2.0])}]
        window.add([torch.tensor(loss), torch.tensor(2.0)], parts, torch.tensor(4.0))
    assert window.means(Layout()) == {"loss": 2.0, "gradient_norm": 4.0, "near": 1.0}
    assert window.means(Layout()) == {}


def test_steps_that_were_skipped_do_not_count() -> None:
    window = Window()
    for loss in (1.0, math.nan, 2.0):
        window.add([torch.tensor(loss)], [{}], torch.tensor(1.0 if loss == loss else math.inf))
    assert window.means(Layout()) == {"loss": 1.5, "gradient_norm": 1.0}


def test_a_window_that_is_saved_in_the_middle_is_the_same() -> None:
    values = [0.1, 0.7, 1 / 3, 2e-7, 5.0]
    whole, halved = Window(), Window()
    for number, value in enumerate(values):
        for window in (whole, halved):
            window.add([torch.tensor(value)], [{}], torch.tensor(value))
        if number == 2:
            kept = json.loads(json.dumps(halved.read(Layout())))
            halved = Window()
            halved.restore(kept)
    assert halved.means(Layout()) == whole.means(Layout())


def test_a_journal_goes_on_where_it_is_told(tmp_path: Path) -> None:
    for begin, last in ((0, 4), (2, 3)):
        journal = Journal(tmp_path, 4, Layout(), progress=False)
        journal.begin(begin)
        for step in range(begin + 1, last + 1):
            journal.line(step, {"loss": 1.0}, rows=8)
        journal.close()
    assert lines(tmp_path / "metrics.jsonl") == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_process_that_does_not_lead_is_silent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", 4, Layout(rank=1, world=2))
    journal.begin(0)
    journal.line(1, {"loss": 1.0}, rows=8)
    journal.sync()
    journal.close()
    assert not (tmp_path / "run").exists()


def test_progress_without_a_terminal_is_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path, 2, Layout())
    journal.begin(0)
    journal.line(1, {"loss": 0.5}, rows=8)
    journal.line(2, {"loss": 0.25}, rows=8)
    journal.close()
    text = capsys.readouterr().err.splitlines()
    assert text[0].startswith("step 1/2  loss 0.5000")
    assert text[-1] == "step 2/2  loss 0.2500  0 s left"


@pytest.mark.parametrize(("seconds", "text"), [(41.6, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")])
def test_spans_for_a_reader(seconds: float, text: str) -> None:
    assert span(seconds) == text
