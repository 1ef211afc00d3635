"""Fashion-MNIST, Xiao et al. 2017, arXiv 1708.07747: 60,000 + 10,000 images of clothes, 28 x 28, grey, 10 classes.

The four IDX files, gzipped or not, are looked for in DATA/fashion_mnist, in DATA/FashionMNIST/raw (where
torchvision puts them) and in /usr/share/datasets/fashion-mnist (Debian's package dataset-fashion-mnist);
else torchvision downloads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Images
from oodbench.raw import read_idx

NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class FashionMNIST(Dataset):
    """Fashion-MNIST: 10 classes of clothes, 28 x 28, grey."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def fetch(self, root: Path) -> None:
        if _found(root):
            return
        from torchvision.datasets import FashionMNIST as Download

        try:
            Download(str(root), download=True)
        except (RuntimeError, OSError) as error:
            names = ", ".join(f"{name}.gz" for pair in FILES.values() for name in pair)
            raise FileNotFoundError(
                f"Fashion-MNIST is not here and cannot be downloaded ({error}); place {names} in "
                f"{root / 'fashion_mnist'}, or install Debian's package dataset-fashion-mnist"
            ) from error

    def files(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        return _found(root).get(split, [])

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        x, y = (read_idx(path) for path in self.files(split, root))
        return Images(x, y.astype(np.int64), NAMES)


def _found(root: Path) -> dict[str, list[Path]]:
    """Return the two files of each split from the first folder that has all four."""
    for folder in (root / "fashion_mnist", root / "FashionMNIST" / "raw", DEBIAN):
        found = {split: [_file(folder, name) for name in names] for split, names in FILES.items()}
        if all(path.is_file() for paths in found.values() for path in paths):
            return found
    return {}


def _file(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"
