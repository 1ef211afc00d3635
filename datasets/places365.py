"""Places365, Zhou et al. 2017: photographs of 365 kinds of places, 256 x 256, RGB; OOD papers use its small images.

`val`: the 36,500 validation images, 100 of each class: val_256, places365_val.txt and categories_places365.txt in
DATA/places365, as torchvision has them. `test`: the test images, which have no labels and are one class:
test_256 and places365_test.txt. Archives may lie in DATA/places365 (val_256.tar or test_256.tar, and
filelist_places365-standard.tar); else they are downloaded. The KNN, CIDER and energy papers take 10,000 of the test
images: `subset` names a list of them, a file name a line (its first word), absolute or in DATA. Only test images of a
study come of either part; OpenOOD's list of validation images is read by image_list.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Literal

from oodbench.api import Download, Source
from oodbench.toolkit import image_files
from oodbench.toolkit.layouts import Listed

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


class Places365(Listed):
    """Places365: 365 classes of places, 256 x 256, RGB, test images alone."""

    part: Literal["val", "test"] = "val"  # validation images with classes, or test images without
    subset: str | None = None  # a list of the images to take, absolute or in DATA; None: all

    splits = ("test",)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return (ONE,) if self.part == "test" else None

    @property
    def source(self) -> Source:
        return Source(
            f"Places365 ({self.part}_256)",
            "http://places2.csail.mit.edu",
            "Places2 terms: non-commercial research and education",
            (LISTS, IMAGES[self.part]),
            FOLDER,
        )

    def names(self, root: Path) -> tuple[str, ...]:
        return self.class_names or _categories(root)

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        own = [] if self.subset is None else [image_files.located(root, self.subset)]
        categories = [root / FOLDER / "categories_places365.txt"] if self.part == "val" else []
        return [root / FOLDER / f"places365_{self.part}.txt", *categories, *own]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        """Return the images that are taken, in the order of the list, with their class; 0 where they have none."""
        lists = self.lists(part, root)
        line = rf"(Places365_{self.part}_\d{{8}}\.jpg)(\s+(\d+))?\s*"
        found = {}
        for where, match in image_files.lines(lists[0], line, "image of a class"):
            if (match[3] is None) != (self.part == "test") or int(match[3] or 0) >= CLASSES:
                raise ValueError(f"{where} is no image of a class")
            found[match[1]] = int(match[3] or 0)
        chosen = found if self.subset is None else _chosen(lists[-1], found.keys())
        return [(root / FOLDER / f"{self.part}_256" / name, found[name]) for name in chosen]


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
    for where, match in image_files.lines(listed, r"/[a-z]/([\w/-]+)\s+(\d+)\s*", "class, or not in its place"):
        if int(match[2]) != len(names):
            raise ValueError(f"{where} is no class, or not in its place")
        names.append(match[1])
    if len(names) != CLASSES:
        raise ValueError(f"{listed} names {len(names)} classes of {CLASSES}")
    return tuple(names)
