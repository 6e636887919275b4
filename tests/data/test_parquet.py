import io
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from rheos.core import DataError, MissingExtraError
from rheos.data import open_images

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def encoded(draw):
    def png(number):
        buffer = io.BytesIO()
        Image.fromarray(draw(number)).save(buffer, "PNG")
        return buffer.getvalue()

    return [png(number) for number in range(12)]


def test_bytes_with_labels(tmp_path, encoded, draw):
    pq.write_table(pa.table({"label": [2, 0] * 6, "image": encoded}), tmp_path / "a.parquet", row_group_size=5)
    images = open_images(tmp_path / "a.parquet")
    assert images.labels.tolist() == [2, 0] * 6
    assert images.classes == ("0", "1", "2")
    for number in (0, 4, 5, 11):
        assert np.array_equal(images.read(torch.tensor([number]))[0, 0], draw(number))


def test_folder_of_hub_files(tmp_path, encoded, draw):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    schema = pa.schema([("image", kind), ("label", pa.int64())], metadata={"huggingface": json.dumps(features)})
    (tmp_path / "data").mkdir()
    for part in range(2):
        rows = [{"bytes": data, "path": f"{part}.png"} for data in encoded[6 * part : 6 * part + 6]]
        table = pa.table({"image": rows, "label": [0, 1, 0, 1, 0, 1]}, schema=schema)
        pq.write_table(table, tmp_path / "data" / f"train-{part:05d}.parquet", row_group_size=2)
    cached, lazy = open_images(tmp_path), open_images(tmp_path, cache_bytes=0)
    assert cached.classes == ("no", "yes")
    assert len(cached) == 12
    index = torch.tensor([11, 0, 7, 3])
    assert torch.equal(cached.read(index), lazy.read(index))
    assert torch.equal(pickle.loads(pickle.dumps(lazy)).read(index), cached.read(index))
    assert np.array_equal(cached.read(index)[0, 0], draw(11))
    assert cached.fingerprint == lazy.fingerprint


@pytest.mark.parametrize("names", [("train-00000-of-00001", "test-00000-of-00001"), ("train/0", "test/0")])
def test_only_the_training_files_are_read(tmp_path, encoded, names, draw):
    for name, rows in zip(names, (encoded[:4], encoded[4:]), strict=True):
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": rows}), path)
    images = open_images(tmp_path)
    assert len(images) == 4
    assert np.array_equal(images.read(torch.tensor([3]))[0, 0], draw(3))


def test_a_lone_column_of_bytes_and_names(tmp_path, encoded):
    pq.write_table(pa.table({"jpg": encoded, "class": ["b", "a"] * 6, "n": range(12)}), tmp_path / "a.parquet")
    images = open_images(tmp_path / "a.parquet")
    assert images.classes == ("a", "b")
    assert images.labels.tolist() == [1, 0] * 6


def test_rows_without_bytes_are_unreadable(tmp_path, encoded):
    rows = [{"bytes": data, "path": None} for data in encoded * 4]
    rows[3] = {"bytes": None, "path": "/etc/passwd"}
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    images = open_images(tmp_path / "a.parquet")
    assert len(images) == 47
    assert images.report.unreadable[0].name == "a.parquet[3]"
    assert "no bytes" in images.report.unreadable[0].reason


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b"]}, r"no column of images: .* text \(string\)"),
        ({"x": [b"1", b"2"], "z": [b"1", b"2"]}, r"2 columns of bytes \(x, z\)"),
        ({"image": [b"1", b"2"], "label": [None, 1]}, "1 rows without a label"),
        ({"image": [b"1", b"2"], "label": [-1, 1]}, "whole numbers from 0"),
        ({"image": [b"1"]}, "one image"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "no images"),
        ({"image": [b"1", b"2"]}, "2 of 2 images cannot be read"),
    ],
)
def test_tables_that_are_no_images(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "a.parquet")


def test_parts_that_differ_and_damage(tmp_path, encoded):
    pq.write_table(pa.table({"image": encoded}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": encoded, "label": range(12)}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has other columns"):
        open_images(tmp_path)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"b\.parquet is not a readable Parquet file"):
        open_images(tmp_path)


def test_without_pyarrow(tmp_path, encoded, monkeypatch):
    pq.write_table(pa.table({"image": encoded}), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r'pip install "rheos\[parquet\]"'):
        open_images(tmp_path / "a.parquet")
