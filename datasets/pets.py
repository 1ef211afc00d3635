"""Oxford-IIIT Pet, Parkhi et al. 2012 (CVPR, Cats and Dogs): photographs of 37 breeds of cats and dogs, RGB.

DATA/oxford-iiit-pet has images/ and annotations/{trainval,test}.txt, as torchvision has them, or the archives
images.tar.gz and annotations.tar.gz; else they are downloaded. The part trainval is the train split. A class is named
as its files are, american_bulldog, and numbered as in the lists. CSI tests on images of both parts:
`test: [trainval, test]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from oodbench.api import Download, Source
from oodbench.toolkit import image_files
from oodbench.toolkit.layouts import Parted

FOLDER = "oxford-iiit-pet"
SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets"


class Pets(Parted):
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, RGB, of many sizes."""

    test: tuple[Literal["trainval", "test"], ...] = ("test",)  # the other part, if any, is the train split

    parts = ("trainval", "test")
    source = Source(
        "Oxford-IIIT Pet",
        f"{SITE}/",
        "see the page",
        (
            Download(
                (f"{SITE}/data/annotations.tar.gz",),
                "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
                r"annotations/(trainval|test)\.txt",
            ),
            Download(
                (f"{SITE}/data/images.tar.gz",), "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", r"images/[A-Za-z_]+_\d+\.jpg"
            ),
        ),
        FOLDER,
    )

    def names(self, root: Path) -> tuple[str, ...]:
        named = {k: path.stem.rpartition("_")[0] for part in self.parts for path, k in self.listed(part, root)}
        return image_files.by_number(named, root / FOLDER, "breed")

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / "annotations" / f"{part}.txt"]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        (path,) = self.lists(part, root)
        line = r"([A-Za-z_]+_\d+) ([1-9]\d*) [12] \d+\s*"  # image, breed, cat or dog, breed
        found = image_files.lines(path, line, "image of a class")
        return [(root / FOLDER / "images" / f"{match[1]}.jpg", int(match[2]) - 1) for _, match in found]
