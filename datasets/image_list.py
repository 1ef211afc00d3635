"""Your own images, listed in a text file for each split, `PATH LABEL` a line, as OpenOOD's benchmark lists.

The lists are absolute or in DATA: `lists/{split}.txt`, where {split} becomes `train` or `test`; `test_share` draws a
split from one list instead. Images are relative to `root` (absolute or in DATA), or to their list. What follows the
last blank is the label; classes, of both lists, are numbered by value where all labels are whole numbers, else by name
(a list that labels every image -1, as OpenOOD's OOD lists, has one class). How pixels are read:
oodbench/toolkit/image_files.py.

`count` and `sha256` say which list is meant: another one is refused. They are of the list; where {split} makes it two,
of both: [train, test], null for one of which nothing is known. A hash is that of the list with Unix's line ends.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from oodbench.api import Dataset, Images, Size
from oodbench.toolkit import image_files
from oodbench.toolkit.image_files import SPLIT, Row, Share, Split

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ImageList(Dataset):
    """Image list: your own images, listed with their labels as OpenOOD does."""

    path: str = "images-{split}.txt"  # absolute or in DATA
    root: str | None = None  # folder of the images; None: that of the list
    train: str = "train"  # what {split} stands for
    test: str = "test"  # the same of the test split
    test_share: Share | None = None  # None: a list for each split; else of each class; 1: everything is test
    draw: int = 0  # seed of test_share
    bits: image_files.Bits | None = None  # of 16-bit images, of which the upper 8 are kept; None: not said
    range: image_files.Range | None = None  # of 16-bit grey images and floats: what becomes 0 and 255; None: not said
    exif: bool = False  # turn images by EXIF's orientation
    skip_damaged: bool = False  # leave out files that cannot be decoded, and say how many; False: they are refused
    count: Size | tuple[Size | None, Size | None] | None = None  # images of the list; None: any number
    sha256: Hash | tuple[Hash | None, Hash | None] | None = None  # of the list's bytes; None: any list
    title: str | None = None  # what tables call it; None: where it is and what is said of it

    def __post_init__(self) -> None:
        image_files.check_split(self.path, self.test_share)
        for name in ("count", "sha256"):
            given = getattr(self, name)
            if given is not None and isinstance(given, tuple) != (SPLIT in self.path):
                raise ValueError(
                    f"{name}: the path '{self.path}' is {'two lists' if SPLIT in self.path else 'one list'}"
                )

    @property
    def label(self) -> str:
        if self.title is None:
            return super().label
        chosen = {each.name: getattr(self, each.name) for each in dataclasses.fields(Dataset)}
        return super(ImageList, ImageList(**chosen)).label.replace(self.name, self.title, 1)

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        lists = self._lists(root)
        own = lists[split]
        try:
            images = [row.path for row in self._rows(own, root)] if own.is_file() else []
        except ValueError:  # `load` says what is wrong
            images = []
        return [path for path in dict.fromkeys([*lists.values(), *images]) if path.is_file()]

    def load(self, split: Split, root: Path) -> Images:
        lists = self._lists(root)
        if not lists[split].is_file():
            raise FileNotFoundError(f"there is no list {lists[split]}")
        rows = {file: self._rows(file, root) for file in lists.values() if file.is_file()}
        self._check_meant(split, lists[split], len(rows[lists[split]]))
        everything = [row for each in rows.values() for row in each]
        for row in everything:
            if not row.label:
                raise ValueError(f"{row.where}: '{row.path.name}' has no label; wanted is 'PATH LABEL'")
        image_files.check_distinct(everything)
        classes = image_files.in_order(row.label for row in everything)
        chosen = rows[lists[split]]
        if not chosen:
            raise ValueError(f"{lists[split]} lists no images")
        y = image_files.numbered((row.label for row in chosen), classes)
        if self.test_share is not None:
            at = image_files.drawn(y, self.test_share, self.draw, split)
            chosen, y = [chosen[i] for i in at], y[at]
        how = image_files.Decoding(self.bits, self.range, self.exif)
        return Images(image_files.of_rows(chosen, how), y, classes)

    def _lists(self, root: Path) -> dict[Split, Path]:
        return image_files.by_split(self.path, self.train, self.test, root)

    def _check_meant(self, split: Split, file: Path, count: int) -> None:
        """Refuse a list that is not the one that `count` and `sha256` are of."""
        wanted, digest = (
            each[split == "test"] if isinstance(each, tuple) else each for each in (self.count, self.sha256)
        )
        if wanted is not None and count != wanted:
            raise ValueError(f"{file} lists {count} images, the list that is meant {wanted}: it is another one")
        found = hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
        if digest is not None and found != digest:
            raise ValueError(f"{file} is another list than the one that is meant: sha256 {found}, not {digest}")

    def _rows(self, file: Path, root: Path) -> list[Row]:
        """Return the images of a list; the label is empty where a line has none."""
        folder = file.parent if self.root is None else image_files.located(root, self.root)
        found = []
        for number, line in enumerate(image_files.text_of(file).splitlines(), 1):
            if line.strip():
                path, label = (*line.strip().rsplit(maxsplit=1), "")[:2]
                found.append(image_files.listed(folder, f"{file}:{number}", path, label))
        return found
