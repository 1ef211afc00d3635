"""Your own images from Parquet files, as Hugging Face writes them: a column of encoded images and one of labels.

The files are absolute or in DATA: `data/{split}-*.parquet`, where {split} becomes `train` or `test` and * anything;
`test_share` draws a split from all files instead. Images are bytes, or a struct with `bytes`. Where Hugging Face's
metadata name the labels, classes are in that order; else, of both splits, by value where all labels are whole numbers,
else by name. One row group at a time is in memory. How pixels are read: oodbench/toolkit/image_files.py. Needs pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.api import Dataset, Images
from oodbench.errors import suggestion
from oodbench.toolkit.image_files import (
    SPLIT,
    Bits,
    Encoded,
    Share,
    Split,
    check_split,
    decode,
    drawn,
    in_order,
    numbered,
)

ONE = "images"  # the class of images without labels


class Parquet(Dataset):
    """Parquet: your own images from Parquet files, as Hugging Face writes them."""

    path: str = "images/{split}-*.parquet"
    image_column: str = "image"
    label_column: str | None = "label"  # None: one class
    train: str = "train"  # what {split} stands for
    test: str = "test"
    test_share: Share | None = None  # None: files for each split; else of each class; 1: everything is test
    draw: int = 0  # seed of test_share
    bits: Bits | None = None  # of 16-bit images; None: all 16, and an image that fills fewer is refused

    def __post_init__(self) -> None:
        check_split(self.path, self.test_share)

    @property
    def requires(self) -> dict[str, str]:
        return {"pyarrow": "pip install 'oodbench[parquet]'"}

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        return list(dict.fromkeys([*self._files("train", root), *self._files("test", root)]))

    def load(self, split: Split, root: Path) -> Images:
        files = self._files(split, root)
        if not files:
            raise FileNotFoundError(f"there is no file {root / self._pattern(split)}")
        labels = [label for file in files for label in self._labels(file)]
        classes = self._classes(root)
        y = numbered(labels, classes)
        cells = _Cells(files, self.image_column)
        at = np.arange(len(y)) if self.test_share is None else drawn(y, self.test_share, self.draw, split)
        if not len(at):
            raise ValueError(f"{root / self._pattern(split)} holds no images")
        return Images(Encoded(len(at), lambda i: decode(*cells.cell(int(at[i])), self.bits)), y[at], classes)

    def _pattern(self, split: Split) -> str:
        return str(Path(self.path.replace(SPLIT, self.train if split == "train" else self.test)).expanduser())

    def _files(self, split: Split, root: Path) -> list[Path]:
        return [root / name for name in sorted(glob(self._pattern(split), root_dir=root))]

    def _classes(self, root: Path) -> tuple[str, ...]:
        files = self.files("train", root)
        if self.label_column is None:
            return (ONE,)
        named = {_names(file, self.label_column) for file in files}
        if len(named) > 1:
            raise ValueError(f"the files of {root / self.path} differ in the names of their classes")
        return named.pop() or in_order(label for file in files for label in self._labels(file))

    def _labels(self, file: Path) -> list[str]:
        """Return the label of each image as text, by name where the file has names."""
        if self.label_column is None:
            return [ONE] * int(_opened(file).metadata.num_rows)
        _check_column(file, self.label_column)
        names = _names(file, self.label_column)
        values = _opened(file).read([self.label_column]).column(self.label_column).to_pylist()
        for i, value in enumerate(values):
            if not isinstance(value, int | str):
                raise ValueError(f"{file}, row {i}: the label is {value!r}, wanted is a whole number or text")
            if names and value not in range(len(names)):
                raise ValueError(f"{file}, row {i}: the label is {value!r}, names are there for 0 to {len(names) - 1}")
        return [names[value] if names else str(value) for value in values]


class _Cells:
    """The encoded images of Parquet files one after the other, one row group at a time in memory."""

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self._column = column
        self._groups: list[tuple[Path, int, int]] = []  # file, row group, its first row in the file
        starts = [0]
        for file in files:
            _check_column(file, column)
            data, first = _opened(file).metadata, 0
            for group in range(data.num_row_groups):
                self._groups.append((file, group, first))
                first += data.row_group(group).num_rows
                starts.append(starts[-1] + data.row_group(group).num_rows)
        self._starts = np.array(starts)
        self._held: tuple[int, Any] = (-1, None)  # number of a row group, and its column

    def _find(self, i: int) -> tuple[int, int]:
        """Return the row group of a row, and the row's place in it."""
        group = int(np.searchsorted(self._starts, i, side="right")) - 1
        return group, i - int(self._starts[group])

    def cell(self, i: int) -> tuple[bytes, str]:
        """Return the encoded image of a row, and where it is."""
        group, row = self._find(i)
        file, number, first = self._groups[group]
        where = f"{file}, row {first + row}"
        if self._held[0] != group:
            self._held = group, _read(file, number, self._column)
        cell = self._held[1][row].as_py()
        raw = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(raw, bytes):
            raise ValueError(f"{where}: '{self._column}' holds no image: wanted are bytes, or a struct with `bytes`")
        return raw, where


def _opened(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is not a readable Parquet file: {error}") from error


def _read(file: Path, group: int, column: str) -> Any:
    try:
        return _opened(file).read_row_group(group, columns=[column]).column(column)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: '{column}' cannot be read: {error}") from error


def _check_column(file: Path, column: str) -> None:
    names = _opened(file).schema_arrow.names
    if column not in names:
        raise ValueError(f"{file} has no column '{column}'{suggestion(column, names)}")


def _names(file: Path, column: str) -> tuple[str, ...]:
    """Return Hugging Face's names of the labels 0, 1, ... where a file has them."""
    raw = (_opened(file).schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(raw).get("info", {}).get("features", {})
    return tuple(features.get(column, {}).get("names") or ())
