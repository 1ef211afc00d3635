"""LSUN, Yu et al. 2015, arXiv 1506.03365: 10,000 photographs of 10 kinds of scenes, 32 x 32, RGB, as in OOD papers.

`crop` (LSUN-C) and `resize` (LSUN-R) are those of ODIN, Liang et al. 2018, arXiv 1706.02690, and `fix` that of CSI,
Tack et al. 2020, arXiv 2007.08176, which is resized without the artefacts of `resize`. Images at any depth below
DATA/LSUN, DATA/LSUN_resize or DATA/LSUN_fix, or the archive in that folder; else it is downloaded (`fix` is placed by
hand). They have no labels, and are one class. 10,000 is confirmed by pytorch-ood's documentation of both sets of ODIN
and by CSI's lsun_fix_preprocess.py.
"""

from __future__ import annotations

from typing import Literal

from oodbench.api import Source
from oodbench.toolkit.image_files import Split
from oodbench.toolkit.layouts import Place, Unlabelled, shipped_by_csi, shipped_by_odin

COUNT = 10_000
SOURCES = {
    "crop": shipped_by_odin(
        "LSUN (crop)", "LSUN", "fhtsw1m3qxlwj6h/LSUN.tar.gz", "md5:458a0a0ab8e5f1cb4516d7400568e460"
    ),
    "resize": shipped_by_odin(
        "LSUN (resize)", "LSUN_resize", "moqh2wh8696c3yl/LSUN_resize.tar.gz", "md5:278b7b31c8cb7e804a1465a8ce03a2dc"
    ),
    "fix": shipped_by_csi(
        "LSUN (fix)", "LSUN_fix", "https://drive.google.com/file/d/1KVWj9xpHfVwGcErH5huVujk9snhEGOxE"
    ),
}


class LSUN(Unlabelled):
    """LSUN: scenes, 32 x 32, RGB, test images alone, as ODIN cropped or resized them or CSI did."""

    form: Literal["crop", "resize", "fix"] = "crop"  # how 32 x 32 pixels were made: ODIN's two ways, or CSI's

    @property
    def places(self) -> dict[Split, Place]:
        return {"test": Place((self.source.folder,), COUNT)}

    @property
    def source(self) -> Source:
        return SOURCES[self.form]
