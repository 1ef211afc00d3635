"""300K Random Images, Hendrycks et al. 2019, arXiv 1812.04606: 300,000 images, 32 x 32, RGB, to train on as outliers.

A cleaned part of 80 Million Tiny Images, for outlier exposure; 300,000 is confirmed by pytorch-ood's documentation.
300K_random_images.npy in DATA; else it is downloaded (0.9 GB). It is memory-mapped; the images have no labels, and are
one class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oodbench.api import Download, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Labelled, Packed

COUNT = 300_000
FILE = Download(
    ("https://people.eecs.berkeley.edu/~hendrycks/300K_random_images.npy",),
    "md5:64ca64357de98351f28454274a112dc3",
)


class Images300K(Packed):
    """300K Random Images: outliers to train on, 32 x 32, RGB, train images alone."""

    train_files = (FILE.name,)
    source = Source("300K Random Images", "https://github.com/hendrycks/outlier-exposure", "see the page", (FILE,))

    def read(self, *paths: Path) -> Labelled:
        (path,) = paths
        with raw_files.reading(path):
            x = np.load(path, mmap_mode="r", allow_pickle=False)
            if x.shape != (COUNT, 32, 32, 3) or x.dtype != np.uint8:
                raise ValueError(f"{x.dtype} {x.shape}, the set is uint8 {(COUNT, 32, 32, 3)}")
        return x, np.zeros(len(x), dtype=np.int64)
