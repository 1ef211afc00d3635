"""SSB-hard, Vaze et al. 2022, arXiv 2110.06207: 49,000 photographs of 980 classes of ImageNet-21k, near to ImageNet-1k.

As OpenOOD ships it: DATA/ssb_hard/WNID or DATA/images_largescale/ssb_hard/WNID, images at any depth; it is placed by
hand. A class is named by its WordNet id. 49,000 is confirmed by pytorch-ood's documentation of OpenOOD's list.
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import Folders, Place

FOLDERS = ("ssb_hard", "images_largescale/ssb_hard")
ARCHIVE = Download((), None, r"([^/]+/)*[^/.][^/]*\.(JPE?G|jpe?g|png)", filename="ssb_hard.zip")
BY_HAND = (
    "take ssb_hard.zip from https://drive.google.com/file/d/1PzkA-WGG8Z18h0ooL_pDdz9cO-DCIouE, or let OpenOOD's "
    "scripts/download/download.py do so, unpacked or not"
)


class SSBHard(Folders):
    """SSB-hard: classes near to those of ImageNet, RGB, of many sizes, test images alone."""

    test_place = Place(FOLDERS, 49_000)
    source = Source(
        "SSB-hard", "https://github.com/Jingkang50/OpenOOD", "see the page", (ARCHIVE,), FOLDERS[0], BY_HAND
    )
