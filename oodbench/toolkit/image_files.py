"""What readers of images share: decoding when indexed, the order of classes, a drawn split, files listed or in folders.

Pixels: grey images (1, 8 or 16 bits, with alpha or without) stay grey, (H, W); all others, palettes among them, become
RGB, (H, W, 3). Alpha is dropped, colours under it stay as they are stored. Of several frames the first is read, and the
orientation that EXIF says is ignored, both as torchvision's ImageFolder does; `exif` turns images by it. (Pillow turns
TIFF files whatever is said.)

An image of 16 bits, or of floats, is refused until it is said what its values mean: cameras and scanners fill fewer
than 16 bits, and hardly a grey level of their images would be left. `bits: N` keeps the upper 8 of the N that are used.
`range: [LOW, HIGH]` makes a value v of a grey image round(255 (v - LOW) / (HIGH - LOW)), halves to even, in float64; a
value beyond LOW and HIGH is refused. Images of 8 bits stay as they are.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, overload

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features
from pydantic import AfterValidator, AllowInfNan

from oodbench.api import Dataset, Images
from oodbench.errors import of_machine

ENDINGS = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
OPTIONAL = {"avif": (4, b"ftypavi"), "jpg_2000": (4, b"jP  ")}  # a Pillow may lack it: where its files say so, how
PHOTOMETRIC = 262  # the tag of a TIFF that says whether 0 is white
ORIENTATION = 274  # the tag of EXIF that says how a camera was held
SPLIT = "{split}"  # in a path: stands for the name of a split


def _ascending(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] >= given[1]:
        raise ValueError("should be [LOW, HIGH], the smaller value first")
    return given


Finite = Annotated[float, AllowInfNan(False)]
Bits = Annotated[int, Interval(ge=8, le=16)]  # that the values of 16-bit images have
Range = Annotated[tuple[Finite, Finite], AfterValidator(_ascending)]  # values that become 0 and 255
Share = Annotated[float, Interval(gt=0, le=1)]
Split = Literal["train", "test"]


class Encoded(Sequence[NDArray[np.uint8]]):
    """Images that are decoded when indexed: `image(i)` is image i; threads: several threads at once may decode."""

    def __init__(self, count: int, image: Callable[[int], NDArray[np.uint8]], threads: bool = False) -> None:
        self.threads = threads
        self._count = count
        self._image = image

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[NDArray[np.uint8]]: ...
    def __getitem__(self, at: int | slice) -> NDArray[np.uint8] | Sequence[NDArray[np.uint8]]:
        if isinstance(at, slice):
            return [self[i] for i in range(self._count)[at]]
        return self._image(range(self._count)[at])


@dataclass(frozen=True)
class Decoding:
    """How the files of a set are decoded."""

    bits: int | None = None  # of 16-bit images; None: not said
    range: tuple[float, float] | None = None  # of 16-bit images and floats: the values that become 0 and 255
    exif: bool = False  # turn images by EXIF's orientation

    def __post_init__(self) -> None:
        if self.bits is not None and self.range is not None:
            raise ValueError("`bits` and `range` both say what values mean: leave out one")


PLAIN = Decoding()


class UndecodableError(ValueError):
    """A file is no image, or a damaged one: what `skip_damaged` leaves out."""


def of_files(paths: Sequence[Path], how: Decoding = PLAIN) -> Encoded:
    """Return the images of files."""
    return Encoded(len(paths), lambda i: decode(paths[i].read_bytes(), str(paths[i]), how), threads=True)


def decode(raw: bytes, name: str, how: Decoding = PLAIN) -> NDArray[np.uint8]:
    """Return an image (H, W) or (H, W, 3) from a file's bytes.

    Raises UndecodableError where they are none, and ValueError where it is not said what their values mean.
    """
    try:
        with Image.open(io.BytesIO(raw)) as image:
            stored = str(getattr(image, "tile", ""))  # gone once it is loaded
            image.load()
            found = _turned(_pixels(image, stored, how), image.getexif().get(ORIENTATION, 1) if how.exif else 1)
    except UnidentifiedImageError:
        for form, (start, mark) in OPTIONAL.items():
            if raw[start:].startswith(mark) and not features.check(form):
                raise ValueError(f"{name} is of a format that this Pillow was built without ({form})") from None
        raise UndecodableError(f"{name} is no image that Pillow can read") from None
    except (_UnsaidError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be decoded: {error}") from error
    except Exception as error:  # damaged files make the decoders raise whatever they met
        if of_machine(error):
            raise
        raise UndecodableError(f"{name} cannot be decoded: {error}") from error
    return found


class _UnsaidError(ValueError):
    """The image is whole, and what its values mean is not said, or is not so."""


def _pixels(image: Image.Image, stored: str, how: Decoding) -> NDArray[np.uint8]:
    """Return the pixels of an image; `stored` is how they lay in its file."""
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow's own conversion clips them at 255
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
            raise _UnsaidError("it is a TIFF of 16 bits whose white is 0, which Pillow does not turn; save it anew")
        return _wide(np.asarray(image), how)
    deep = ";16" in stored or "'RGB', 65535" in stored  # of which Pillow reads the upper 8 bits; the latter of PPM
    if image.mode in ("1", "L", "LA") or "'LA;16" in stored:
        found = np.array(image.convert("L"))
    else:
        transparent = image.mode == "P" and "transparency" in image.info
        found = np.array((image.convert("RGBA") if transparent else image).convert("RGB"))
    said = f"range: {[*how.range]}" if how.range else f"bits: {how.bits}"
    if deep and (how.range or how.bits not in (None, 16)):
        what = "it has colours, or alpha, of 16 bits, of which Pillow reads the upper 8"
        raise _UnsaidError(f"{what}: `{said}` is for grey images, say `bits: 16` or save it in 8 bits")
    if deep:
        _check_bits(int(found.max()).bit_length() + 8, how.bits, "")
    return found


def _wide(values: NDArray[Any], how: Decoding) -> NDArray[np.uint8]:
    """Return grey values of more than 8 bits as 8 bits."""
    low, high = values.min(), values.max()
    black_and_white = f"`range: [LOW, HIGH]`, the values that are black and white; its own are {low:g} to {high:g}"
    if how.range is not None:
        try:
            return scaled(values, how.range)
        except ValueError as error:
            raise _UnsaidError(str(error)) from error
    if values.dtype.kind == "f":
        raise _UnsaidError(f"its pixels are floats; say {black_and_white}")
    if low < 0 or high > 65535:
        raise _UnsaidError(f"it has values beyond 16 bits; say {black_and_white}")
    _check_bits(int(high).bit_length(), how.bits, f", or {black_and_white}")
    found: NDArray[np.uint8] = (values >> (how.bits or 16) - 8).astype(np.uint8)
    return found


def scaled(values: NDArray[Any], span: tuple[float, float]) -> NDArray[np.uint8]:
    """Return values of any type as 8 bits: LOW becomes 0, HIGH 255, v round(255 (v - LOW) / (HIGH - LOW)).

    Halves go to even. Raises ValueError where a value is not finite, or beyond the range.
    """
    (low, high), x = span, values.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("it has values that are not finite (NaN or infinite)")
    if x.size and (x.min() < low or x.max() > high):
        raise ValueError(f"its values are {x.min():g} to {x.max():g}, which is beyond `range: [{low:g}, {high:g}]`")
    found: NDArray[np.uint8] = np.rint(255 * (x - low) / (high - low)).astype(np.uint8)
    return found


def _check_bits(used: int, bits: int | None, else_say: str) -> None:
    if bits is None:
        raise _UnsaidError(
            f"it has 16 bits, of which its values fill {used}; say `bits`, how many the images of this set have "
            f"(16: it is meant to be as dark){else_say}"
        )
    if used > bits:
        raise _UnsaidError(f"it has values of {used} bits, and `bits: {bits}` is said of it")


def _turned(x: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return an image (H, W, ...) upright, by EXIF's orientation 1 to 8; others say nothing."""
    if orientation in (5, 6, 7, 8):
        x = x.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    return np.ascontiguousarray(x)


# ---- classes and splits -----------------------------------------------------------------------------


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes among labels: by value where all are whole numbers, else sorted as text."""
    names = set(labels)
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def as_text(labels: Iterable[Any], names: Sequence[str], where: str) -> list[str]:
    """Return labels as text, by name where they number names; raises ValueError where one does not, or is no class."""
    found = []
    for i, label in enumerate(labels):
        if not isinstance(label, int | str):
            raise ValueError(f"{where}, row {i}: the label is {label!r}, wanted is a whole number or text")
        if names and label not in range(len(names)):
            raise ValueError(f"{where}, row {i}: the label is {label!r}, names are there for 0 to {len(names) - 1}")
        found.append(names[label] if names and isinstance(label, int) else str(label))
    return found


def numbered(labels: Iterable[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each label's class."""
    number = {name: k for k, name in enumerate(classes)}
    return np.array([number[label] for label in labels], dtype=np.int64)


def by_number(named: Mapping[int, str], where: Path, what: str) -> tuple[str, ...]:
    """Return the names of classes in the order of their numbers; raises ValueError unless each has one of 0, 1, ..."""
    if sorted(named) != [*range(len(named))] or len(set(named.values())) != len(named):
        raise ValueError(f"{where}: the lists do not give each {what} a number of its own")
    return tuple(named[k] for k in sorted(named))


def check_split(path: str, test_share: float | None) -> None:
    """Refuse a path that does not say where the splits are, or says it twice."""
    if SPLIT in path and test_share is not None:
        raise ValueError(f"test_share draws a split from one file, but the path '{path}' has a file for each ({SPLIT})")
    if SPLIT not in path and test_share is None:
        raise ValueError(
            f"the path '{path}' names one file: put {SPLIT} where 'train' and 'test' go, or give test_share, "
            "the share of each class that is test (1: all of it, as for an OOD set)"
        )


def by_split(path: str, train: str, test: str, root: Path) -> dict[Split, Path]:
    """Return the file of each split, which are one where the path does not say where the splits are."""
    return {"train": located(root, path.replace(SPLIT, train)), "test": located(root, path.replace(SPLIT, test))}


def drawn(y: NDArray[np.int64], test_share: float, seed: int, split: Split) -> NDArray[np.int64]:
    """Return the positions of a split: of each class the rounded share is test, but one image at least is either.

    A class of one image is in train. A share of 1 puts everything into test.
    """
    if test_share == 1:
        test = np.ones(len(y), dtype=bool)
    else:
        test = of_each_class(y, seed, lambda count: min(max(1, round(test_share * count)), count - 1))
    positions = np.flatnonzero(test == (split == "test"))
    if not len(positions):
        raise ValueError(f"test_share={test_share:g} leaves no image for the split '{split}'")
    return positions


def of_each_class(y: NDArray[np.int64], seed: int, count: Callable[[int], int]) -> NDArray[np.bool_]:
    """Return which items (N,) are drawn: of each class as many as `count` says of its number of items."""
    order, found = np.random.default_rng(seed).permutation(len(y)), np.zeros(len(y), dtype=bool)
    for k in np.unique(y):
        items = order[y[order] == k]
        found[items[: count(len(items))]] = True
    return found


def check_has(dataset: Dataset, split: Split) -> None:
    """Refuse a split that a set is published without."""
    if split not in dataset.splits:
        only = dataset.splits[0]
        raise ValueError(f"{dataset.name} is published as one split, used as {only}: it has no {split} images")


# ---- files ------------------------------------------------------------------------------------------


def located(root: Path, given: str) -> Path:
    """Return a path as a study gives it: absolute, or relative to the folder of all data."""
    return root / Path(given).expanduser()


def text_of(file: Path) -> str:
    """Return a text file; raises ValueError where it is not UTF-8 (a byte order mark is left out)."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def lines(file: Path, pattern: str, what: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield FILE:LINE with the line, and the match, of each line of a text file.

    Raises ValueError where a line does not match: it is no `what`.
    """
    for number, line in enumerate(text_of(file).splitlines(), 1):
        where, match = f"{file}:{number}: {line!r}", re.fullmatch(pattern, line)
        if match is None:
            raise ValueError(f"{where} is no {what}")
        yield where, match


class Row(NamedTuple):
    """An image that a file lists."""

    where: str  # FILE:LINE
    path: Path
    label: str


def listed(folder: Path, where: str, path: str, label: str) -> Row:
    """Return a row of a file whose paths are relative to a folder."""
    return Row(where, Path(os.path.normpath(folder / path)), label)


def check_distinct(rows: Iterable[Row]) -> None:
    """Refuse an image that is listed twice, in one split or in two."""
    first: dict[Path, str] = {}
    for row in rows:
        if row.path in first:
            raise ValueError(f"{row.where}: {row.path} is listed twice, first in {first[row.path]}")
        first[row.path] = row.where


def of_rows(rows: Sequence[Row], how: Decoding = PLAIN) -> Encoded:
    """Return the images of rows; raises FileNotFoundError where one is not there."""
    for row in rows:
        if not row.path.is_file():
            raise FileNotFoundError(f"{row.where}: there is no image {row.path}")
    return of_files([row.path for row in rows], how)


# ---- folders ----------------------------------------------------------------------------------------


def walk(top: Path) -> list[tuple[Path, list[Path]]]:
    """Return each folder at any depth with its files, sorted, links followed, hidden ones left out.

    Raises ValueError where a link leads back up: its images would be there again and again.
    """
    found = []
    for here, folders, files in os.walk(top, onerror=_fail, followlinks=True) if top.is_dir() else ():
        place = Path(here).parent.resolve()
        if os.path.islink(here) and Path(here).resolve() in (place, *place.parents):
            raise ValueError(f"{here} is a link to a folder that it is in")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.append((Path(here), [Path(here, name) for name in sorted(files) if not name.startswith(".")]))
    return found


def _fail(error: OSError) -> None:
    raise error


def subfolders(top: Path) -> dict[str, Path]:
    """Return the folders in a folder by name, sorted, hidden ones left out."""
    return {path.name: path for path in sorted(top.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def below(top: Path) -> list[Path]:
    """Return the images at any depth below a folder, sorted; all other files are left out."""
    return sorted(path for _, files in walk(top) for path in files if path.suffix.lower() in ENDINGS)


def of_classes(top: Path, names: Sequence[str] | None = None) -> Images:
    """Return the images below the folder of each class in a folder; `names` None: all folders in it are classes.

    Raises ValueError where a class has no images.
    """
    classes = tuple(subfolders(top)) if names is None else tuple(names)
    if not classes:
        raise ValueError(f"{top} has no folder of a class")
    found = [below(top / name) for name in classes]
    for name, paths in zip(classes, found, strict=True):
        if not paths:
            raise ValueError(f"{top / name} is not there, or holds no images")
    y: NDArray[np.int64] = np.repeat(np.arange(len(found)), [len(paths) for paths in found])
    return Images(of_files([path for paths in found for path in paths]), y, classes)


def check_whole(folder: Path, found: int, count: int) -> None:
    """Refuse a folder that holds other than as many images as the set is published with."""
    if found != count:
        raise ValueError(
            f"{folder} holds {found:,} images and the set {count:,}: it is no whole copy, or holds other images, too"
        )


def of_one_class(paths: Sequence[Path], name: str) -> Images:
    """Return images without labels as one class."""
    return Images(of_files(paths), np.zeros(len(paths), dtype=np.int64), (name,))


def needed_below(folder: Path) -> Sequence[Path]:
    """Return the images below a folder; where there are none, a pattern that stands for them, which is no file."""
    return below(folder) or [folder / "*.jpg"]


def first_folder(root: Path, names: Sequence[str]) -> Path:
    """Return the first folder that is there, else where the first would be."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])
