"""A checkpoint with anything wrong in it is refused by the name of the file, and the one before it is used."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path

import pytest
import torch

from rheos.core import CheckpointError
from rheos.training import checkpoint

PARENT = "checkpoints"


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Two small checkpoints, of steps 1 and 2."""
    for step in (1, 2):
        tensors = {"network.weight": torch.arange(12.0).reshape(3, 4) + step, "network.bias": torch.zeros(3)}
        files = [(f"{name}.safetensors", checkpoint.pack(tensors)) for name in ("model", "ema", "optimizer")]
        state = checkpoint.to_json({"step": step, "learning_rate_scale": 0.1 + 0.2})
        checkpoint.write(checkpoint.step_folder(tmp_path, step), [*files, ("state.json", state)])
    return tmp_path


def test_an_untouched_checkpoint_is_whole(parent: Path) -> None:
    assert checkpoint.latest_valid(parent) == 2


def test_a_thousand_flipped_bits_and_truncations(parent: Path) -> None:
    chance = random.Random(0)
    folder = checkpoint.step_folder(parent, 2)
    files = sorted(folder.iterdir())
    assert len(files) == 5
    for trial in range(1000):
        path = files[trial % len(files)]
        whole = path.read_bytes()
        if trial % 10 < 7:
            bit = chance.randrange(8 * len(whole))
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
        else:
            damaged = whole[: chance.randrange(len(whole))]
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=path.name.replace(".", r"\.")):
            checkpoint.verify(folder)
        if trial % 50 == 0:
            assert checkpoint.latest_valid(parent) == 1
        path.write_bytes(whole)
    checkpoint.verify(folder)


def test_missing_and_foreign_files_are_named(parent: Path) -> None:
    folder = checkpoint.step_folder(parent, 2)
    for path in sorted(folder.iterdir()):
        moved = path.rename(parent / "moved")
        with pytest.raises(CheckpointError, match=f"{path.name} is missing"):
            checkpoint.verify(folder)
        moved.rename(path)
    (folder / "extra.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"extra\.bin is not in the manifest"):
        checkpoint.verify(folder)


def test_the_damaged_one_is_named_in_the_log(parent: Path, caplog: pytest.LogCaptureFixture) -> None:
    (checkpoint.step_folder(parent, 2) / "ema.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest_valid(parent) == 1
    assert "step-000002/ema.safetensors is damaged" in caplog.text


def test_all_damaged_is_an_error_that_names_each(parent: Path) -> None:
    for step in (1, 2):
        (checkpoint.step_folder(parent, step) / "state.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"step-000002/state\.json is missing.*step-000001/state\.json is missing"
    ):
        checkpoint.latest_valid(parent)


def test_no_folder_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.latest_valid(tmp_path / "none") is None


def test_a_kill_between_the_two_renames_loses_nothing(parent: Path) -> None:
    folder = checkpoint.step_folder(parent, 2)
    folder.rename(folder.with_name(".step-000002.former"))
    shutil.copytree(checkpoint.step_folder(parent, 1), folder.with_name(".step-000003.draft"))
    checkpoint.recover(parent)
    assert checkpoint.latest_valid(parent) == 2
    assert sorted(p.name for p in parent.iterdir()) == ["step-000001", "step-000002"]
