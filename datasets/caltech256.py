"""Caltech-256, Griffin et al. 2007, Caltech CNS-TR-2007-001: 30,607 photographs of 256 kinds of things and of clutter.

DATA/caltech256/256_ObjectCategories/CLASS, as torchvision has it, or 256_ObjectCategories.tar in DATA/caltech256; else
it is downloaded. It has no splits: all images are the test split. A class is named as its folder, 001.ak47. 30,607 is
confirmed by the description of the set on its page.
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import ANY, Folders, Place

ARCHIVE = Download(
    ("https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",),
    "md5:67b4f42ca05d46448c6bb8ecd2220f6d",
    rf"256_ObjectCategories/{ANY}\.jpg",
)


class Caltech256(Folders):
    """Caltech-256: 257 classes of things, RGB, of many sizes, test images alone."""

    test_place = Place(("caltech256/256_ObjectCategories",), 30_607)
    source = Source(
        "Caltech-256", "https://data.caltech.edu/records/nyy15-4j048", "CC BY 4.0", (ARCHIVE,), "caltech256"
    )
