"""iNaturalist, Van Horn et al. 2018, arXiv 1707.06642: 10,000 photographs of plants that are no ImageNet class, RGB.

The selection of MOS, Huang and Li 2021, arXiv 2105.01879, that OpenOOD uses, too: images at any depth below
DATA/iNaturalist, DATA/inaturalist or DATA/images_largescale/inaturalist, or iNaturalist.tar.gz in DATA; else it is
downloaded. They are one class. 10,000 is confirmed by public notes on the MOS paper (110 classes of plants).
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import ANY, Place, Unlabelled

ARCHIVE = Download(
    ("http://pages.cs.wisc.edu/~huangrui/imagenet_ood_dataset/iNaturalist.tar.gz",),
    "md5:5be6ea8aa027d7b631916427b32cb335",
    rf"iNaturalist/{ANY}\.jpg",
)


class INaturalist(Unlabelled):
    """iNaturalist: plants, RGB, of many sizes, test images alone."""

    test_place = Place(("iNaturalist", "inaturalist", "images_largescale/inaturalist"), 10_000)
    source = Source(
        "iNaturalist (MOS)",
        "https://github.com/deeplearning-wisc/large_scale_ood",
        "iNaturalist 2017 competition terms: non-commercial research and education",
        (ARCHIVE,),
    )
