"""SSB-hard, Vaze et al. 2022, arXiv 2110.06207: 49,000 photographs of 980 classes of ImageNet-21k, near to ImageNet-1k.

As OpenOOD ships it: DATA/ssb_hard/WNID or DATA/images_largescale/ssb_hard/WNID, images at any depth; it is placed by
hand. A class is named by its WordNet id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

COUNT = 49_000
FOLDERS = ("ssb_hard", "images_largescale/ssb_hard")
ARCHIVE = Download((), None, r"([^/]+/)*[^/.][^/]*\.(JPE?G|jpe?g|png)", filename="ssb_hard.zip")
BY_HAND = (
    "take ssb_hard.zip from https://drive.google.com/file/d/1PzkA-WGG8Z18h0ooL_pDdz9cO-DCIouE, or let OpenOOD's "
    "scripts/download/download.py do so, unpacked or not"
)


class SSBHard(Dataset):
    """SSB-hard: classes near to those of ImageNet, RGB, of many sizes, test images alone."""

    @property
    def splits(self) -> tuple[images.Split, ...]:
        return ("test",)

    @property
    def source(self) -> Source:
        return Source(
            "SSB-hard", "https://github.com/Jingkang50/OpenOOD", "see the page", (ARCHIVE,), FOLDERS[0], BY_HAND
        )

    def needed(self, root: Path) -> Sequence[Path]:
        return images.needed_below(images.first_folder(root, FOLDERS))

    def files(self, split: images.Split, root: Path) -> Sequence[Path]:
        return images.below(images.first_folder(root, FOLDERS))

    def load(self, split: images.Split, root: Path) -> Images:
        images.check_has(self, split)
        top = images.first_folder(root, FOLDERS)
        found = images.of_classes(top)
        images.check_whole(top, len(found.x), COUNT)
        return found
