"""Letters in Pillow's built-in font (Aileron Regular), white on black, each with its own size, tilt and place.

The default letters leave out those that look like a digit in some turn or case (O and 0, l and 1, Z and 2, ...).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from oodbench.api import Dataset, Images, Size

OVERSAMPLE = 4  # drawn so many times larger, then reduced


class Glyphs(Dataset):
    """Glyphs: letters of a font, a stand-in for outliers."""

    letters: str = "EFHKMNRUVWXkmnuvwx"  # each a class
    count: Size = 2000  # of each split
    size: Size = 32  # pixels of each side
    draw: int = 0  # seed

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.letters)

    def load(self, split: Literal["train", "test"], root: Path) -> Images:
        rng = np.random.default_rng([self.draw, split == "test"])
        y = rng.integers(len(self.letters), size=self.count)
        return Images(np.stack([self._glyph(self.letters[k], rng) for k in y]), y.astype(np.int64), self.class_names)

    def _glyph(self, letter: str, rng: np.random.Generator) -> NDArray[np.uint8]:
        side = self.size * OVERSAMPLE
        font = ImageFont.load_default(side * rng.uniform(0.75, 1.1))
        canvas = Image.new("L", (side, side))
        place = side * (0.5 + rng.uniform(-0.08, 0.08, size=2))
        stroke = int(rng.integers(0, side // 16 + 1))
        ImageDraw.Draw(canvas).text(tuple(place), letter, fill=255, font=font, anchor="mm", stroke_width=stroke)
        tilted = canvas.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR)
        return np.asarray(tilted.resize((self.size, self.size), Image.Resampling.BOX))
