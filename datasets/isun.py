"""iSUN, Xu et al. 2015, arXiv 1504.06755: 8,925 photographs of scenes, 32 x 32, RGB, as OOD papers use it.

The resized ones of ODIN, Liang et al. 2018, arXiv 1706.02690. Images at any depth below DATA/iSUN, or iSUN.tar.gz in
it; else it is downloaded. They have no labels, and are one class. 8,925 is confirmed by papers and logs of
several public repositories that read this archive.
"""

from __future__ import annotations

from oodbench.toolkit.layouts import Place, Unlabelled, shipped_by_odin


class ISUN(Unlabelled):
    """iSUN: scenes, 32 x 32, RGB, test images alone, as ODIN resized them."""

    source = shipped_by_odin("iSUN", "iSUN", "ssz7qxfqae0cca5/iSUN.tar.gz", "md5:be77b0f2c26fda898afac5f99645ee70")
    test_place = Place((source.folder,), 8_925)
