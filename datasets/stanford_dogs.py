"""Stanford Dogs, Khosla et al. 2011 (FGVC workshop): 12,000 + 8,580 photographs of 120 breeds, RGB, of many sizes.

DATA/stanford_dogs has train_list.mat, test_list.mat and Images/CLASS, or the archives images.tar and lists.tar; else
they are downloaded (no hash of them is published). A class is named as its folder, n02085620-Chihuahua; the images are
ImageNet's. CSI tests on images of both parts: `test: [train, test]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from oodbench.api import Download, Source
from oodbench.toolkit import image_files, raw_files
from oodbench.toolkit.layouts import Parted

FOLDER = "stanford_dogs"
SITE = "http://vision.stanford.edu/aditya86/ImageNetDogs"
IMAGE = r"(n\d{8}-[\w-]+)/n\d{8}_\d+\.jpg"


class StanfordDogs(Parted):
    """Stanford Dogs: 120 breeds of dogs, RGB, of many sizes."""

    test: tuple[Literal["train", "test"], ...] = ("test",)  # the other part, if any, is the train split

    source = Source(
        "Stanford Dogs",
        f"{SITE}/",
        "see the page",
        (
            Download((f"{SITE}/lists.tar",), None, r"(train|test)_list\.mat"),
            Download((f"{SITE}/images.tar",), None, rf"Images/{IMAGE}"),
        ),
        FOLDER,
    )

    def names(self, root: Path) -> tuple[str, ...]:
        named = {k: path.parent.name for part in self.parts for path, k in self.listed(part, root)}
        return image_files.by_number(named, root / FOLDER, "folder")

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / f"{part}_list.mat"]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        (path,) = self.lists(part, root)
        listed, labels = raw_files.read_mat(path, "file_list", "labels")
        with raw_files.reading(path):
            files = [str(each.item()) for each in listed.reshape(-1)]
            if wrong := next((each for each in files if not re.fullmatch(IMAGE, each)), None):
                raise ValueError(f"{wrong!r} is no image of a class")
            y = raw_files.checked_labels(path, labels.reshape(-1).astype(int) - 1, len(files), len(files))
        return [(root / FOLDER / "Images" / each, k) for each, k in zip(files, y.tolist(), strict=True)]
