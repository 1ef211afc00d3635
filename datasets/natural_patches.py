"""Square crops of the two photographs that come with scikit-learn (a Chinese temple, a flower).

Crops of the left part of each photograph are the train split, of the right part the test split, so that no
pixel is in both. Sides are drawn between `size` and four times that and resized to `size`; a crop of nearly
one colour (empty sky, blurred background) is drawn again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from oodbench.api import Dataset, Images, Size

NAMES = ("china", "flower")
TRAIN_SHARE = 0.6  # of the width of a photograph
CONTRAST = 20.0  # least standard deviation of a crop, grey levels


class NaturalPatches(Dataset):
    """Natural patches: crops of scikit-learn's two photographs, RGB."""

    count: Size = 1000  # of each split
    size: Size = 32  # pixels of each side
    draw: int = 0  # seed

    class_names = NAMES

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        rng = np.random.default_rng([self.draw, split == "test"])
        y = rng.integers(len(NAMES), size=self.count)
        parts = [_part(Image.fromarray(photo), split) for photo in load_sample_images().images]
        x = np.stack([self._crop(parts[k], rng) for k in y])
        return Images(x, y.astype(np.int64), NAMES)

    def _crop(self, photo: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        while True:
            side = int(rng.integers(self.size, min(4 * self.size, *photo.size) + 1))
            left, top = (int(rng.integers(length - side + 1)) for length in photo.size)
            crop = photo.crop((left, top, left + side, top + side))
            small = crop.resize((self.size, self.size), Image.Resampling.BILINEAR)
            if np.asarray(small.convert("L")).std() >= CONTRAST:
                return np.asarray(small)


def _part(photo: Image.Image, split: str) -> Image.Image:
    cut = round(photo.width * TRAIN_SHARE)
    return photo.crop((0, 0, cut, photo.height) if split == "train" else (cut, 0, photo.width, photo.height))
