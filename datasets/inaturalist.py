"""iNaturalist, Van Horn et al. 2018, arXiv 1707.06642: 10,000 photographs of plants that are no ImageNet class, RGB.

The selection of MOS, Huang and Li 2021, arXiv 2105.01879, that OpenOOD uses, too: images at any depth below
DATA/iNaturalist, DATA/inaturalist or DATA/images_largescale/inaturalist, or iNaturalist.tar.gz in DATA; else it is
downloaded. They are one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

NAMES = ("inaturalist",)
COUNT = 10_000
FOLDERS = ("iNaturalist", "inaturalist", "images_largescale/inaturalist")
ARCHIVE = Download(
    ("http://pages.cs.wisc.edu/~huangrui/imagenet_ood_dataset/iNaturalist.tar.gz",),
    "md5:5be6ea8aa027d7b631916427b32cb335",
    r"iNaturalist/([^/]+/)*[^/.][^/]*\.jpg",
)


class INaturalist(Dataset):
    """iNaturalist: plants, RGB, of many sizes, test images alone."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def splits(self) -> tuple[images.Split, ...]:
        return ("test",)

    @property
    def source(self) -> Source:
        return Source(
            "iNaturalist (MOS)",
            "https://github.com/deeplearning-wisc/large_scale_ood",
            "iNaturalist 2017 competition terms: non-commercial research and education",
            (ARCHIVE,),
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
