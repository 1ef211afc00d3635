"""OpenImage-O, Wang et al. 2022 (ViM), arXiv 2203.10807: 17,632 photographs that are no ImageNet class, RGB.

As OpenOOD ships it: images at any depth below DATA/openimage_o or DATA/images_largescale/openimage_o; it is placed by
hand. All images are the test split (OpenOOD takes 15,869 of them, and 1,763 for validation: its lists are read by
image_list). They are one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

NAMES = ("openimage_o",)
COUNT = 17_632
FOLDERS = ("openimage_o", "images_largescale/openimage_o")
ARCHIVE = Download((), None, r"([^/]+/)*[^/.][^/]*\.(JPE?G|jpe?g|png)", filename="openimage_o.zip")
BY_HAND = (
    "take openimage_o.zip from https://drive.google.com/file/d/1VUFXnB_z70uHfdgJG2E_pjYOcEgqM7tE, or let OpenOOD's "
    "scripts/download/download.py do so, unpacked or not"
)


class OpenImageO(Dataset):
    """OpenImage-O: photographs of no ImageNet class, RGB, of many sizes, test images alone."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def splits(self) -> tuple[images.Split, ...]:
        return ("test",)

    @property
    def source(self) -> Source:
        return Source(
            "OpenImage-O",
            "https://github.com/haoqiwang/vim",
            "annotations CC-BY-4.0, images CC-BY-2.0",
            (ARCHIVE,),
            FOLDERS[0],
            BY_HAND,
        )

    def needed(self, root: Path) -> Sequence[Path]:
        return images.needed_below(images.first_folder(root, FOLDERS))

    def files(self, split: images.Split, root: Path) -> Sequence[Path]:
        return images.below(images.first_folder(root, FOLDERS))

    def load(self, split: images.Split, root: Path) -> Images:
        images.check_has(self, split)
        top = images.first_folder(root, FOLDERS)
        found = images.of_one_class(images.below(top), *NAMES)
        images.check_whole(top, len(found.x), COUNT)
        return found
