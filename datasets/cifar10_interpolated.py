"""Interpolated CIFAR-10, Tack et al. 2020 (CSI), arXiv 2007.08176: 10,000 means of two test images, 32 x 32, RGB.

As alinlab/CSI makes them while it tests (evals/ood_pre.py and evals/evals.py, test batches of 100): image i is the mean
of test images i and i - 100 in the order of the file, and the first 100 are test images as they are. Means are rounded
to whole numbers, halves to even; CSI keeps the halves. The test batch is read where CIFAR-10 has it:
DATA/cifar-10-batches-py, or cifar-10-python.tar.gz in DATA; else it is downloaded. They are one class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oodbench.api import Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import CIFAR10_ARCHIVE, Labelled, Packed

APART = 100  # CSI's batch: how far apart in the file the two images of a mean are


class CIFAR10Interpolated(Packed):
    """Interpolated CIFAR-10: means of two photographs, 32 x 32, RGB, test images alone, as CSI makes them."""

    test_files = ("cifar-10-batches-py/test_batch",)
    source = Source("Interpolated CIFAR-10", "https://github.com/alinlab/CSI", "none stated", (CIFAR10_ARCHIVE,))

    def read(self, *paths: Path) -> Labelled:
        x, _ = raw_files.read_rows(paths, "labels", 10)
        mixed = np.rint((x[APART:].astype(np.float32) + x[:-APART]) / 2).astype(np.uint8)
        return np.concatenate([x[:APART], mixed]), np.zeros(len(x), dtype=np.int64)
