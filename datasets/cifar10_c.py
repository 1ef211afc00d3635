"""CIFAR-10-C, Hendrycks & Dietterich 2019 (arXiv 1903.12261): CIFAR-10's test images in 19 corruptions, 5 severities.

DATA/CIFAR-10-C, as CIFAR-10-C.tar unpacks, or that archive in DATA; else it is downloaded. KIND.npy holds the 10,000
test images five times, severity 1 first, and labels.npy their classes. They are test images alone. These are the
published images; `corrupt`, which every set takes, makes other ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval

from oodbench.api import Download, Source
from oodbench.toolkit import raw_files
from oodbench.toolkit.layouts import Labelled, Packed

FOLDER = "CIFAR-10-C"
EACH = 10_000  # images of a severity
Kind = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",  # this and the next are the authors' extra ones, in no mean of theirs
    "gaussian_blur",
    "spatter",
    "saturate",
]


class CIFAR10C(Packed):
    """CIFAR-10-C: the published corruptions of CIFAR-10's test images, one kind and severity."""

    kind: Kind = "gaussian_noise"  # of corruption
    severity: Annotated[int, Interval(ge=1, le=5)] = 1  # from 1, the least, to 5

    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    test_files = ("labels.npy",)
    source = Source(
        "CIFAR-10-C",
        "https://zenodo.org/records/2535967",
        "CC BY 4.0",
        (
            Download(
                ("https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",),
                "md5:56bf5dcef84df0e2308c6dcbcbbd8499",
                rf"{FOLDER}/[a-z_]+\.npy",
                size=2_918_471_680,
            ),
        ),
    )

    def paths(self, split: Literal["train", "test"], root: Path) -> list[Path]:
        return [root / FOLDER / f"{self.kind}.npy", *super().paths(split, root / FOLDER)]

    def read(self, *paths: Path) -> Labelled:
        images, labels = paths
        with raw_files.reading(images):
            x = np.load(images, mmap_mode="r", allow_pickle=False)
            if x.shape != (5 * EACH, 32, 32, 3) or x.dtype != np.uint8:
                raise ValueError(f"it holds {x.dtype} of shape {x.shape}, not uint8 of {(5 * EACH, 32, 32, 3)}")
        with raw_files.reading(labels):
            given = np.load(labels, allow_pickle=False)
        y = raw_files.checked_labels(labels, given, len(x), len(self.class_names))
        at = slice((self.severity - 1) * EACH, self.severity * EACH)
        return x[at], y[at]
