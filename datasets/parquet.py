"""Your own images from Parquet files, as Hugging Face writes them: a column of encoded images and one of labels.

The files are absolute or in DATA: `data/{split}-*.parquet`, where {split} becomes `train` or `test` and * anything;
`test_share` draws a split from all files instead. Images are bytes, or a struct with `bytes`. Where Hugging Face's
metadata name the labels, classes are in that order; else, of both splits, by value where all labels are whole numbers,
else by name. One row group at a time is in memory. How pixels are read: oodbench/toolkit/image_files.py. Needs pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.api import Dataset, Images
from oodbench.errors import suggestion
from oodbench.toolkit import image_files

ONE = "images"  # the class of images without labels


class Parquet(Dataset):
    """Parquet: your own images from Parquet files, as Hugging Face writes them."""

    path: str = "images/{split}-*.parquet"  # absolute or in DATA
    image_column: str = "image"  # name of the column of images
    label_column: str | None = "label"  # None: one class
    train: str = "train"  # what {split} stands for
    test: str = "test"  # the same of the test split
    test_share: image_files.Share | None = None  # None: files for each split; else of each class; 1: everything is test
    draw: int = 0  # seed of test_share
    bits: image_files.Bits | None = None  # of 16-bit images, of which the upper 8 are kept; None: not said
    range: image_files.Range | None = None  # of 16-bit grey images and floats: what becomes 0 and 255; None: not said
    exif: bool = False  # turn images by EXIF's orientation
    skip_damaged: bool = False  # leave out files that cannot be decoded, and say how many; False: they are refused

    def __post_init__(self) -> None:
        image_files.check_split(self.path, self.test_share)

    @property
    def requires(self) -> dict[str, str]:
        return {"pyarrow": "pip install 'oodbench[parquet]'"}

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        return list(dict.fromkeys([*self._files("train", root), *self._files("test", root)]))

    def load(self, split: image_files.Split, root: Path) -> Images:
        files = self._files(split, root)
        if not files:
            raise FileNotFoundError(f"there is no file {root / self._pattern(split)}")
        labels = [label for file in files for label in self._labels(file)]
        classes = self._classes(root)
        y = image_files.numbered(labels, classes)
        cells = _Cells(files, self.image_column)
        at = np.arange(len(y)) if self.test_share is None else image_files.drawn(y, self.test_share, self.draw, split)
        if not len(at):
            raise ValueError(f"{root / self._pattern(split)} holds no images")
        how = image_files.Decoding(self.bits, self.range, self.exif)
        x = image_files.Encoded(len(at), lambda i: image_files.decode(*cells.cell(int(at[i])), how))
        return Images(x, y[at], classes)

    def _pattern(self, split: image_files.Split) -> str:
        name = self.path.replace(image_files.SPLIT, self.train if split == "train" else self.test)
        return str(Path(name).expanduser())

    def _files(self, split: image_files.Split, root: Path) -> list[Path]:
        return [root / name for name in sorted(glob(self._pattern(split), root_dir=root))]

    def _classes(self, root: Path) -> tuple[str, ...]:
        files = self.files("train", root)
        if self.label_column is None:
            return (ONE,)
        named = {_names(file, self.label_column) for file in files}
        if len(named) > 1:
            raise ValueError(f"the files of {root / self.path} differ in the names of their classes")
        return named.pop() or image_files.in_order(label for file in files for label in self._labels(file))

    def _labels(self, file: Path) -> list[str]:
        """Return the label of each image as text, by name where the file has names."""
        if self.label_column is None:
            return [ONE] * int(_opened(file).metadata.num_rows)
        _check_column(file, self.label_column)
        values = _opened(file).read([self.label_column]).column(self.label_column).to_pylist()
        return image_files.as_text(values, _names(file, self.label_column), str(file))


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
        self._last = lru_cache(maxsize=1)(_read)

    def cell(self, i: int) -> tuple[bytes, str]:
        """Return the encoded image of a row, and where it is."""
        at = int(np.searchsorted(self._starts, i, side="right")) - 1
        (file, group, first), row = self._groups[at], i - int(self._starts[at])
        where, cell = f"{file}, row {first + row}", self._last(file, group, self._column)[row].as_py()
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
