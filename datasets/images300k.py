"""300K Random Images, Hendrycks et al. 2019, arXiv 1812.04606: 300,000 images, 32 x 32, RGB, to train on as outliers.

A cleaned part of 80 Million Tiny Images, for outlier exposure; 300,000 is confirmed by pytorch-ood's documentation.
300K_random_images.npy in DATA; else it is downloaded (0.9 GB). It is memory-mapped; the images have no labels, and are
one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from oodbench.api import Dataset, Download, Images, Source
from oodbench.toolkit import image_files, raw_files

NAMES = ("images300k",)
COUNT = 300_000
FILE = Download(
    ("https://people.eecs.berkeley.edu/~hendrycks/300K_random_images.npy",),
    "md5:64ca64357de98351f28454274a112dc3",
)


class Images300K(Dataset):
    """300K Random Images: outliers to train on, 32 x 32, RGB, train images alone."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    @property
    def splits(self) -> tuple[image_files.Split, ...]:
        return ("train",)

    @property
    def source(self) -> Source:
        return Source("300K Random Images", "https://github.com/hendrycks/outlier-exposure", "see the page", (FILE,))

    def needed(self, root: Path) -> Sequence[Path]:
        return [root / FILE.name]

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        return raw_files.present([root / FILE.name])

    def load(self, split: image_files.Split, root: Path) -> Images:
        image_files.check_has(self, split)
        path = root / FILE.name
        with raw_files.reading(path):
            x = np.load(path, mmap_mode="r", allow_pickle=False)
            if x.shape != (COUNT, 32, 32, 3) or x.dtype != np.uint8:
                raise ValueError(f"{x.dtype} {x.shape}, the set is uint8 {(COUNT, 32, 32, 3)}")
        return Images(x, np.zeros(len(x), dtype=np.int64), NAMES)
