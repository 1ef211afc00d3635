"""A data set of Hugging Face's `datasets`: by its name on the Hub, or from a folder that the library reads.

PATH is a folder, absolute or in DATA (Parquet files, a folder of images, or what `save_to_disk` wrote), else a name on
the Hub such as `ylecun/mnist`. A set of the Hub needs `revision`, the hash of a commit: a branch moves, and results
would not say what they were made of. What is downloaded and converted is kept in DATA/huggingface. Images are decoded
when indexed, as oodbench/toolkit/image_files.py says. Where the library names the classes they are in that order; else,
of both splits, by value where all labels are whole numbers, else by name. Needs `datasets`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import StringConstraints

from oodbench.api import Dataset, Images
from oodbench.errors import suggestion
from oodbench.toolkit import image_files
from oodbench.toolkit.offline import hub

ONE = "images"  # the class of images without labels


class HuggingFace(Dataset):
    """Hugging Face: a data set of the Hub, or a folder that its library reads."""

    path: str = "images"  # a folder, absolute or in DATA, or a name on the Hub
    config: str | None = None  # where the set has several, as the library's `name`
    image_column: str = "image"  # name of the column of images
    label_column: str | None = "label"  # None: one class
    train: str | None = "train"  # the library's name of the split; None: test images alone
    test: str = "test"  # the same of the test split
    bits: image_files.Bits | None = None  # of 16-bit images, of which the upper 8 are kept; None: not said
    range: image_files.Range | None = None  # of 16-bit grey images and floats: what becomes 0 and 255; None: not said
    exif: bool = False  # turn images by EXIF's orientation
    skip_damaged: bool = False  # leave out files that cannot be decoded, and say how many; False: they are refused
    revision: Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")] | None = None  # commit of a set of the Hub

    @property
    def requires(self) -> dict[str, str]:
        return {"datasets": "pip install 'oodbench[huggingface]'"}

    @property
    def splits(self) -> tuple[image_files.Split, ...]:
        return ("test",) if self.train is None else ("train", "test")

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        return [path for _, files in image_files.walk(image_files.located(root, self.path)) for path in files]

    def load(self, split: image_files.Split, root: Path) -> Images:
        image_files.check_has(self, split)
        table = self._table(split, root)
        labels, classes = self._labels(table), self._classes(table, split, root)
        cells = table.select_columns([self.image_column]).cast_column(self.image_column, _library().Image(decode=False))
        how = image_files.Decoding(self.bits, self.range, self.exif)
        where = f"{self.path}, {getattr(self, split)}"

        def image(i: int) -> NDArray[np.uint8]:
            cell = cells[i][self.image_column]
            raw = Path(cell["path"]).read_bytes() if cell["bytes"] is None else bytes(cell["bytes"])
            return image_files.decode(raw, f"{where}, row {i}", how)

        return Images(image_files.Encoded(len(table), image), image_files.numbered(labels, classes), classes)

    def _table(self, split: image_files.Split, root: Path) -> Any:
        """Return a split as the library has it; its columns are checked."""
        library, name = _library(), getattr(self, split)
        folder = image_files.located(root, self.path)
        if any((folder / written).is_file() for written in ("dataset_dict.json", "state.json")):  # by `save_to_disk`
            table = library.load_from_disk(str(folder))
            if isinstance(table, library.DatasetDict):
                if name not in table:
                    raise ValueError(f"{folder} has no split '{name}'{suggestion(name, table)}")
                table = table[name]
            elif self.train is not None:
                raise ValueError(f"{folder} is one split alone; `train: null` takes it as test images")
        else:
            if not folder.is_dir() and self.revision is None:
                raise FileNotFoundError(
                    f"there is no folder {folder}; a set of the Hub needs `revision`, the hash of a commit"
                )
            path = str(folder) if folder.is_dir() else self.path
            cache, revision = str(root / "huggingface"), None if folder.is_dir() else self.revision
            with hub():
                table = library.load_dataset(path, self.config, split=name, revision=revision, cache_dir=cache)
        for column in (self.image_column, self.label_column):
            if column is not None and column not in table.column_names:
                raise ValueError(f"{self.path} has no column '{column}'{suggestion(column, table.column_names)}")
        return table

    def _labels(self, table: Any) -> list[str]:
        """Return the label of each image as text, by name where the library has names."""
        if self.label_column is None:
            return [ONE] * len(table)
        names = getattr(table.features[self.label_column], "names", None) or ()
        return image_files.as_text(table.select_columns([self.label_column])[self.label_column], names, self.path)

    def _classes(self, table: Any, split: image_files.Split, root: Path) -> tuple[str, ...]:
        if self.label_column is None:
            return (ONE,)
        if names := getattr(table.features[self.label_column], "names", None):
            return tuple(names)
        tables = [table, *(self._table(each, root) for each in self.splits if each != split)]
        return image_files.in_order(label for each in tables for label in self._labels(each))


def _library() -> Any:
    """Return Hugging Face's `datasets`; raises ValueError where another package of that name was imported."""
    found = importlib.import_module("datasets")
    if not hasattr(found, "load_dataset"):
        raise ValueError(
            f"`datasets` is {found.__path__[0]} here, and not Hugging Face's package: start Python in another folder, "
            "or by the command `oodbench`"
        )
    return found
