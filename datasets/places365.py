"""Places365, Zhou et al. 2017: photographs of 365 kinds of places, 256 x 256, RGB; OOD papers use its small images.

`val`: the 36,500 validation images, 100 of each class: val_256, places365_val.txt and categories_places365.txt in
DATA/places365, as torchvision has them. `test`: the test images, which have no labels and are one class:
test_256 and places365_test.txt. Archives may lie in DATA/places365 (val_256.tar or test_256.tar, and
filelist_places365-standard.tar); else they are downloaded. The KNN, CIDER and energy papers take 10,000 of the test
images: `subset` names a list of them, a file name a line (its first word), absolute or in DATA. Only test images of a
study come of either part; OpenOOD's list of validation images is read by image_list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Download, Images, Source
from oodbench.toolkit import image_files

ONE = "places365"  # the class of images without labels
CLASSES = 365
FOLDER = "places365"
SITE = "http://data.csail.mit.edu/places/places365"
IMAGES = {
    "val": Download((f"{SITE}/val_256.tar",), "md5:e27b17d8d44f4af9a78502beb927f808", r"val_256/[^/.][^/]*\.jpg"),
    "test": Download((f"{SITE}/test_256.tar",), "md5:f532f6ad7b582262a2ec8009075e186b", r"test_256/[^/.][^/]*\.jpg"),
}
LISTS = Download(
    (f"{SITE}/filelist_places365-standard.tar",),
    "md5:35a0585fee1fa656440f3ab298f8479c",
    r"(categories_places365|places365_(val|test))\.txt",
)


class Places365(Dataset):
    """Places365: 365 classes of places, 256 x 256, RGB, test images alone."""

    part: Literal["val", "test"] = "val"
    subset: str | None = None  # a list of the images to take, absolute or in DATA; None: all

    @property
    def splits(self) -> tuple[image_files.Split, ...]:
        return ("test",)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return (ONE,) if self.part == "test" else None

    @property
    def source(self) -> Source:
        return Source(
            title=f"Places365 ({self.part}_256)",
            page="http://places2.csail.mit.edu",
            licence="Places2 terms: non-commercial research and education",
            downloads=(LISTS, IMAGES[self.part]),
            folder=FOLDER,
        )

    def needed(self, root: Path) -> Sequence[Path]:
        lists = self._lists(root)
        return lists if any(not each.is_file() for each in lists) else [*lists, *self._labels(root)]

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        return [path for path in self.needed(root) if path.is_file()]

    def load(self, split: image_files.Split, root: Path) -> Images:
        image_files.check_has(self, split)
        labels = self._labels(root)
        if self.part == "test":
            return image_files.of_one_class(list(labels), ONE)
        y = np.array(list(labels.values()), dtype=np.int64)
        return Images(image_files.of_files(list(labels)), y, _categories(root))

    def _lists(self, root: Path) -> list[Path]:
        """Return the list of images, that of the classes, and the user's own."""
        own = [] if self.subset is None else [image_files.located(root, self.subset)]
        categories = [root / FOLDER / "categories_places365.txt"] if self.part == "val" else []
        return [root / FOLDER / f"places365_{self.part}.txt", *categories, *own]

    def _labels(self, root: Path) -> dict[Path, int]:
        """Return the class of each image that is taken, in the order of the list; 0 where they have none."""
        listed, own = self._lists(root)[0], self._lists(root)[-1]
        folder = root / FOLDER / f"{self.part}_256"
        found = {}
        for number, line in enumerate(image_files.text_of(listed).splitlines(), 1):
            match = re.fullmatch(rf"(Places365_{self.part}_\d{{8}}\.jpg)(\s+(\d+))?\s*", line)
            if match is None or (match[3] is None) != (self.part == "test") or int(match[3] or 0) >= CLASSES:
                raise ValueError(f"{listed}:{number}: {line!r} is no image of a class")
            found[match[1]] = int(match[3] or 0)
        if self.subset is not None:
            found = {name: found[name] for name in _chosen(own, found.keys())}
        return {folder / name: k for name, k in found.items()}


def _chosen(own: Path, names: Set[str]) -> list[str]:
    """Return the names that a user's list has, by their last part."""
    chosen: dict[str, None] = {}
    for number, line in enumerate(image_files.text_of(own).splitlines(), 1):
        if line.strip():
            name = line.split()[0].rpartition("/")[2]
            if name not in names:
                raise ValueError(f"{own}:{number}: there is no image {name} in this part of the set")
            if name in chosen:
                raise ValueError(f"{own}:{number}: {name} is listed twice")
            chosen[name] = None
    if not chosen:
        raise ValueError(f"{own} lists no images")
    return list(chosen)


def _categories(root: Path) -> tuple[str, ...]:
    """Return the names of the classes, without the letter that a line `/a/airfield 0` starts with."""
    listed = root / FOLDER / "categories_places365.txt"
    names: list[str] = []
    for number, line in enumerate(image_files.text_of(listed).splitlines(), 1):
        match = re.fullmatch(r"/[a-z]/([\w/-]+)\s+(\d+)\s*", line)
        if match is None or int(match[2]) != len(names):
            raise ValueError(f"{listed}:{number}: {line!r} is no class, or not in its place")
        names.append(match[1])
    if len(names) != CLASSES:
        raise ValueError(f"{listed} names {len(names)} classes of {CLASSES}")
    return tuple(names)
