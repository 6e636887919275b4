"""Folders of small images, drawn from counters so that every picture is another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(number: int, height: int = 8, width: int = 8, channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(number).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


@pytest.fixture
def draw():
    return picture


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Three classes of 4 grey 8 x 8 images, and a file that is none."""
    root = tmp_path / "classes"
    for label, name in enumerate(["cat", "bee", "ant"]):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(picture(10 * label + number)).save(root / name / f"{number}.png")
    (root / "notes.txt").write_text("not an image")
    return root
