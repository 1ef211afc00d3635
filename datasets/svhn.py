"""SVHN, Netzer et al. 2011: 73,257 + 26,032 house numbers cropped to one digit, 32 x 32, RGB, 10 classes.

train_32x32.mat and test_32x32.mat in DATA/svhn, or in DATA itself, where torchvision has them; else they are
downloaded. The 531,131 easier images of "extra" are not used. A zero, 10 in the files, is class 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Download, Images, Source
from oodbench.toolkit import raw_files

NAMES = tuple("0123456789")
SITE = "http://ufldl.stanford.edu/housenumbers"
SOURCE = Source(
    title="SVHN",
    page=f"{SITE}/",
    licence="non-commercial use only, as Hugging Face's card of the set says",
    downloads=(
        Download((f"{SITE}/train_32x32.mat",), "md5:e26dedcc434d2e4c54c9b2d4a06d8373", size=182_040_794),
        Download((f"{SITE}/test_32x32.mat",), "md5:eb5a983be6a315427106f1b164d9cef3", size=64_275_384),
    ),
    folder="svhn",
)


class SVHN(Dataset):
    """SVHN: 10 digits of house numbers, 32 x 32, RGB."""

    source = SOURCE

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def needed(self, root: Path) -> list[Path]:
        return [_path("train", root), _path("test", root)]

    def files(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        return raw_files.present([_path(split, root)])

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        path = _path(split, root)
        x, y = raw_files.read_mat(path, "X", "y")  # (32, 32, 3, N), N of 1 ... 10
        with raw_files.reading(path):
            y = y.reshape(-1)
            if x.shape[:3] != (32, 32, 3) or x.ndim != 4 or x.dtype != np.uint8 or (y == 0).any():
                raise ValueError(f"images of shape {x.shape}, {x.dtype}, labels {np.unique(y)}")
        y = raw_files.checked_labels(path, y, x.shape[3], len(NAMES) + 1)
        return Images(x.transpose(3, 0, 1, 2), y % len(NAMES), NAMES)


def _path(split: Literal["train", "test"], root: Path) -> Path:
    name = f"{split}_32x32.mat"
    return root / name if (root / name).is_file() else root / "svhn" / name
