"""DIOR, Li et al. 2020, arXiv 1909.00133: 23,463 aerial photographs, 800 x 800, RGB, objects of 20 classes in boxes.

An image is what is in a box, cut out. Boxes with a side below `least` pixels are left out; a class that is small from
above (vehicles) may then have few or no images: leave it out by `without`. DATA/DIOR has the lists
ImageSets/Main/{train,val,test}.txt, "Annotations/Horizontal Bounding Boxes" with an XML file for each photograph,
JPEGImages-trainval and JPEGImages-test; it is placed by hand. The lists train and val are the train split.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Dataset, Download, Images, Size, Source
from oodbench.toolkit import image_files, raw_files

NAMES = (
    *("airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam"),
    *("Expressway-Service-area", "Expressway-toll-station", "golffield", "groundtrackfield", "harbor", "overpass"),
    *("ship", "stadium", "storagetank", "tenniscourt", "trainstation", "vehicle", "windmill"),
)
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FOLDER = "DIOR"
LISTS = {"train": ("train", "val"), "test": ("test",)}
PHOTOGRAPHS = {"train": "JPEGImages-trainval", "test": "JPEGImages-test"}
LINE = r"(\d{5})\s*"
BOXES = Path("Annotations", "Horizontal Bounding Boxes")
FOLDERS = Download(
    (), None, ".+/.+", filename="folders ImageSets, Annotations, JPEGImages-trainval and JPEGImages-test"
)
BY_HAND = (
    "take DIOR from its authors (see the paper), and unpack there the folders ImageSets/Main, "
    "Annotations/Horizontal Bounding Boxes, JPEGImages-trainval and JPEGImages-test"
)


class DIOR(Dataset):
    """DIOR: 20 classes of objects in aerial photographs, RGB, of many sizes."""

    least: Size = 120  # pixels: boxes with a shorter side are left out

    class_names = NAMES
    source = Source("DIOR", "https://arxiv.org/abs/1909.00133", "see the page", (FOLDERS,), FOLDER, BY_HAND)

    def needed(self, root: Path) -> Sequence[Path]:
        return _files(LISTS, root)

    def files(self, split: image_files.Split, root: Path) -> Sequence[Path]:
        return raw_files.present(_files([split], root))

    def load(self, split: image_files.Split, root: Path) -> Images:
        pairs = _pairs(split, root)
        cuts = [cut for photograph, boxes in pairs for cut in _cuts(photograph, boxes) if cut.side >= self.least]
        if not cuts:
            raise ValueError(f"{root / FOLDER}, {split}: no box has sides of {self.least} pixels")
        photographs, y = Photographs(), np.array([cut.label for cut in cuts], dtype=np.int64)
        return Images(image_files.Encoded(len(cuts), lambda i: photographs.cut(cuts[i])), y, NAMES)


class Cut(NamedTuple):
    """A box in a photograph: from the first to before the last, in pixels."""

    photograph: Path
    label: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def side(self) -> int:
        return min(self.right - self.left, self.bottom - self.top)


class Photographs:
    """The photographs of boxes; the last one stays in memory."""

    def __init__(self) -> None:
        self._held: tuple[Path, NDArray[np.uint8]] | None = None

    def cut(self, box: Cut) -> NDArray[np.uint8]:
        """Return what is in a box (H, W, 3); raises ValueError where its photograph is smaller."""
        if self._held is None or self._held[0] != box.photograph:
            self._held = box.photograph, image_files.decode(box.photograph.read_bytes(), str(box.photograph))
        height, width = self._held[1].shape[:2]
        if box.right > width or box.bottom > height:
            raise ValueError(f"{box.photograph} is {width} x {height}, a box of it ends at {box.right}, {box.bottom}")
        return self._held[1][box.top : box.bottom, box.left : box.right].copy()


def _lists(split: str, root: Path) -> list[Path]:
    return [root / FOLDER / "ImageSets" / "Main" / f"{part}.txt" for part in LISTS[split]]


def _files(splits: Iterable[str], root: Path) -> list[Path]:
    """Return the lists of splits, and where they are there the photographs and boxes that they name."""
    lists = [path for split in splits for path in _lists(split, root)]
    if raw_files.missing(lists):
        return lists
    return [*lists, *(path for split in splits for pair in _pairs(split, root) for path in pair)]


def _pairs(split: str, root: Path) -> list[tuple[Path, Path]]:
    """Return the photograph and the boxes that each line of the split's lists names."""
    lines = (each for path in _lists(split, root) for each in image_files.lines(path, LINE, "number of a photograph"))
    top, names = root / FOLDER, [match[1] for _, match in lines]
    return [(top / PHOTOGRAPHS[split] / f"{name}.jpg", top / BOXES / f"{name}.xml") for name in names]


def _cuts(photograph: Path, boxes: Path) -> list[Cut]:
    """Return the boxes of a photograph, in the order of the file."""
    found = []
    with raw_files.reading(boxes):
        for each in ElementTree.fromstring(boxes.read_bytes()).iter("object"):
            name = (each.findtext("name") or "").strip()
            if name not in NAMES:
                raise ValueError(f"there is no class {name!r}")
            left, top, right, bottom = (int(each.findtext(f"bndbox/{key}") or "") for key in CORNERS)
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError(f"a box from {left}, {top} to {right}, {bottom}")
            found.append(Cut(photograph, NAMES.index(name), left, top, right, bottom))
    return found
