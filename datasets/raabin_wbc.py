"""Raabin-WBC, Mousavi Kouzehkanan et al. 2022, doi 10.1038/s41598-021-04426-x: white blood cells, RGB, 5 classes.

10,175 + 4,339 crops of one cell each, of 575 x 575 pixels: DATA/raabin_wbc/Train/CLASS and DATA/raabin_wbc/TestA/CLASS,
or the same in DATA/RaabinWBC; it is placed by hand. TestB is not
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

NAMES = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
COUNTS = {"train": 10_175, "test": 4_339}
FOLDERS = ("raabin_wbc", "RaabinWBC")
PARTS = {"train": "Train", "test": "TestA"}
BOTH = Download((), None, r"(Train|TestA)/.+", filename="folders Train and TestA")
BY_HAND = (
    "take the cropped, double-labelled cells Train and TestA from https://raabindata.com/free-data, unpack both there"
)


class RaabinWBC(Dataset):
    """Raabin-WBC: 5 classes of white blood cells under a microscope, RGB."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def source(self) -> Source:
        return Source("Raabin-WBC", "https://raabindata.com/free-data", "see the page", (BOTH,), FOLDERS[0], BY_HAND)

    def needed(self, root: Path) -> Sequence[Path]:
        return [path for part in PARTS for path in images.needed_below(_top(part, root))]

    def files(self, split: images.Split, root: Path) -> Sequence[Path]:
        return images.below(_top(split, root))

    def load(self, split: images.Split, root: Path) -> Images:
        top = _top(split, root)
        found = images.of_classes(top, NAMES)
        images.check_whole(top, len(found.x), COUNTS[split])
        return found


def _top(split: str, root: Path) -> Path:
    return images.first_folder(root, FOLDERS) / PARTS[split]
