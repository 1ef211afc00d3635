"""OpenImage-O, Wang et al. 2022 (ViM), arXiv 2203.10807: 17,632 photographs that are no ImageNet class, RGB.

As OpenOOD ships it: images at any depth below DATA/openimage_o or DATA/images_largescale/openimage_o; it is placed by
hand. All images are the test split (OpenOOD takes 15,869 of them, and 1,763 for validation: its lists are read by
image_list). They are one class. 17,632 is confirmed by OpenOOD's two lists, as pytorch-ood ships them.
"""

from __future__ import annotations

from oodbench.toolkit.layouts import Place, Unlabelled, shipped_by_openood


class OpenImageO(Unlabelled):
    """OpenImage-O: photographs of no ImageNet class, RGB, of many sizes, test images alone."""

    test_place = Place(("openimage_o", "images_largescale/openimage_o"), 17_632)
    source = shipped_by_openood(
        "OpenImage-O",
        "https://github.com/haoqiwang/vim",
        "annotations CC-BY-4.0, images CC-BY-2.0",
        "openimage_o",
        "https://drive.google.com/file/d/1VUFXnB_z70uHfdgJG2E_pjYOcEgqM7tE",
    )
