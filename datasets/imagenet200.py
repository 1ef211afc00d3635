"""ImageNet-200, Zhang et al. 2023 (OpenOOD v1.5), arXiv 2306.09301: 200 classes of ImageNet-1k, those of ImageNet-R.

The folders of ImageNet-1k are read: DATA/imagenet/train/WNID and DATA/imagenet/val/WNID, or the same in
DATA/images_largescale/imagenet_1k; folders of other classes are left alone. All 10,000 validation images of the classes
are the test split (OpenOOD takes 9,000 of them, and 1,000 for validation: its lists are read by image_list). It is
placed by hand. A class is named by its WordNet id. 10,000 is confirmed by OpenOOD's lists, 9,000 + 1,000,
as pytorch-ood documents them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench.api import Download, Source
from oodbench.toolkit import image_files
from oodbench.toolkit.layouts import Folders, Place

IDS = """
    01443537 01484850 01494475 01498041 01514859 01518878 01531178 01534433
    01614925 01616318 01630670 01632777 01644373 01677366 01694178 01748264
    01770393 01774750 01784675 01806143 01820546 01833805 01843383 01847000
    01855672 01860187 01882714 01910747 01944390 01983481 01986214 02007558
    02009912 02051845 02056570 02066245 02071294 02077923 02085620 02086240
    02088094 02088238 02088364 02088466 02091032 02091134 02092339 02094433
    02096585 02097298 02098286 02099601 02099712 02102318 02106030 02106166
    02106550 02106662 02108089 02108915 02109525 02110185 02110341 02110958
    02112018 02112137 02113023 02113624 02113799 02114367 02117135 02119022
    02123045 02128385 02128757 02129165 02129604 02130308 02134084 02138441
    02165456 02190166 02206856 02219486 02226429 02233338 02236044 02268443
    02279972 02317335 02325366 02346627 02356798 02363005 02364673 02391049
    02395406 02398521 02410509 02423022 02437616 02445715 02447366 02480495
    02480855 02481823 02483362 02486410 02510455 02526121 02607072 02655020
    02672831 02701002 02749479 02769748 02793495 02797295 02802426 02808440
    02814860 02823750 02841315 02843684 02883205 02906734 02909870 02939185
    02948072 02950826 02951358 02966193 02980441 02992529 03124170 03272010
    03345487 03372029 03424325 03452741 03467068 03481172 03494278 03495258
    03498962 03594945 03602883 03630383 03649909 03676483 03710193 03773504
    03775071 03888257 03930630 03947888 04086273 04118538 04133789 04141076
    04146614 04147183 04192698 04254680 04266014 04275548 04310018 04325704
    04347754 04389033 04409515 04465501 04487394 04522168 04536866 04552348
    04591713 07614500 07693725 07695742 07697313 07697537 07714571 07714990
    07718472 07720875 07734744 07742313 07745940 07749582 07753275 07753592
    07768694 07873807 07880968 07920052 09472597 09835506 10565667 12267677
"""
NAMES = tuple(f"n{each}" for each in IDS.split())
FOLDERS = ("imagenet", "images_largescale/imagenet_1k")
BOTH = Download((), None, r"(train|val)/.+", filename="folders train and val")
BY_HAND = (
    "register at https://image-net.org, take ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
    "ILSVRC2012_devkit_t12.tar.gz into that folder, and let torchvision.datasets.ImageNet unpack them there, once for "
    "split='train' and once for split='val'"
)


class ImageNet200(Folders):
    """ImageNet-200: the 200 classes of ImageNet-1k that OpenOOD takes, RGB, of many sizes."""

    train_place = Place([f"{each}/train" for each in FOLDERS])
    test_place = Place([f"{each}/val" for each in FOLDERS], 10_000)
    source = Source(
        "ImageNet-200",
        "https://github.com/Jingkang50/OpenOOD",
        "ImageNet's terms of access: non-commercial research and education",
        (BOTH,),
        FOLDERS[0],
        BY_HAND,
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def needed(self, root: Path) -> Sequence[Path]:
        tops = [self.top(split, root) for split in self.splits]
        return [path for top in tops for name in NAMES for path in image_files.needed_below(top / name)]

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        return [path for name in NAMES for path in image_files.below(self.top(split, root) / name)]
