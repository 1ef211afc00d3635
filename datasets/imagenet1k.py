"""ImageNet-1k (ILSVRC 2012), Russakovsky et al. 2015, arXiv 1409.0575: 1,281,167 + 50,000 photographs, 1,000 classes.

DATA/imagenet/train/WNID and DATA/imagenet/val/WNID, as torchvision makes them of the archives, or the same in
DATA/images_largescale/imagenet_1k, as OpenOOD has them. The validation images are the test split: labels of the test
images were never published. It is placed by hand. A class is named by its WordNet id, or by torchvision's word for it.
Both numbers are confirmed by PaddleClas' documentation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from oodbench.api import Images
from oodbench.toolkit import image_files
from oodbench.toolkit.layouts import ILSVRC2012, ilsvrc2012


class ImageNet1K(ILSVRC2012):
    """ImageNet-1k: 1,000 classes of photographs, RGB, of many sizes."""

    names: Literal["wnid", "words"] = "wnid"  # n01440764, or tench

    train_place = ILSVRC2012.train_place._replace(size=1_281_167)
    test_place = ILSVRC2012.test_place._replace(size=50_000)
    source = ilsvrc2012("ImageNet-1k", "https://image-net.org")

    @property
    def class_names(self) -> tuple[str, ...]:
        if self.names == "wnid":
            return _wnids()
        from torchvision.models import ResNet50_Weights

        return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])  # in the order of the ids

    def read(self, top: Path) -> Images:
        return image_files.of_classes(top, _wnids())._replace(classes=self.class_names)


def _wnids() -> tuple[str, ...]:
    """Return the WordNet ids of the classes, sorted."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())  # type: ignore[no-untyped-call]
