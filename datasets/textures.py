"""Textures (DTD), Cimpoi et al. 2014, arXiv 1311.3618: 5,640 photographs of 47 textures, RGB, of many sizes.

DATA/dtd/dtd/images and DATA/dtd/dtd/labels, as torchvision has them, or dtd-r1.0.1.tar.gz in DATA/dtd; else it is
downloaded. Partition 1 of the set's ten: its parts train, val and test have 40 images of each class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import Parted

NAMES = (
    *("banded", "blotchy", "braided", "bubbly", "bumpy", "chequered", "cobwebbed", "cracked", "crosshatched"),
    *("crystalline", "dotted", "fibrous", "flecked", "freckled", "frilly", "gauzy", "grid", "grooved"),
    *("honeycombed", "interlaced", "knitted", "lacelike", "lined", "marbled", "matted", "meshed", "paisley"),
    *("perforated", "pitted", "pleated", "polka-dotted", "porous", "potholed", "scaly", "smeared", "spiralled"),
    *("sprinkled", "stained", "stratified", "striped", "studded", "swirly", "veined", "waffled", "woven"),
    *("wrinkled", "zigzagged"),
)
FOLDER = Path("dtd", "dtd")
ARCHIVE = Download(
    ("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",),
    "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
    r"dtd/(images/[a-z-]+/[^/]+\.jpg|labels/(train|val|test)1\.txt)",
    size=625_239_812,
)


class Textures(Parted):
    """Textures (DTD): 47 classes of textures, RGB, of many sizes."""

    # Parts of partition 1; the others are the train split. OOD papers use all three.
    test: tuple[Literal["train", "val", "test"], ...] = ("test",)

    class_names = NAMES
    parts = ("train", "val", "test")
    source = Source(
        "Textures (DTD)",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        "made available to the computer vision community for research purposes",
        (ARCHIVE,),
        "dtd",
    )

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / "labels" / f"{part}1.txt"]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        (path,) = self.lists(part, root)
        found = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            match = re.fullmatch(r"([a-z-]+)/([\w-]+\.jpg)", line.strip())
            if match is None or match[1] not in NAMES:
                raise ValueError(f"{path} is damaged: {line!r} is no image of a class")
            found.append((path.parent.parent / "images" / match[1] / match[2], NAMES.index(match[1])))
        return found
