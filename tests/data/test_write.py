import os

import numpy as np
import pytest
import torch
from PIL import Image

from rheos.core import InputError, RheosError, ShapeError
from rheos.data import grid_image, open_images, write_folder, write_npz, write_png

LABELS = torch.tensor([1, 0, 1, 2, 0])


def samples(count=5, channels=3, height=8, width=8):
    return torch.randint(0, 256, (count, channels, height, width), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def test_grid_places_samples_row_by_row():
    x = samples(5, 3, 8, 6)
    sheet = np.asarray(grid_image(x, columns=3, padding=2, scale=1))
    assert sheet.shape == (2 * 8 + 3 * 2, 3 * 6 + 4 * 2, 3)
    assert np.array_equal(sheet[2:10, 2:8], x[0].permute(1, 2, 0))
    assert np.array_equal(sheet[2:10, 18:24], x[2].permute(1, 2, 0))
    assert np.array_equal(sheet[12:20, 10:16], x[4].permute(1, 2, 0))
    assert sheet[12:20, 18:24].min() == 255
    assert sheet[:2].min() == sheet[:, :2].min() == sheet[10:12].min() == 255


def test_tiny_images_are_magnified_pixel_by_pixel():
    x = samples(1, 1, 8, 8)
    sheet = np.asarray(grid_image(x, padding=0))
    assert sheet.shape == (32, 32)
    assert np.array_equal(sheet[::4, ::4], x[0, 0])
    assert np.array_equal(sheet[3::4, 3::4], x[0, 0])
    assert grid_image(samples(1, 3, 28, 28), padding=0).size == (28, 28)
    assert grid_image(samples(1, 3, 64, 64), padding=0).size == (64, 64)
    assert grid_image(samples(64, 1, 8, 8), padding=0).size == (256, 256)


def test_png_is_the_grid(tmp_path):
    x = samples()
    write_png(tmp_path / "new" / "grid.png", x)
    with Image.open(tmp_path / "new" / "grid.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(grid_image(x)))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_npz_reads_back(tmp_path):
    x = samples()
    write_npz(tmp_path / "a.npz", x, LABELS)
    with np.load(tmp_path / "a.npz") as file:
        assert file["samples"].shape == (5, 8, 8, 3)
        assert file["samples"].dtype == np.uint8
        assert file["labels"].tolist() == LABELS.tolist()
    images = open_images(tmp_path / "a.npz")
    assert torch.equal(images.read(torch.arange(5)), x)
    assert torch.equal(images.labels, LABELS)
    write_npz(tmp_path / "b.npz", x)
    with np.load(tmp_path / "b.npz") as file:
        assert list(file) == ["samples"]


def test_equal_samples_make_equal_files(tmp_path):
    for name in ("a", "b"):
        write_npz(tmp_path / f"{name}.npz", samples(), LABELS)
        write_png(tmp_path / f"{name}.png", samples())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_reads_back(tmp_path, channels):
    x = samples(5, channels)
    write_folder(tmp_path / "flat", x)
    assert sorted(file.name for file in (tmp_path / "flat").iterdir()) == [f"{number:05d}.png" for number in range(5)]
    assert torch.equal(open_images(tmp_path / "flat").read(torch.arange(5)), x)
    write_folder(tmp_path / "named", x, LABELS, ["a", "b", "c"])
    images = open_images(tmp_path / "named")
    assert images.classes == ("a", "b", "c")
    assert torch.equal(images.read(torch.arange(5)), x[LABELS.argsort(stable=True)])
    assert torch.equal(images.labels, LABELS.sort().values)
    write_folder(tmp_path / "numbered", x, LABELS)
    assert open_images(tmp_path / "numbered").classes == ("0", "1", "2")


def test_samples_do_not_mix(tmp_path):
    write_folder(tmp_path / "a", samples())
    with pytest.raises(InputError, match="not an empty folder"):
        write_folder(tmp_path / "a", samples())


@pytest.mark.parametrize("name", ["../up", "", "..", "a/b"])
def test_class_names_stay_inside(tmp_path, name):
    with pytest.raises(InputError, match="cannot name a folder"):
        write_folder(tmp_path / "a", samples(), LABELS, ["x", "y", name])
    assert not (tmp_path / "a").exists()


def test_refused_samples(tmp_path):
    for x in (samples().float(), samples()[0], samples(2, 2), samples(0)):
        with pytest.raises(ShapeError, match="images are uint8"):
            grid_image(x)
    with pytest.raises(ShapeError, match="5 images need labels"):
        write_npz(tmp_path / "a.npz", samples(), LABELS[:3])
    with pytest.raises(InputError, match="2 classes"):
        write_folder(tmp_path / "a", samples(), LABELS, ["x", "y"])
    with pytest.raises(InputError, match="columns and scale"):
        grid_image(samples(), padding=-1)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    write_npz(tmp_path / "a.npz", samples(2))
    write_npz(tmp_path / "a.npz", samples())
    assert len(open_images(tmp_path / "a.npz")) == 5
    before = (tmp_path / "a.npz").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RheosError, match=r"a\.npz could not be written: the disk is full"):
        write_npz(tmp_path / "a.npz", samples(3))
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(RheosError, match="could not be written"):
        write_png(tmp_path / "file" / "a.png", samples())
