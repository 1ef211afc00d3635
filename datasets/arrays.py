"""Your own images as numpy arrays: .npz with `x` (N, H, W) or (N, H, W, C) of uint8 and `y` (N,), or .npy with x alone.

The files are absolute or in DATA: `pets-{split}.npz`, where {split} becomes `train` or `test`; `test_share` draws a
split from one file instead. Labels are whole numbers or text; an array `classes` of the .npz names the labels 0, 1, ...
Without it classes, of both files, are numbered by value where all labels are whole numbers, else by name. An .npy file
is memory-mapped (a part of it that is drawn is not) and one class, an .npz file is read whole.

Arrays of other types than uint8 need `range: [LOW, HIGH]`: a value v becomes round(255 (v - LOW) / (HIGH - LOW)),
halves to even, and a value beyond LOW and HIGH is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Dataset, Images
from oodbench.errors import of_machine, suggestion
from oodbench.toolkit.image_files import (
    Encoded,
    Range,
    Share,
    Split,
    by_split,
    check_split,
    drawn,
    in_order,
    numbered,
    scaled,
)
from oodbench.toolkit.raw_files import present

ONE = "images"  # the class of images without labels


class Arrays(Dataset):
    """Arrays: your own images from .npz or .npy files."""

    path: str = "images-{split}.npz"  # absolute or in DATA
    x: str = "x"  # name of the array of images
    y: str | None = "y"  # of labels; None: one class
    train: str = "train"  # what {split} stands for
    test: str = "test"  # the same of the test split
    test_share: Share | None = None  # None: a file for each split; else of each class; 1: everything is test
    draw: int = 0  # seed of test_share
    range: Range | None = None  # values of other arrays than uint8 that become 0 and 255; None: uint8 alone

    def __post_init__(self) -> None:
        check_split(self.path, self.test_share)

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        return present([*dict.fromkeys(self._files(root).values())])

    def load(self, split: Split, root: Path) -> Images:
        file = self._files(root)[split]
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
        x, labels = _images(file, self.x, self.range), self._labels(file)
        count = len(x) if labels is None else len(labels)
        if len(x) != count or not count:
            raise ValueError(f"{file}: {len(x)} images in '{self.x}', {count} labels in '{self.y}'")
        classes = self._classes(root)
        y = numbered([ONE] * count if labels is None else labels, classes)
        if self.test_share is not None and (self.test_share < 1 or split == "train"):
            at = drawn(y, self.test_share, self.draw, split)
            x, y = x[at], y[at]
        return Images(x if self.range is None else _eight_bits(x, self.range, f"{file}, '{self.x}'"), y, classes)

    def _files(self, root: Path) -> dict[Split, Path]:
        return by_split(self.path, self.train, self.test, root)

    def _classes(self, root: Path) -> tuple[str, ...]:
        files = self.files("train", root)
        named = {names for file in files if (names := _names(file))}
        if len(named) > 1:
            raise ValueError(f"{' and '.join(map(str, files))} differ in `classes`")
        if named:
            return named.pop()
        labels = [self._labels(file) for file in files]
        return in_order(label for each in labels for label in ([ONE] if each is None else each))

    def _labels(self, file: Path) -> list[str] | None:
        """Return the label of each image as text, by `classes` where the file has them."""
        if self.y is None or file.suffix == ".npy":
            return None
        y, names = _array(file, self.y), _names(file)
        if y.ndim != 1 or y.dtype.kind not in "iuU":
            raise ValueError(f"{file}: '{self.y}' is {y.dtype} {y.shape}, wanted are whole numbers or text, (N,)")
        if not names:
            return [str(label) for label in y.tolist()]
        outside = sorted(set(y.tolist()) - set(range(len(names))))
        if outside:
            raise ValueError(f"{file}: '{self.y}' holds {outside[0]!r}, `classes` names 0 to {len(names) - 1}")
        return [names[label] for label in y.tolist()]


def _names(file: Path) -> tuple[str, ...]:
    """Return the names of the labels 0, 1, ... where a file has them."""
    if file.suffix == ".npy" or "classes" not in _held(file):
        return ()
    names = tuple(str(name) for name in _array(file, "classes").tolist())
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: `classes` names two classes alike")
    return names


def _images(file: Path, name: str, span: tuple[float, float] | None) -> NDArray[Any]:
    """Return the array of images: of uint8, or of numbers of other types where their range is said."""
    x = _array(file, name)
    form = "(N, H, W) or (N, H, W, C) of 1, 3 or 4 channels"
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3, 4)):
        raise ValueError(f"{file}: '{name}' is {x.dtype} {x.shape}, wanted is uint8 {form}")
    if span is not None and (x.dtype == np.uint8 or x.dtype.kind not in "iuf"):
        raise ValueError(f"{file}: '{name}' is {x.dtype}, and `range` is for whole numbers of other types and floats")
    if span is None and x.dtype != np.uint8:
        such = "[0, 1]" if x.dtype.kind == "f" else "[0, 65535]"
        hint = f"; or say `range`, the values that are black and white, such as `range: {such}`"
        raise ValueError(
            f"{file}: '{name}' is {x.dtype} {x.shape}, wanted is uint8 {form}{hint * (x.dtype.kind in 'iuf')}"
        )
    return x


def _eight_bits(x: NDArray[Any], span: tuple[float, float], where: str) -> Encoded:
    """Return images of a range as images of 8 bits, one by one."""

    def image(i: int) -> NDArray[np.uint8]:
        try:
            return scaled(x[i], span)
        except ValueError as error:
            raise ValueError(f"{where}, image {i}: {error}") from error

    return Encoded(len(x), image)


def _held(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return list(arrays.files)
    except Exception as error:  # damaged files make numpy raise whatever it met
        if of_machine(error):
            raise
        raise ValueError(f"{file} is not a readable .npz file: {error}") from error


def _array(file: Path, name: str) -> NDArray[Any]:
    if file.suffix == ".npy":
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
            return array
        except Exception as error:
            if of_machine(error):
                raise
            raise ValueError(f"{file} is not a readable .npy file: {error}") from error
    held = _held(file)
    if name not in held:
        raise ValueError(f"{file} has no array '{name}'{suggestion(name, held)}")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            array = arrays[name]
            return array
    except Exception as error:
        if of_machine(error):
            raise
        raise ValueError(f"{file}: '{name}' cannot be read: {error}") from error
