"""NINCO, Bitterwolf et al. 2023, arXiv 2306.00826: photographs of 64 classes, none of which ImageNet has.

DATA/NINCO/NINCO_OOD_classes/CLASS, as its authors ship it, or DATA/ninco/CLASS or DATA/images_largescale/ninco/CLASS,
as OpenOOD does, or NINCO_all.tar.gz in DATA; else it is downloaded, and of its archive the OOD classes alone are kept.
Images at any depth below the folder of a class. Their number (5,879 by pytorch-ood's documentation, 4,293 by the first
readme of its authors) is not checked.
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import ANY, Folders, Place

ARCHIVE = Download(
    ("https://zenodo.org/record/8013288/files/NINCO_all.tar.gz",),
    "md5:b9ffae324363cd900a81ce3c367cd834",
    rf"NINCO/NINCO_OOD_classes/{ANY}",
)


class NINCO(Folders):
    """NINCO: 64 classes that are none of ImageNet's, RGB, of many sizes, test images alone."""

    test_place = Place(("NINCO/NINCO_OOD_classes", "ninco", "images_largescale/ninco"))
    source = Source("NINCO", "https://github.com/j-cb/NINCO", "CC-BY-4.0", (ARCHIVE,))
