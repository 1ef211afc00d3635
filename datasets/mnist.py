"""MNIST, LeCun et al. 1998: 60,000 + 10,000 handwritten digits, 28 x 28, grey, 10 classes.

The four IDX files, gzipped or not, in DATA/MNIST/raw, where torchvision has them; else they are downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from oodbench.api import Dataset, Download, Images, Source
from oodbench.toolkit import raw_files

NAMES = tuple("0123456789")
FOLDER = Path("MNIST", "raw")
SITES = ("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
PUBLISHED = (
    ("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
    ("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432", 28_881),
    ("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3", 1_648_877),
    ("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c", 4_542),
)
SOURCE = Source(
    title="MNIST",
    page="http://yann.lecun.com/exdb/mnist/",
    licence="none stated",
    downloads=tuple(
        Download(tuple(f"{site}/{name}" for site in SITES), md5, size=size) for name, md5, size in PUBLISHED
    ),
    folder=FOLDER.as_posix(),
)


class MNIST(Dataset):
    """MNIST: 10 handwritten digits, 28 x 28, grey."""

    source = SOURCE

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def needed(self, root: Path) -> list[Path]:
        return [*_paths("train", root), *_paths("test", root)]

    def files(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        return raw_files.present(_paths(split, root))

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        images, labels = _paths(split, root)
        x, y = raw_files.read_idx(images), raw_files.read_idx(labels)
        if x.shape[1:] != (28, 28):
            raise ValueError(f"{images} holds items of shape {x.shape[1:]}, not (28, 28)")
        return Images(x, raw_files.checked_labels(labels, y, len(x), len(NAMES)), NAMES)


def _paths(split: Literal["train", "test"], root: Path) -> list[Path]:
    paths = [root / FOLDER / name for name in FILES[split]]
    return [path if path.is_file() else path.with_name(f"{path.name}.gz") for path in paths]
