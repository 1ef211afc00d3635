"""Your own images, listed in a text file for each split, `PATH LABEL` a line, as OpenOOD's benchmark lists.

The lists are absolute or in DATA: `lists/{split}.txt`, where {split} becomes `train` or `test`; `test_share` draws a
split from one list instead. Images are relative to `root` (absolute or in DATA), or to their list. What follows the
last blank is the label; classes, of both lists, are numbered by value where all labels are whole numbers, else by name
(a list that labels every image -1, as OpenOOD's OOD lists, has one class). How pixels are read: oodbench/images.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench.api import Dataset, Images
from oodbench.images import (
    SPLIT,
    Row,
    Share,
    Split,
    check_distinct,
    check_split,
    drawn,
    in_order,
    listed,
    located,
    numbered,
    of_rows,
    text_of,
)


class ImageList(Dataset):
    """Image list: your own images, listed with their labels as OpenOOD does."""

    path: str = "images-{split}.txt"
    root: str | None = None  # folder of the images; None: that of the list
    train: str = "train"  # what {split} stands for
    test: str = "test"
    test_share: Share | None = None  # None: a list for each split; else of each class; 1: everything is test
    draw: int = 0  # seed of test_share

    def __post_init__(self) -> None:
        check_split(self.path, self.test_share)

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
        everything = [row for each in rows.values() for row in each]
        for row in everything:
            if not row.label:
                raise ValueError(f"{row.where}: '{row.path.name}' has no label; wanted is 'PATH LABEL'")
        check_distinct(everything)
        classes = in_order(row.label for row in everything)
        chosen = rows[lists[split]]
        if not chosen:
            raise ValueError(f"{lists[split]} lists no images")
        y = numbered((row.label for row in chosen), classes)
        if self.test_share is not None:
            at = drawn(y, self.test_share, self.draw, split)
            chosen, y = [chosen[i] for i in at], y[at]
        return Images(of_rows(chosen), y, classes)

    def _lists(self, root: Path) -> dict[Split, Path]:
        return {
            "train": located(root, self.path.replace(SPLIT, self.train)),
            "test": located(root, self.path.replace(SPLIT, self.test)),
        }

    def _rows(self, file: Path, root: Path) -> list[Row]:
        """Return the images of a list; the label is empty where a line has none."""
        folder = file.parent if self.root is None else located(root, self.root)
        found = []
        for number, line in enumerate(text_of(file).splitlines(), 1):
            if line.strip():
                path, label = (*line.strip().rsplit(maxsplit=1), "")[:2]
                found.append(listed(folder, f"{file}:{number}", path, label))
        return found
