import numpy as np
import pytest
import torch

from rheos.core import DataError
from rheos.data import open_images


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def everything(images):
    return images.read(torch.arange(len(images))).numpy()


@pytest.mark.parametrize("key", ["images", "x_train", "samples", "arr_0"])
@pytest.mark.parametrize("label_key", ["labels", "y_train", "y"])
def test_keys_of_npz(tmp_path, key, label_key):
    x = pixels(5, 8, 8)
    images = open_images(save(tmp_path / "a.npz", **{label_key: np.array([0, 2, 1, 2, 0]), key: x}))
    assert np.array_equal(everything(images)[:, 0], x)
    assert images.labels.tolist() == [0, 2, 1, 2, 0]
    assert images.classes == ("0", "1", "2")


def test_layouts(tmp_path):
    x = pixels(4, 8, 8, 3)
    np.save(tmp_path / "last.npy", x)
    np.save(tmp_path / "first.npy", x.transpose(0, 3, 1, 2))
    np.save(tmp_path / "grey.npy", x[..., :1])
    expected = x.transpose(0, 3, 1, 2)
    assert np.array_equal(everything(open_images(tmp_path / "last.npy")), expected)
    assert np.array_equal(everything(open_images(tmp_path / "first.npy")), expected)
    assert np.array_equal(everything(open_images(tmp_path / "grey.npy")), expected[:, :1])
    assert open_images(tmp_path / "last.npy").labels is None


def test_alpha_is_laid_on_white(tmp_path):
    x = pixels(3, 8, 8, 4)
    x[0, ..., 3], x[1, ..., 3], x[2, ..., 3] = 0, 255, 255
    np.save(tmp_path / "a.npy", x)
    out = everything(open_images(tmp_path / "a.npy"))
    assert out[0].min() == 255
    assert np.array_equal(out[1], x[1, ..., :3].transpose(2, 0, 1))


def test_sizes_of_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 10, 6, 3), 77, np.uint8))
    assert open_images(tmp_path / "a.npy").shape == (3, 4, 4)
    images = open_images(tmp_path / "a.npy", size=12, channels=1)
    assert images.shape == (1, 12, 12)
    assert set(everything(images).ravel().tolist()) == {77}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.float16])
def test_types(tmp_path, dtype):
    x = np.array([[[0, 51], [102, 255]]] * 2, np.uint8)
    stored = x.astype(dtype) if np.dtype(dtype).kind == "i" else (x / 255).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    assert np.array_equal(everything(open_images(tmp_path / "a.npy"))[:, 0], x)


def test_signed_unit_and_bool(tmp_path):
    x = np.array([[[-1.0, 1.0], [0.0, -0.6]]] * 2)
    np.save(tmp_path / "a.npy", x)
    assert everything(open_images(tmp_path / "a.npy"))[0, 0].ravel().tolist() == [0, 255, 128, 51]
    np.save(tmp_path / "b.npy", x > 0)
    assert everything(open_images(tmp_path / "b.npy"))[0, 0].ravel().tolist() == [0, 255, 0, 0]


def test_names_as_labels(tmp_path):
    images = open_images(save(tmp_path / "a.npz", images=pixels(3, 4, 4), labels=np.array(["pear", "apple", "pear"])))
    assert images.classes == ("apple", "pear")
    assert images.labels.tolist() == [1, 0, 1]


def test_fingerprint_of_arrays(tmp_path):
    x, y = pixels(4, 8, 8), np.arange(4)
    prints = [
        open_images(save(tmp_path / "a.npz", images=a, labels=b)).fingerprint
        for a, b in [(x, y), (x[::-1], y), (x, y[::-1]), (x.reshape(4, 4, 16), y)]
    ]
    assert len(set(prints)) == 4
    np.save(tmp_path / "b.npy", x)
    assert open_images(tmp_path / "b.npy").fingerprint not in prints
    np.save(tmp_path / "c.npy", x.astype(np.int32))
    assert open_images(tmp_path / "c.npy").fingerprint == open_images(tmp_path / "b.npy", size=4).fingerprint


def bad(values):
    out = np.random.default_rng(0).random((3, 4, 4))
    out[1, 2, 2] = values
    return out


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (bad(np.nan), "1 of 48 values are NaN or infinite, the first in image 1"),
        (bad(np.inf), "NaN or infinite"),
        (bad(200.0), "divide by 255, or save as uint8"),
        (bad(-3.0), r"lie in \[0, 1\] or \[-1, 1\], got -3 to"),
        (np.full((3, 4, 4), 300, np.int32), "0 to 255, got 300 to 300"),
        (np.full((3, 4, 4), -1, np.int8), "0 to 255, got -1"),
        (np.eye(4, dtype=np.uint8)[None].repeat(3, 0), "black"),
        (np.zeros((3, 4), np.uint8), "images have shape"),
        (np.zeros((3, 5, 5, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((3, 0, 4), np.uint8), "images have shape"),
        (np.zeros((0, 4, 4), np.uint8), "no images"),
        (np.full((1, 4, 4), 9, np.uint8), "one image"),
        (np.zeros((3, 4, 4), np.complex64), "complex64"),
        (np.array([[["a"]]] * 3), "<U1"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, x, message):
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(4), r"3 images but labels of shape \(4,\)"),
        (np.eye(3), r"labels of shape \(3, 3\)"),
        (np.array([0, -1, 2]), "whole numbers from 0"),
        (np.array([0.5, 1, 2]), "whole numbers from 0"),
        (np.array([0, 1, np.nan]), "whole numbers from 0"),
        (np.array([0, 1, 10**9]), "whole numbers from 0"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, message):
    with pytest.raises(DataError, match=message):
        open_images(save(tmp_path / "a.npz", images=pixels(3, 4, 4), labels=labels))


def test_files_that_are_no_arrays(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects.npy", "text.npy", "empty.npy"):
        with pytest.raises(DataError, match="cannot be read as an array"):
            open_images(tmp_path / name)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="not a readable zip"):
        open_images(tmp_path / "text.npz")
    with pytest.raises(DataError, match=r"no array of images .* keys are t"):
        open_images(save(tmp_path / "flat.npz", t=np.zeros(3)))
    with pytest.raises(DataError, match="zip bomb"):
        open_images(save(tmp_path / "bomb.npz", images=np.zeros((2, 4096, 4096), np.uint8)))


def test_a_flipped_bit_in_an_npz_is_found(tmp_path):
    path = save(tmp_path / "a.npz", images=pixels(3, 16, 16))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        open_images(path)
