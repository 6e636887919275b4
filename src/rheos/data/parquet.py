"""Parquet files with a column of encoded images, as data hubs publish them (needs the extra ``parquet``)."""

from __future__ import annotations

import io
import json
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
from torch import Tensor

from ..core import DataError, MissingExtraError
from .labels import number_labels
from .source import Source, training_part

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "y", "target")
GROUPS_KEPT = 4


@final
class Parquet(Source):
    """The rows of Parquet files, in the files' order.

    The image column holds bytes, or structs with a field ``bytes``. A column named ``label`` (``labels``, ``class``,
    ``fine_label``, ``y``, ``target``) of integers or strings gives labels; Hugging Face's class names are read where
    they are stored. Row groups are read whole and the last four kept, so a set too large for memory is best written
    with small ones.

    Raises:
        MissingExtraError: if pyarrow is not installed.
        DataError: if a file is no Parquet file, differs in its columns, or has no column of images.
    """

    def __init__(self, parts: Sequence[Path]) -> None:
        reader = _pyarrow("pyarrow.parquet")
        self.ignored = 0
        self._starts: list[int] = []
        self._groups: list[tuple[Path, int]] = []
        self._fresh()
        names: list[str] = []
        labels: list[Any] = []
        schema, label = None, None
        for part in parts:
            try:
                file = reader.ParquetFile(part)
            except (OSError, ValueError) as error:
                raise DataError(f"{part} is not a readable Parquet file ({_first_line(error)}).") from error
            with file:
                if schema is None:
                    schema = file.schema_arrow
                    self._column, label = _image_column(schema, part), _label_column(schema)
                elif not schema.equals(file.schema_arrow):
                    raise DataError(f"{part} has other columns than {parts[0]}; give one of the two data sets.")
                for group in range(file.num_row_groups):
                    self._starts.append(len(names))
                    self._groups.append((part, group))
                    names += [
                        f"{part.name}[{len(names) + row}]" for row in range(file.metadata.row_group(group).num_rows)
                    ]
                if label:
                    labels += file.read(columns=[label], use_threads=False).column(label).to_pylist()
        self.names = names
        self.labels, self.classes = _labels(labels, schema, label, str(parts[0])) if label and labels else (None, ())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._fresh()

    def open(self, entry: int) -> BinaryIO:
        place = bisect_right(self._starts, entry) - 1
        cell = self._group(place)[entry - self._starts[place]].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not data:
            raise ValueError("the row holds no bytes (a path to another file is not followed)")
        return io.BytesIO(data)

    def _fresh(self) -> None:
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def _group(self, place: int) -> Any:
        with self._lock:
            if place not in self._kept:
                part, group = self._groups[place]
                with _pyarrow("pyarrow.parquet").ParquetFile(part) as file:
                    table = file.read_row_group(group, columns=[self._column], use_threads=False)
                self._kept[place] = table.column(self._column)
                if len(self._kept) > GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(place)
            return self._kept[place]


def training_files(names: Sequence[str]) -> list[str]:
    """Those of ``train`` among files like ``data/train-00000-of-00002.parquet`` or ``train/0.parquet``, else all."""
    as_folders = {re.sub(r"([^/]*?)([-_.][^/]*)$", r"\1/\2", name): name for name in names}
    return [as_folders[name] for name in training_part(list(as_folders))]


def _pyarrow(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            'reading Parquet needs pyarrow, which is not installed; run: pip install "rheos[parquet]"'
        ) from error


def _image_column(schema: Any, part: Path) -> str:
    types = _pyarrow("pyarrow.types")

    def binary(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    def encoded(kind: Any) -> bool:
        return binary(kind) or (types.is_struct(kind) and any(f.name == "bytes" and binary(f.type) for f in kind))

    found = [field.name for field in schema if encoded(field.type)]
    named = [name for name in found if name in IMAGE_COLUMNS]
    if len(found) == 1 or named:
        return (named or found)[0]
    if found:
        raise DataError(
            f"{part} has {len(found)} columns of bytes ({', '.join(found)}); name the one with images 'image'."
        )
    raise DataError(
        f"{part} has no column of images: expected bytes, or structs with a field 'bytes', got "
        f"{', '.join(f'{field.name} ({field.type})' for field in schema)}."
    )


def _label_column(schema: Any) -> str | None:
    return next((name for name in LABEL_COLUMNS if name in schema.names), None)


def _labels(values: list[Any], schema: Any, column: str, where: str) -> tuple[Tensor, tuple[str, ...]]:
    missing = sum(value is None for value in values)
    if missing:
        raise DataError(f"{where} has {missing} rows without a label in column {column!r}; fill or remove them.")
    labels, classes = number_labels(np.asarray(values), len(values), f"{where}, column {column!r}")
    names = () if isinstance(values[0], str) else _hub_names(schema, column)
    return labels, names if len(names) >= len(classes) else classes


def _hub_names(schema: Any, column: str) -> tuple[str, ...]:
    """The class names that Hugging Face's ``datasets`` stores in the schema's metadata, or none."""
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in stored["info"]["features"][column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
