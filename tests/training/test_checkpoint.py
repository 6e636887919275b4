from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rheos.core import CheckpointError
from rheos.training import checkpoint, load_weights


def test_a_folder_comes_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), "b": torch.tensor(float("nan"))}
    numbers = {"scale": 0.1 + 0.2, "step": 1 << 60}
    folder = tmp_path / "deep" / "step-000001"
    checkpoint.write(folder, [("t.safetensors", checkpoint.pack(tensors)), ("n.json", checkpoint.to_json(numbers))])
    checkpoint.verify(folder)
    back = checkpoint.read_tensors(folder, "t")
    assert torch.equal(back["a"], tensors["a"])
    assert back["b"].isnan()
    assert checkpoint.read_json(folder, "n") == numbers


def test_a_folder_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "step-000001"
    checkpoint.write(folder, [("old.bin", b"1")])
    checkpoint.write(folder, [("new.bin", b"2")])
    checkpoint.verify(folder)
    assert sorted(p.name for p in folder.iterdir()) == [checkpoint.MANIFEST, "new.bin"]
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_tensors_that_share_memory_and_layouts_are_packed(tmp_path: Path) -> None:
    base = torch.arange(48.0).reshape(2, 3, 2, 4)
    tensors = {
        "whole": base,
        "tied": base,
        "part": base[1],
        "turned": base.to(memory_format=torch.channels_last),
        "narrow": base[..., 1],
    }
    checkpoint.write(tmp_path / "step-000001", [("t.safetensors", checkpoint.pack(tensors))])
    back = checkpoint.read_tensors(tmp_path / "step-000001", "t")
    for name, value in tensors.items():
        assert torch.equal(back[name], value)


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    for step in (1, 20, 3, 1_000_000):
        checkpoint.write(checkpoint.step_folder(tmp_path, step), [])
    (tmp_path / "step-notes").mkdir()
    checkpoint.prune(tmp_path, 2)
    assert checkpoint.steps(tmp_path) == [20, 1_000_000]


def test_numbers_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.to_json({"loss": float("nan")})


def test_weights_of_a_run_are_read_by_part(tmp_path: Path) -> None:
    files = []
    for name, value in (("model", 1.0), ("ema", 2.0)):
        tensors = {"network.w": torch.full((2,), value), "learned.path.w": torch.full((1,), -value)}
        files.append((f"{name}.safetensors", checkpoint.pack(tensors)))
    checkpoint.write(checkpoint.step_folder(tmp_path / "checkpoints", 5), files)
    assert load_weights(tmp_path)["w"].tolist() == [2.0, 2.0]
    assert load_weights(tmp_path, average=False)["w"].tolist() == [1.0, 1.0]
    assert load_weights(tmp_path, "learned.path", step=5)["w"].tolist() == [-2.0]
    with pytest.raises(CheckpointError, match=r"holds no 'learned\.other'"):
        load_weights(tmp_path, "learned.other")
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 6 \(there are \[5\]\)"):
        load_weights(tmp_path, step=6)
    with pytest.raises(CheckpointError, match="has no checkpoint; train it first"):
        load_weights(tmp_path / "none")
