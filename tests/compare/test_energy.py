"""Energy, by counters that files play."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from rheos.compare import energy

CPU = torch.device("cpu")


def zone(folder: Path, name: str, value: int, most: int = 999_999_999) -> Path:
    """A counter of microjoules."""
    (folder / name).mkdir(parents=True)
    (folder / name / "energy_uj").write_text(f"{value}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / name / "energy_uj"


def test_processors_are_summed_parts_of_them_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ZONES", tmp_path)
    monkeypatch.setattr(energy, "LEAST", 1e-9)
    one, other = zone(tmp_path, "intel-rapl:0", 5), zone(tmp_path, "intel-rapl:1", 8, most=9)
    part = zone(tmp_path, "intel-rapl:0:1", 0)
    (tmp_path / "intel-rapl:2").mkdir()

    def work() -> None:
        one.write_text("7")
        # Goes round: from 8 to 9 and 0, and three more.
        other.write_text("3")
        part.write_text("1")

    assert energy.joules(work, CPU) == pytest.approx(7e-6)


def test_short_work_is_done_until_the_counters_have_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ZONES", tmp_path)
    monkeypatch.setattr(energy, "LEAST", 0.1)
    counter, runs = zone(tmp_path, "intel-rapl:0", 0), [0]

    def work() -> None:
        time.sleep(0.01)
        runs[0] += 1
        counter.write_text(str(3_000_000 * runs[0]))

    assert energy.joules(work, CPU) == pytest.approx(3.0)
    assert runs[0] > 2


def test_nothing_is_run_where_nothing_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ZONES", tmp_path)
    assert energy.joules(pytest.fail, CPU) is None
    zone(tmp_path, "intel-rapl:0", 0).write_text("no number")
    assert energy.joules(pytest.fail, CPU) is None
