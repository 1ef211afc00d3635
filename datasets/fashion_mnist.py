"""Fashion-MNIST, Xiao et al. 2017, arXiv 1708.07747: 60,000 + 10,000 images of clothes, 28 x 28, grey, 10 classes.

The four IDX files, gzipped or not, are looked for in DATA/fashion_mnist, in DATA/FashionMNIST/raw (where
torchvision puts them) and in /usr/share/datasets/fashion-mnist (Debian's package dataset-fashion-mnist);
else torchvision downloads them.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Dataset, Images

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


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return an IDX file of bytes; raises ValueError where it is cut short or something else."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path} is not an IDX file of bytes")
    shape = tuple(np.frombuffer(raw, dtype=">i4", count=raw[3], offset=4).tolist())
    start = 4 + 4 * raw[3]
    if len(raw) - start != np.prod(shape):
        raise ValueError(f"{path} is damaged: {len(raw) - start} bytes of {np.prod(shape)}")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)
