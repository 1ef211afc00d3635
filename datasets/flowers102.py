"""Flowers-102, Nilsback and Zisserman 2008 (ICVGIP): photographs of 102 kinds of flowers, RGB, of many sizes.

DATA/flowers-102 has jpg/, imagelabels.mat and setid.mat, as torchvision has them, or 102flowers.tgz and the two files;
else they are downloaded. The parts are trnid, valid and tstid of setid.mat. A class has torchvision's name. CSI tests
on images of all parts: `test: [train, val, test]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Download, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Parted

FOLDER = "flowers-102"
SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}


class Flowers102(Parted):
    """Flowers-102: 102 classes of flowers, RGB, of many sizes."""

    test: tuple[Literal["train", "val", "test"], ...] = ("test",)  # the other parts are the train split

    parts = tuple(PARTS)
    source = Source(
        "Flowers-102",
        f"{SITE}/",
        "none stated",
        (
            Download((f"{SITE}/imagelabels.mat",), "md5:e0620be6f572b9609742df49c70aed4d"),
            Download((f"{SITE}/setid.mat",), "md5:a5357ecc9cb78c4bef273ce3793fc85c"),
            Download((f"{SITE}/102flowers.tgz",), "md5:52808999861908f626f3c1f4e79d11fa", r"jpg/image_\d{5}\.jpg"),
        ),
        FOLDER,
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        from torchvision.datasets import Flowers102 as Named

        return tuple(Named.classes)

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / "imagelabels.mat", root / FOLDER / "setid.mat"]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        labelled, parted = self.lists(part, root)
        labels = _numbers(labelled, "labels")
        y = raw_files.checked_labels(labelled, labels - 1, len(labels), len(self.class_names))
        numbers = _numbers(parted, PARTS[part])
        if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= len(y):
            raise ValueError(f"{parted} numbers images from {numbers.min()} to {numbers.max()}, there are {len(y)}")
        return [(root / FOLDER / "jpg" / f"image_{i:05}.jpg", int(y[i - 1])) for i in numbers.tolist()]


def _numbers(path: Path, key: str) -> NDArray[Any]:
    """Return a vector of whole numbers of a .mat file."""
    (found,) = raw_files.read_mat(path, key)
    with raw_files.reading(path):
        return np.asarray(found.reshape(-1)).astype(np.int64)
