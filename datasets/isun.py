"""iSUN, Xu et al. 2015, arXiv 1504.06755: 8,925 photographs of scenes, 32 x 32, RGB, as OOD papers use it.

The resized ones of ODIN, Liang et al. 2018, arXiv 1706.02690. Images at any depth below DATA/iSUN, or iSUN.tar.gz in
it; else it is downloaded. They have no labels, and are one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

NAMES = ("isun",)
COUNT = 8_925
FOLDER = "iSUN"
ARCHIVE = Download(
    ("https://www.dropbox.com/s/ssz7qxfqae0cca5/iSUN.tar.gz?dl=1",),
    "md5:be77b0f2c26fda898afac5f99645ee70",
    r"([^/]+/)*[^/.][^/]*\.(png|jpe?g)",  # the archive's folders are not documented
    filename="iSUN.tar.gz",
)


class ISUN(Dataset):
    """iSUN: scenes, 32 x 32, RGB, test images alone, as ODIN resized them."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def splits(self) -> tuple[images.Split, ...]:
        return ("test",)

    @property
    def source(self) -> Source:
        return Source("iSUN", "https://github.com/facebookresearch/odin", "see the page", (ARCHIVE,), FOLDER)

    def needed(self, root: Path) -> Sequence[Path]:
        return images.needed_below(root / FOLDER)

    def files(self, split: images.Split, root: Path) -> Sequence[Path]:
        return images.below(root / FOLDER)

    def load(self, split: images.Split, root: Path) -> Images:
        images.check_has(self, split)
        paths = images.below(root / FOLDER)
        images.check_whole(root / FOLDER, len(paths), COUNT)
        return images.of_one_class(paths, *NAMES)
