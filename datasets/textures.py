"""Textures (DTD), Cimpoi et al. 2014, arXiv 1311.3618: 5,640 photographs of 47 textures, RGB, of many sizes.

DATA/dtd/dtd/images and DATA/dtd/dtd/labels, as torchvision has them, or dtd-r1.0.1.tar.gz in DATA/dtd; else it is
downloaded. Partition 1 of the set's ten: its parts train, val and test have 40 images of each class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from oodbench import images, raw
from oodbench.api import Dataset, Download, Images, Source

NAMES = (
    *("banded", "blotchy", "braided", "bubbly", "bumpy", "chequered", "cobwebbed", "cracked", "crosshatched"),
    *("crystalline", "dotted", "fibrous", "flecked", "freckled", "frilly", "gauzy", "grid", "grooved"),
    *("honeycombed", "interlaced", "knitted", "lacelike", "lined", "marbled", "matted", "meshed", "paisley"),
    *("perforated", "pitted", "pleated", "polka-dotted", "porous", "potholed", "scaly", "smeared", "spiralled"),
    *("sprinkled", "stained", "stratified", "striped", "studded", "swirly", "veined", "waffled", "woven"),
    *("wrinkled", "zigzagged"),
)
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
FOLDER = Path("dtd", "dtd")
SOURCE = Source(
    title="Textures (DTD)",
    page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    licence="made available to the computer vision community for research purposes",
    downloads=(
        Download(
            ("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",),
            "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            r"dtd/(images/[a-z-]+/[^/]+\.jpg|labels/(train|val|test)1\.txt)",
            size=625_239_812,
        ),
    ),
    folder="dtd",
)


class Textures(Dataset):
    """Textures (DTD): 47 classes of textures, RGB, of many sizes."""

    test: tuple[Part, ...] = ("test",)  # parts of partition 1; the others are the train split. OOD papers use all three

    source = SOURCE

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def needed(self, root: Path) -> list[Path]:
        lists = [_list(part, root) for part in PARTS]
        return lists if raw.missing(lists) else [*lists, *(path for each in lists for path, _ in _listed(each))]

    def files(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        lists = raw.present(self._lists(split, root))
        return [*lists, *raw.present([path for each in lists for path, _ in _listed(each)])]

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        items = [item for each in self._lists(split, root) for item in _listed(each)]
        y = np.array([k for _, k in items], dtype=np.int64)
        return Images(images.of_files([path for path, _ in items]), y, NAMES)

    def _lists(self, split: str, root: Path) -> list[Path]:
        return [_list(part, root) for part in PARTS if (part in self.test) == (split == "test")]


def _list(part: Part, root: Path) -> Path:
    return root / FOLDER / "labels" / f"{part}1.txt"


def _listed(path: Path) -> list[tuple[Path, int]]:
    """Return the images of a list, a line `CLASS/FILE` each, with their class."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([a-z-]+)/([\w-]+\.jpg)", line.strip())
        if match is None or match[1] not in NAMES:
            raise ValueError(f"{path} is damaged: {line!r} is no image of a class")
        found.append((path.parent.parent / "images" / match[1] / match[2], NAMES.index(match[1])))
    return found
