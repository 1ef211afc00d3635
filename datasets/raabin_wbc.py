"""Raabin-WBC, Mousavi Kouzehkanan et al. 2022, doi 10.1038/s41598-021-04426-x: white blood cells, RGB, 5 classes.

10,175 + 4,339 crops of one cell each, of 575 x 575 pixels: DATA/raabin_wbc/Train/CLASS and DATA/raabin_wbc/TestA/CLASS,
or the same in DATA/RaabinWBC; it is placed by hand. TestB is not used. The two numbers could not be confirmed in public
text: another number is warned of, not refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from oodbench.api import Download, Images, Source
from oodbench.toolkit.image_files import Split
from oodbench.toolkit.layouts import Folders, Place

NAMES = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
COUNTS: dict[Split, int] = {"train": 10_175, "test": 4_339}  # not confirmed
FOLDERS = ("raabin_wbc", "RaabinWBC")
BOTH = Download((), None, r"(Train|TestA)/.+", filename="folders Train and TestA")
BY_HAND = (
    "take the cropped, double-labelled cells Train and TestA from https://raabindata.com/free-data, unpack both there"
)


class RaabinWBC(Folders):
    """Raabin-WBC: 5 classes of white blood cells under a microscope, RGB."""

    class_names = NAMES
    train_place = Place([f"{each}/Train" for each in FOLDERS])
    test_place = Place([f"{each}/TestA" for each in FOLDERS])
    source = Source("Raabin-WBC", "https://raabindata.com/free-data", "see the page", (BOTH,), FOLDERS[0], BY_HAND)

    def load(self, split: Split, root: Path) -> Images:
        found = super().load(split, root)
        if len(found.x) != COUNTS[split]:
            where = self.top(split, root)
            warnings.warn(f"{where} holds {len(found.x):,} images, expected were {COUNTS[split]:,}", stacklevel=2)
        return found
