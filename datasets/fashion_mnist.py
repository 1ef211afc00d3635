"""Fashion-MNIST, Xiao et al. 2017, arXiv 1708.07747: 60,000 + 10,000 images of clothes, 28 x 28, grey, 10 classes.

The four IDX files, gzipped or not, are looked for in DATA/fashion_mnist, in DATA/FashionMNIST/raw (where
torchvision puts them) and in /usr/share/datasets/fashion-mnist (Debian's package dataset-fashion-mnist);
else they are downloaded to DATA/fashion_mnist.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Download, Images, Source
from oodbench.toolkit.raw_files import read_idx

NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
OWN = "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
PUBLISHED = (
    ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
    ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe", 29_515),
    ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79", 4_422_102),
    ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310", 5_148),
)
SOURCE = Source(
    title="Fashion-MNIST",
    page="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
    downloads=tuple(Download((f"{SITE}/{name}",), md5, size=size) for name, md5, size in PUBLISHED),
    folder=OWN,
    by_hand="or install Debian's package dataset-fashion-mnist",
)


class FashionMNIST(Dataset):
    """Fashion-MNIST: 10 classes of clothes, 28 x 28, grey."""

    source = SOURCE

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def needed(self, root: Path) -> list[Path]:
        found = _found(root) or {split: [_file(root / OWN, name) for name in names] for split, names in FILES.items()}
        return [*found["train"], *found["test"]]

    def files(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        return _found(root).get(split, [])

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        x, y = (read_idx(path) for path in self.files(split, root))
        return Images(x, y.astype(np.int64), NAMES)


def _found(root: Path) -> dict[str, list[Path]]:
    """Return the two files of each split from the first folder that has all four."""
    for folder in (root / OWN, root / "FashionMNIST" / "raw", DEBIAN):
        found = {split: [_file(folder, name) for name in names] for split, names in FILES.items()}
        if all(path.is_file() for paths in found.values() for path in paths):
            return found
    return {}


def _file(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"
