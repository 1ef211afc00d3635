"""LSUN, Yu et al. 2015, arXiv 1506.03365: 10,000 photographs of 10 kinds of scenes, 32 x 32, RGB, as in OOD papers.

`crop` (LSUN-C) and `resize` (LSUN-R) are those of ODIN, Liang et al. 2018, arXiv 1706.02690, and `fix` that of CSI,
Tack et al. 2020, arXiv 2007.08176, which is resized without the artefacts of `resize`. Images at any depth below
DATA/LSUN, DATA/LSUN_resize or DATA/LSUN_fix, or the archive in that folder; else it is downloaded (`fix` is placed by
hand). They have no labels, and are one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

NAMES = ("lsun",)
COUNT = 10_000
MEMBERS = r"([^/]+/)*[^/.][^/]*\.(png|jpe?g)"  # the archives' folders are not documented
FOLDERS = {"crop": "LSUN", "resize": "LSUN_resize", "fix": "LSUN_fix"}
DOWNLOADS = {
    "crop": Download(
        ("https://www.dropbox.com/s/fhtsw1m3qxlwj6h/LSUN.tar.gz?dl=1",),
        "md5:458a0a0ab8e5f1cb4516d7400568e460",
        MEMBERS,
        filename="LSUN.tar.gz",
    ),
    "resize": Download(
        ("https://www.dropbox.com/s/moqh2wh8696c3yl/LSUN_resize.tar.gz?dl=1",),
        "md5:278b7b31c8cb7e804a1465a8ce03a2dc",
        MEMBERS,
        filename="LSUN_resize.tar.gz",
    ),
    "fix": Download((), None, MEMBERS, filename="LSUN_fix.tar.gz"),
}
BY_HAND = "take it from https://drive.google.com/file/d/1N8jogMg4C7zaqy5lLKVfRnBF5L0L9_oD, unpacked or not"


class LSUN(Dataset):
    """LSUN: scenes, 32 x 32, RGB, test images alone, as ODIN cropped or resized them or CSI did."""

    form: Literal["crop", "resize", "fix"] = "crop"

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def splits(self) -> tuple[images.Split, ...]:
        return ("test",)

    @property
    def source(self) -> Source:
        return Source(
            title=f"LSUN ({self.form})",
            page="https://github.com/alinlab/CSI" if self.form == "fix" else "https://github.com/facebookresearch/odin",
            licence="see the page",
            downloads=(DOWNLOADS[self.form],),
            folder=FOLDERS[self.form],
            by_hand=BY_HAND if self.form == "fix" else "",
        )

    def needed(self, root: Path) -> Sequence[Path]:
        return images.needed_below(root / FOLDERS[self.form])

    def files(self, split: images.Split, root: Path) -> Sequence[Path]:
        return images.below(root / FOLDERS[self.form])

    def load(self, split: images.Split, root: Path) -> Images:
        images.check_has(self, split)
        folder = root / FOLDERS[self.form]
        paths = images.below(folder)
        images.check_whole(folder, len(paths), COUNT)
        return images.of_one_class(paths, *NAMES)
