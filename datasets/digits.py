"""The 1,797 handwritten digits that come with scikit-learn (UCI optdigits test set, Alpaydin & Kaynak 1998).

8 x 8 pixels with 17 grey levels, here spread over 0 ... 255: give `image: {levels: 17}`, or an OOD set is told
apart by its levels alone. The set has no split; a fixed one keeps 40 % of each class for testing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from oodbench.api import Dataset, Images

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits(Dataset):
    """Digits: scikit-learn's real handwritten digits, 8 x 8, 1,797 images."""

    class_names = NAMES

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        bunch = load_digits()
        train, test = train_test_split(
            np.arange(len(bunch.target)), test_size=0.4, random_state=0, stratify=bunch.target
        )
        rows = np.sort(train if split == "train" else test)
        x = np.round(bunch.images[rows] * 255 / 16).astype(np.uint8)
        return Images(x, bunch.target[rows].astype(np.int64), NAMES)
