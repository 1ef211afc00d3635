"""CIFAR-10, Krizhevsky 2009: 50,000 + 10,000 photographs, 32 x 32, RGB, 10 classes.

DATA/cifar-10-batches-py, as torchvision has it, or cifar-10-python.tar.gz in DATA; else it is downloaded.
The batches are pickles and are read without unpickling anything but arrays of bytes and lists.
"""

from __future__ import annotations

from pathlib import Path

from oodbench.api import Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import CIFAR10_ARCHIVE, Labelled, Packed

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"


class CIFAR10(Packed):
    """CIFAR-10: 10 classes of photographs, 32 x 32, RGB."""

    class_names = NAMES
    train_files = tuple(f"{FOLDER}/data_batch_{i}" for i in range(1, 6))
    test_files = (f"{FOLDER}/test_batch",)
    source = Source("CIFAR-10", "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated", (CIFAR10_ARCHIVE,))

    def read(self, *paths: Path) -> Labelled:
        return raw_files.read_rows(paths, "labels", len(NAMES))
