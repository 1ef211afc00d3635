"""Noise images, each pixel and channel on its own: uniform over all grey values, or normal about the middle.

Give `size` and `channels` as the study's image has them: resizing would smooth the noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Images, Size


class Noise(Dataset):
    """Noise: uniform or normal pixels."""

    kind: Literal["uniform", "normal"] = "uniform"  # distribution of each pixel
    count: Size = 1000  # of each split
    size: Size = 32  # pixels of each side
    channels: Size = 1  # of each image
    draw: int = 0  # seed

    class_names = ("noise",)

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        rng = np.random.default_rng([self.draw, split == "test"])
        shape = (self.count, self.size, self.size, self.channels)
        x = rng.integers(256, size=shape) if self.kind == "uniform" else rng.normal(127.5, 64, size=shape)
        return Images(np.clip(np.round(x), 0, 255).astype(np.uint8), np.zeros(self.count, dtype=np.int64), ("noise",))
