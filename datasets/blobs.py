"""Gaussian clouds in pixel space, for tests: with an encoder that returns its pixels, AUROC has a closed form.

Class k is N(m_k, spread^2 I) with m_k = 128 + separation * e_k, and `shift` moves every class along one more
direction, orthogonal to all e_k. With one class, one cluster and Euclidean distance, squared distances
divided by spread^2 + 1/12 (rounding to whole grey levels adds the variance 1/12) follow a chi-square
distribution with size^2 degrees of freedom for ID, and a non-central one for the shifted set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Images, NonNegative, Positive, Size


class Blobs(Dataset):
    """Blobs: synthetic Gaussian classes with a known AUROC."""

    groups: Size = 4  # number of classes
    count: Size = 400  # of each split
    size: Size = 8  # pixels of each side
    spread: Positive = 12.0  # standard deviation of a pixel, grey levels
    separation: NonNegative = 100.0  # of a class from the middle, grey levels
    shift: NonNegative = 0.0  # of the whole set, grey levels
    draw: int = 0  # seed

    def __post_init__(self) -> None:
        if self.groups >= self.size**2:
            raise ValueError(f"{self.groups} groups need more than {self.size**2} pixels")

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"blob {k}" for k in range(self.groups))

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        pixels = self.size**2
        axes = np.linalg.qr(np.random.default_rng(0).normal(size=(pixels, pixels)))[0]  # the same in every set
        rng = np.random.default_rng([self.draw, split == "test", round(self.shift * 1000)])
        y = np.arange(self.count) % self.groups
        x = 128 + self.separation * axes[y] + self.shift * axes[-1] + rng.normal(0, self.spread, (self.count, pixels))
        x = np.clip(np.round(x), 0, 255).astype(np.uint8)
        return Images(x.reshape(-1, self.size, self.size), y.astype(np.int64), self.class_names)
