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
    monkeypatch.setattr(energy, "LEAST", 0.05)
    one, other = zone(tmp_path, "intel-rapl:0", 5_000_000), zone(tmp_path, "intel-rapl:1", 999_000_000)
    part = zone(tmp_path, "intel-rapl:0:1", 0)
    (tmp_path / "intel-rapl:2").mkdir()

    def work() -> None:
        time.sleep(0.01)
        one.write_text(str(int(one.read_text()) + 2_000_000))
        # Goes round: a million left, and four from the beginning.
        other.write_text(str((int(other.read_text()) + 5_000_000) % 1_000_000_000))
        part.write_text(str(int(part.read_text()) + 1_000_000))

    assert energy.joules(work, CPU) == pytest.approx(7.0)
    assert int(other.read_text()) < 999_000_000


def test_nothing_is_run_where_nothing_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ZONES", tmp_path)
    assert energy.joules(pytest.fail, CPU) is None
    zone(tmp_path, "intel-rapl:0", 0).write_text("no number")
    assert energy.joules(pytest.fail, CPU) is None
