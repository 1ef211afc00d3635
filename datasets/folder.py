"""A folder of your own images, a subfolder for each class, as torchvision's ImageFolder: PATH/SPLIT/CLASS/IMAGE.

PATH is absolute or in DATA. `test_share` draws a split from PATH/CLASS/IMAGE instead; `classes: false` reads all images
below PATH/SPLIT, or PATH, as one class. A class has the images at any depth below its folder; classes are numbered in
the order of their names. Hidden files are left out; any other file that is no image is an error. How pixels are read:
oodbench/toolkit/image_files.py.

Names and contents of images and folders decide whether the set is prepared again: a look at each file once a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Dataset, Images
from oodbench.toolkit.image_files import (
    ENDINGS,
    Bits,
    Decoding,
    Range,
    Share,
    Split,
    drawn,
    located,
    of_files,
    subfolders,
    walk,
)


class Folder(Dataset):
    """Folder: your own images, a folder for each class."""

    path: str = "images"  # absolute or in DATA
    classes: bool = True  # False: one class, whatever the folders
    train: str = "train"  # folder of a split in PATH
    test: str = "test"  # the same of the test split
    test_share: Share | None = None  # None: the splits are folders; else of each class of PATH; 1: everything is test
    draw: int = 0  # seed of test_share
    bits: Bits | None = None  # of 16-bit images, of which the upper 8 are kept; None: not said
    range: Range | None = None  # of 16-bit grey images and floats: what becomes 0 and 255; None: not said
    exif: bool = False  # turn images by EXIF's orientation
    skip_damaged: bool = False  # leave out files that cannot be decoded, and say how many; False: they are refused

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        top, other = self._top(split, root), self._top("train" if split == "test" else "test", root)
        beside = [other] if other != top and other.is_dir() else []  # its classes have to be the same
        return [*beside, *(path for folder, files in walk(top) for path in (folder, *files))]

    def load(self, split: Split, root: Path) -> Images:
        top = self._top(split, root)
        if not top.is_dir():
            hint = "" if self.test_share else "; for folders of classes without splits give test_share"
            raise FileNotFoundError(f"there is no folder {top}{hint}")
        folders = self._class_folders(split, root)
        found = [_images(folder) for folder in folders.values()]
        paths = [path for each in found for path in each]
        y: NDArray[np.int64] = np.repeat(np.arange(len(found)), [len(each) for each in found])
        if self.test_share is not None:
            at = drawn(y, self.test_share, self.draw, split)
            paths, y = [paths[i] for i in at], y[at]
        return Images(of_files(paths, Decoding(self.bits, self.range, self.exif)), y, tuple(folders))

    def _top(self, split: Split, root: Path) -> Path:
        path = located(root, self.path)
        return path if self.test_share is not None else path / (self.train if split == "train" else self.test)

    def _class_folders(self, split: Split, root: Path) -> dict[str, Path]:
        """Return the folder of each class by name, sorted."""
        top = self._top(split, root)
        if not self.classes:
            return {located(root, self.path).name: top}
        folders = subfolders(top)
        lost = next((path for path in sorted(top.iterdir()) if path.suffix.lower() in ENDINGS), None)
        if lost:
            raise ValueError(f"{lost} is in no folder of a class; `classes: false` reads all of {top} as one")
        if not folders:
            raise ValueError(f"{top} has no folder of a class")
        for each in (self._top("train", root), self._top("test", root)):
            if each.is_dir() and (differing := sorted(folders.keys() ^ subfolders(each).keys())):
                raise ValueError(f"{top} and {each} differ in their classes: {', '.join(differing)}")
        return folders


def _images(folder: Path) -> list[Path]:
    """Return the images at any depth below a folder, sorted."""
    found = sorted(path for _, files in walk(folder) for path in files)
    if not found:
        raise ValueError(f"{folder} holds no images")
    for path in found:
        if path.suffix.lower() not in ENDINGS:
            raise ValueError(f"{path} is no image; an image ends in {', '.join(ENDINGS)}")
    return found
