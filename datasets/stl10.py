"""STL-10, Coates et al. 2011: 5,000 + 8,000 photographs, 96 x 96, RGB, 10 classes.

DATA/stl10_binary, as torchvision has it, or stl10_binary.tar.gz in DATA; else it is downloaded (2.6 GB, as the
archive holds 100,000 unlabelled images, which are not taken out of it). All folds of the train split are one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oodbench.api import Download, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Labelled, Packed

NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
FOLDER = "stl10_binary"
SIDE = 96
ARCHIVE = Download(
    ("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",),
    "md5:91f7769df0f17e558f3565bffb0c7dfb",
    rf"{FOLDER}/(train|test)_[Xy]\.bin",
    size=2_640_397_119,
)


class STL10(Packed):
    """STL-10: 10 classes of photographs, 96 x 96, RGB."""

    class_names = NAMES
    train_files = (f"{FOLDER}/train_X.bin", f"{FOLDER}/train_y.bin")
    test_files = (f"{FOLDER}/test_X.bin", f"{FOLDER}/test_y.bin")
    source = Source("STL-10", "https://cs.stanford.edu/~acoates/stl10/", "none stated", (ARCHIVE,))

    def read(self, *paths: Path) -> Labelled:
        images, labels = paths
        pixels = np.fromfile(images, dtype=np.uint8)
        if not len(pixels) or len(pixels) % (3 * SIDE * SIDE):
            raise ValueError(f"{images} is damaged: {len(pixels)} bytes are no whole number of {SIDE} x {SIDE} images")
        x = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)  # a channel is stored column by column
        y = np.fromfile(labels, dtype=np.uint8).astype(np.int64) - 1
        return x, raw_files.checked_labels(labels, y, len(x), len(NAMES))
