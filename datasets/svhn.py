"""SVHN, Netzer et al. 2011: 73,257 + 26,032 house numbers cropped to one digit, 32 x 32, RGB, 10 classes.

train_32x32.mat and test_32x32.mat in DATA/svhn, or in DATA itself, where torchvision has them; else they are
downloaded. The 531,131 easier images of "extra" are not used. A zero, 10 in the files, is class 0.

The code of ODIN, KNN-OOD and CIDER reads selected_test_32x32.mat, which has the first 1,000 test images of each digit:
`first: 1000`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oodbench.api import Download, Size, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.image_files import Split
from oodbench.toolkit.layouts import Labelled, Packed

SITE = "http://ufldl.stanford.edu/housenumbers"


class SVHN(Packed):
    """SVHN: 10 digits of house numbers, 32 x 32, RGB."""

    first: Size | None = None  # images of each digit, in the order of the file; None: all

    class_names = tuple("0123456789")
    train_files = ("svhn/train_32x32.mat",)
    test_files = ("svhn/test_32x32.mat",)
    source = Source(
        "SVHN",
        f"{SITE}/",
        "non-commercial use only, as Hugging Face's card of the set says",
        (
            Download((f"{SITE}/train_32x32.mat",), "md5:e26dedcc434d2e4c54c9b2d4a06d8373", size=182_040_794),
            Download((f"{SITE}/test_32x32.mat",), "md5:eb5a983be6a315427106f1b164d9cef3", size=64_275_384),
        ),
        "svhn",
    )

    def paths(self, split: Split, root: Path) -> list[Path]:
        return [other if (other := root / own.name).is_file() else own for own in super().paths(split, root)]

    def read(self, *paths: Path) -> Labelled:
        (path,) = paths
        x, y = raw_files.read_mat(path, "X", "y")  # (32, 32, 3, N), N of 1 ... 10
        with raw_files.reading(path):
            y = y.reshape(-1)
            if x.shape[:3] != (32, 32, 3) or x.ndim != 4 or x.dtype != np.uint8 or (y == 0).any():
                raise ValueError(f"images of shape {x.shape}, {x.dtype}, labels {np.unique(y)}")
        y = raw_files.checked_labels(path, y, x.shape[3], len(self.class_names) + 1)
        y = y % len(self.class_names)
        at = np.sort(np.concatenate([np.flatnonzero(y == k)[: self.first] for k in range(len(self.class_names))]))
        return x.transpose(3, 0, 1, 2)[at], y[at]
