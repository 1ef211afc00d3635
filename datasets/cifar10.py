"""CIFAR-10, Krizhevsky 2009: 50,000 + 10,000 photographs, 32 x 32, RGB, 10 classes.

DATA/cifar-10-batches-py, as torchvision has it, or cifar-10-python.tar.gz in DATA; else it is downloaded.
The batches are pickles and are read without unpickling anything but arrays of bytes and lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Download, Images, Source
from oodbench.toolkit import raw_files

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
SOURCE = Source(
    title="CIFAR-10",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated",
    downloads=(
        Download(
            ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            "md5:c58f30108f718f92721af3b95e74349a",
            rf"{FOLDER}/(data_batch_[1-5]|test_batch)",
            size=170_498_071,
        ),
    ),
)


class CIFAR10(Dataset):
    """CIFAR-10: 10 classes of photographs, 32 x 32, RGB."""

    source = SOURCE

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def needed(self, root: Path) -> list[Path]:
        return [*_paths("train", root), *_paths("test", root)]

    def files(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        return raw_files.present(_paths(split, root))

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        batches = [raw_files.read_rows(path, "labels", len(NAMES)) for path in _paths(split, root)]
        x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return Images(x, y, NAMES)


def _paths(split: Literal["train", "test"], root: Path) -> list[Path]:
    return [root / FOLDER / name for name in FILES[split]]
