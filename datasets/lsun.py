"""LSUN, Yu et al. 2015, arXiv 1506.03365: 10,000 photographs of 10 kinds of scenes, 32 x 32, RGB, as in OOD papers.

`crop` (LSUN-C) and `resize` (LSUN-R) are those of ODIN, Liang et al. 2018, arXiv 1706.02690, and `fix` that of CSI,
Tack et al. 2020, arXiv 2007.08176, which is resized without the artefacts of `resize`. Images at any depth below
DATA/LSUN, DATA/LSUN_resize or DATA/LSUN_fix, or the archive in that folder; else it is downloaded (`fix` is placed by
hand). They have no labels, and are one class. 10,000 is confirmed by pytorch-ood's documentation of both sets of ODIN
and by CSI's lsun_fix_preprocess.py.
"""

from __future__ import annotations

from typing import Literal

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import Place, Unlabelled

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
BY_HAND = "take it from https://drive.google.com/file/d/1KVWj9xpHfVwGcErH5huVujk9snhEGOxE, unpacked or not"


class LSUN(Unlabelled):
    """LSUN: scenes, 32 x 32, RGB, test images alone, as ODIN cropped or resized them or CSI did."""

    form: Literal["crop", "resize", "fix"] = "crop"

    @property
    def test_place(self) -> Place:
        return Place((FOLDERS[self.form],), COUNT)

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
