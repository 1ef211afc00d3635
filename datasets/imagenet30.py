"""ImageNet-30, Hendrycks et al. 2019, arXiv 1906.12340: 39,000 + 3,000 photographs, RGB, of many sizes, 30 classes.

DATA/ImageNet/one_class_train/CLASS and DATA/ImageNet/one_class_test/CLASS, where CSI has them, or both folders in
DATA/imagenet30; a class has the images at any depth below its folder, links followed (its authors link to ImageNet's
train images). It is placed by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench import images
from oodbench.api import Dataset, Download, Images, Source

NAMES = (
    *("acorn", "airliner", "ambulance", "american_alligator", "banjo", "barn", "bikini", "digital_clock"),
    *("dragonfly", "dumbbell", "forklift", "goblet", "grand_piano", "hotdog", "hourglass", "manhole_cover"),
    *("mosque", "nail", "parking_meter", "pillow", "revolver", "rotary_dial_telephone", "schooner", "snowmobile"),
    *("soccer_ball", "stingray", "strawberry", "tank", "toaster", "volcano"),
)
COUNTS = {"train": 39_000, "test": 3_000}
FOLDERS = ("imagenet30", "ImageNet")
PARTS = {"train": "one_class_train", "test": "one_class_test"}
FOLDERS_OF_IT = Download((), None, r"one_class_(train|test)/.+", filename="folders one_class_train and one_class_test")
BY_HAND = (
    "take the train images from https://drive.google.com/file/d/1B5c39Fc3haOPzlehzmpTLz6xLtGyKEy4 and the test images "
    "from https://drive.google.com/file/d/13xzVuQMEhSnBRZr-YaaO08coLU2dxAUq, and unpack both there"
)


class ImageNet30(Dataset):
    """ImageNet-30: 30 classes of photographs, RGB, of many sizes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def source(self) -> Source:
        terms = "ImageNet's terms of access: non-commercial research and education"
        return Source(
            "ImageNet-30", "https://github.com/hendrycks/ss-ood", terms, (FOLDERS_OF_IT,), FOLDERS[0], BY_HAND
        )

    def needed(self, root: Path) -> Sequence[Path]:
        return [path for part in PARTS for path in images.needed_below(_top(part, root))]

    def files(self, split: images.Split, root: Path) -> Sequence[Path]:
        return images.below(_top(split, root))

    def load(self, split: images.Split, root: Path) -> Images:
        top = _top(split, root)
        found = images.of_classes(top, NAMES)
        images.check_whole(top, len(found.x), COUNTS[split])
        return found


def _top(split: str, root: Path) -> Path:
    return images.first_folder(root, [f"{folder}/{PARTS[split]}" for folder in FOLDERS])
