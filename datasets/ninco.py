"""NINCO, Bitterwolf et al. 2023, arXiv 2306.00826: photographs of 64 classes, none of which ImageNet has.

DATA/NINCO/NINCO_OOD_classes/CLASS, as its authors ship it, or DATA/ninco/CLASS or DATA/images_largescale/ninco/CLASS,
as OpenOOD does, or NINCO_all.tar.gz in DATA; else it is downloaded, and of its archive the OOD classes alone are kept.
Images at any depth below the folder of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

FOLDERS = ("NINCO/NINCO_OOD_classes", "ninco", "images_largescale/ninco")
ARCHIVE = Download(
    ("https://zenodo.org/record/8013288/files/NINCO_all.tar.gz",),
    "md5:b9ffae324363cd900a81ce3c367cd834",
    r"NINCO/NINCO_OOD_classes/([^/]+/)*[^/.][^/]*",
)


class NINCO(Dataset):
    """NINCO: 64 classes that are none of ImageNet's, RGB, of many sizes, test images alone."""

    @property
    def splits(self) -> tuple[images.Split, ...]:
        return ("test",)

    @property
    def source(self) -> Source:
        return Source("NINCO", "https://github.com/j-cb/NINCO", "CC-BY-4.0", (ARCHIVE,))

    def needed(self, root: Path) -> Sequence[Path]:
        return images.needed_below(images.first_folder(root, FOLDERS))

    def files(self, split: images.Split, root: Path) -> Sequence[Path]:
        return images.below(images.first_folder(root, FOLDERS))

    def load(self, split: images.Split, root: Path) -> Images:
        images.check_has(self, split)
        top = images.first_folder(root, FOLDERS)
        found = images.of_classes(top)
        return found
