"""iSUN, Xu et al. 2015, arXiv 1504.06755: 8,925 photographs of scenes, 32 x 32, RGB, as OOD papers use it.

The resized ones of ODIN, Liang et al. 2018, arXiv 1706.02690. Images at any depth below DATA/iSUN, or iSUN.tar.gz in
it; else it is downloaded. They have no labels, and are one class. 8,925 is confirmed by papers and logs of
several public repositories that read this archive.
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import Place, Unlabelled

FOLDER = "iSUN"
ARCHIVE = Download(
    ("https://www.dropbox.com/s/ssz7qxfqae0cca5/iSUN.tar.gz?dl=1",),
    "md5:be77b0f2c26fda898afac5f99645ee70",
    r"([^/]+/)*[^/.][^/]*\.(png|jpe?g)",  # the archive's folders are not documented
    filename="iSUN.tar.gz",
)


class ISUN(Unlabelled):
    """iSUN: scenes, 32 x 32, RGB, test images alone, as ODIN resized them."""

    test_place = Place((FOLDER,), 8_925)
    source = Source("iSUN", "https://github.com/facebookresearch/odin", "see the page", (ARCHIVE,), FOLDER)
