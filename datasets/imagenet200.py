"""ImageNet-200, Zhang et al. 2023 (OpenOOD v1.5), arXiv 2306.09301: 200 classes of ImageNet-1k, those of ImageNet-R.

The folders of ImageNet-1k are read: DATA/imagenet/train/WNID and DATA/imagenet/val/WNID, or the same in
DATA/images_largescale/imagenet_1k; folders of other classes are left alone. All 10,000 validation images of the classes
are the test split (OpenOOD takes 9,000 of them, and 1,000 for validation: its lists are read by image_list). It is
placed by hand. A class is named by its WordNet id. 10,000 is confirmed by OpenOOD's lists, 9,000 + 1,000,
as pytorch-ood documents them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from oodbench.toolkit import image_files
from oodbench.toolkit.layouts import ILSVRC2012, ilsvrc2012


class ImageNet200(ILSVRC2012):
    """ImageNet-200: the 200 classes of ImageNet-1k that OpenOOD takes, RGB, of many sizes."""

    test_place = ILSVRC2012.test_place._replace(size=10_000)
    source = ilsvrc2012("ImageNet-200", "https://github.com/Jingkang50/OpenOOD")

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple((files("timm") / "data" / "_info" / "imagenet_r_synsets.txt").read_text().split())

    def needed(self, root: Path) -> Sequence[Path]:
        tops = [self.top(split, root) for split in self.splits]
        return [path for top in tops for name in self.class_names for path in image_files.needed_below(top / name)]

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        return [path for name in self.class_names for path in image_files.below(self.top(split, root) / name)]
