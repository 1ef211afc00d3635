"""Food-101, Bossard et al. 2014 (ECCV): 75,750 + 25,250 photographs of 101 dishes, RGB, up to 512 pixels a side.

DATA/food-101 has images/CLASS and meta/{train,test}.json, as torchvision has them, or food-101.tar.gz is in DATA; else
it is downloaded. CSI tests on images of both parts, without the class that ImageNet-30 has, too:
`test: [train, test], without: hot_dog`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from oodbench.api import Download, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Parted

FOLDER = "food-101"
ARCHIVE = Download(
    ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",),
    "md5:85eeb15f3717b99a5da872d97d918f87",
    rf"{FOLDER}/(images/[a-z_]+/\d+\.jpg|meta/(train|test)\.json)",
)


class Food101(Parted):
    """Food-101: 101 classes of dishes, RGB, of many sizes."""

    test: tuple[Literal["train", "test"], ...] = ("test",)  # the other part, if any, is the train split

    source = Source(
        "Food-101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", "see the page", (ARCHIVE,)
    )

    def names(self, root: Path) -> tuple[str, ...]:
        train, test = (sorted(self._listed(part, root)) for part in self.parts)
        if train != test:
            raise ValueError(f"{root / FOLDER / 'meta'}: the two lists differ in their classes")
        return tuple(train)

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / "meta" / f"{part}.json"]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        own, top = self._listed(part, root), root / FOLDER / "images"
        number = {name: k for k, name in enumerate(sorted(own))}
        return [(top / f"{each}.jpg", number[name]) for name in own for each in own[name]]

    def _listed(self, part: str, root: Path) -> dict[str, list[str]]:
        """Return the images of each class of a part, CLASS/NUMBER."""
        (path,) = self.lists(part, root)
        content = path.read_bytes()
        with raw_files.reading(path):
            found: Any = json.loads(content)
            for name, own in found.items():
                for each in own:
                    if not re.fullmatch(r"[a-z_]+", name) or not re.fullmatch(rf"{name}/\d+", each):
                        raise ValueError(f"{each!r} is no image of {name!r}")
            return dict(found)
