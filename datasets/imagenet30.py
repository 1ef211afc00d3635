"""ImageNet-30, Hendrycks et al. 2019, arXiv 1906.12340: 39,000 + 3,000 photographs, RGB, of many sizes, 30 classes.

DATA/ImageNet/one_class_train/CLASS and DATA/ImageNet/one_class_test/CLASS, where CSI has them, or both folders in
DATA/imagenet30; a class has the images at any depth below its folder, links followed (its authors link to ImageNet's
train images). It is placed by hand. 39,000 and 3,000 are confirmed by Kuwana et al. 2024 (Black-Box Forgetting).
"""

from __future__ import annotations

from oodbench.api import Download, Source
from oodbench.toolkit.layouts import Folders, Place

NAMES = (
    *("acorn", "airliner", "ambulance", "american_alligator", "banjo", "barn", "bikini", "digital_clock"),
    *("dragonfly", "dumbbell", "forklift", "goblet", "grand_piano", "hotdog", "hourglass", "manhole_cover"),
    *("mosque", "nail", "parking_meter", "pillow", "revolver", "rotary_dial_telephone", "schooner", "snowmobile"),
    *("soccer_ball", "stingray", "strawberry", "tank", "toaster", "volcano"),
)
FOLDERS = ("imagenet30", "ImageNet")
FOLDERS_OF_IT = Download((), None, r"one_class_(train|test)/.+", filename="folders one_class_train and one_class_test")
BY_HAND = (
    "take the train images from https://drive.google.com/file/d/1B5c39Fc3haOPzlehzmpTLz6xLtGyKEy4 and the test images "
    "from https://drive.google.com/file/d/13xzVuQMEhSnBRZr-YaaO08coLU2dxAUq, and unpack both there"
)


class ImageNet30(Folders):
    """ImageNet-30: 30 classes of photographs, RGB, of many sizes."""

    class_names = NAMES
    train_place = Place([f"{each}/one_class_train" for each in FOLDERS], 39_000)
    test_place = Place([f"{each}/one_class_test" for each in FOLDERS], 3_000)
    source = Source(
        "ImageNet-30",
        "https://github.com/hendrycks/ss-ood",
        "ImageNet's terms of access: non-commercial research and education",
        (FOLDERS_OF_IT,),
        FOLDERS[0],
        BY_HAND,
    )
