"""Your own images, listed in a CSV file with a header: a column of paths, one of labels, one of splits.

PATH is absolute or in DATA; a file that ends in .tsv has tabs. Paths of images are absolute, or relative to the file
or to `root` (absolute or in DATA). Rows of the splits that `leave_out` names are not used, and any other word in that
column is refused; `test_share` draws the split instead and looks at no column. Classes, of all rows, are numbered by
value where all labels are whole numbers, else by name. How pixels are read: oodbench/toolkit/image_files.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from oodbench.api import Dataset, Images
from oodbench.errors import suggestion
from oodbench.toolkit import image_files
from oodbench.toolkit.image_files import Row, Share, Split


class Csv(Dataset):
    """CSV: your own images, listed in a table with a header."""

    path: str = "images.csv"  # absolute or in DATA
    root: str | None = None  # folder of the images; None: that of the file
    path_column: str = "path"  # name of the column of images' paths
    label_column: str | None = "label"  # None: one class
    split_column: str = "split"  # name of the column of splits
    train: str = "train"  # what the split column says
    test: str = "test"  # the same of the test split
    leave_out: tuple[str, ...] = ("val",)  # further splits that the column may name; their images are not used
    test_share: Share | None = None  # None: by the split column; else of each class; 1: everything is test
    draw: int = 0  # seed of test_share
    bits: image_files.Bits | None = None  # of 16-bit images, of which the upper 8 are kept; None: not said
    range: image_files.Range | None = None  # of 16-bit grey images and floats: what becomes 0 and 255; None: not said
    exif: bool = False  # turn images by EXIF's orientation
    skip_damaged: bool = False  # leave out files that cannot be decoded, and say how many; False: they are refused
    separator: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None  # None: by the ending

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        file = image_files.located(root, self.path)
        if not file.is_file():
            return []
        try:
            rows = self._rows(root)
        except ValueError:  # `load` says what is wrong
            return [file]
        return [file, *(row.path for row, _ in rows if row.path.is_file())]

    def load(self, split: Split, root: Path) -> Images:
        file = image_files.located(root, self.path)
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
        pairs = self._rows(root)
        image_files.check_distinct(row for row, _ in pairs)
        classes = image_files.in_order(row.label for row, _ in pairs)
        if self.test_share is not None:
            y = image_files.numbered((row.label for row, _ in pairs), classes)
            chosen = [pairs[i][0] for i in image_files.drawn(y, self.test_share, self.draw, split)]
        else:
            chosen = self._of_split(split, pairs, file)
        y = image_files.numbered((row.label for row in chosen), classes)
        how = image_files.Decoding(self.bits, self.range, self.exif)
        return Images(image_files.of_rows(chosen, how), y, classes)

    def _of_split(self, split: Split, pairs: list[tuple[Row, str]], file: Path) -> list[Row]:
        wanted = self.train if split == "train" else self.test
        chosen = [row for row, said in pairs if said == wanted]
        if not chosen:
            hint = suggestion(wanted, {said for _, said in pairs})
            raise ValueError(f"{file}: no row has the split '{wanted}' in the column '{self.split_column}'{hint}")
        return chosen

    def _rows(self, root: Path) -> list[tuple[Row, str]]:
        """Return the images and what the split column says of them ('' where the split is drawn)."""
        file = image_files.located(root, self.path)
        folder = file.parent if self.root is None else image_files.located(root, self.root)
        split_column = None if self.test_share is not None else self.split_column
        columns = [each for each in (self.path_column, self.label_column, split_column) if each is not None]
        found = []
        for where, cells in self._lines(file, columns):
            path = _cell(cells, self.path_column, where)
            label = "images" if self.label_column is None else _cell(cells, self.label_column, where)
            said = "" if split_column is None else self._split_of(cells, where)
            found.append((image_files.listed(folder, where, path, label), said))
        if not found:
            raise ValueError(f"{file} lists no images")
        return found

    def _split_of(self, cells: dict[str, str | None], where: str) -> str:
        said, known = _cell(cells, self.split_column, where), (self.train, self.test, *self.leave_out)
        if said not in known:
            raise ValueError(f"{where}: there is no split '{said}'{suggestion(said, known)}")
        return said

    def _lines(self, file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str | None]]]:
        """Yield FILE:LINE and the cells of each row by column."""
        separator = self.separator or ("\t" if file.suffix.lower() == ".tsv" else ",")
        reader = csv.DictReader(io.StringIO(image_files.text_of(file), newline=""), delimiter=separator)
        try:
            names = reader.fieldnames or ()
            for column in columns:
                if column not in names:
                    raise ValueError(f"{file} has no column '{column}'{suggestion(column, names)}")
            for cells in reader:
                yield f"{file}:{reader.line_num}", cells
        except csv.Error as error:
            raise ValueError(f"{file}, after line {reader.line_num}: {error}") from error


def _cell(cells: dict[str, str | None], column: str, where: str) -> str:
    value = (cells[column] or "").strip()
    if not value:
        raise ValueError(f"{where}: the column '{column}' is empty")
    return value
