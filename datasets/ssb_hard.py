"""SSB-hard, Vaze et al. 2022, arXiv 2110.06207: 49,000 photographs of 980 classes of ImageNet-21k, near to ImageNet-1k.

As OpenOOD ships it: DATA/ssb_hard/WNID or DATA/images_largescale/ssb_hard/WNID, images at any depth; it is placed by
hand. A class is named by its WordNet id. 49,000 is confirmed by pytorch-ood's documentation of OpenOOD's list.
"""

from __future__ import annotations

from oodbench.toolkit.layouts import Folders, Place, shipped_by_openood


class SSBHard(Folders):
    """SSB-hard: classes near to those of ImageNet, RGB, of many sizes, test images alone."""

    test_place = Place(("ssb_hard", "images_largescale/ssb_hard"), 49_000)
    source = shipped_by_openood(
        "SSB-hard",
        "https://github.com/Jingkang50/OpenOOD",
        "see the page",
        "ssb_hard",
        "https://drive.google.com/file/d/1PzkA-WGG8Z18h0ooL_pDdz9cO-DCIouE",
    )
