"""HAM10000, Tschandl et al. 2018, arXiv 1803.10417: 10,015 photographs of skin lesions, RGB, 7 diagnoses.

DATA/HAM10000/HAM10000_metadata.csv, and the images in the same folder or in its folders HAM10000_images_part_1 and
HAM10000_images_part_2, or the two archives there; else they are downloaded. The set has no splits: of each
class the share `test_share` of its lesions is drawn as test, so that all images of a lesion are in one split. 10,015 is
confirmed by the paper's abstract.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from oodbench.api import Download, Source
from oodbench.toolkit import image_files
from oodbench.toolkit.layouts import Listed

NAMES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COUNT = 10_015
FOLDER = "HAM10000"
PARTS = ("HAM10000_images_part_1", "HAM10000_images_part_2", ".")  # where an image may lie
SITE = "https://dataverse.harvard.edu/api/access/datafile"
MEMBERS = r"(HAM10000_images_part_[12]/)?ISIC_\d{7}\.jpg"
DOWNLOADS = (
    Download(
        (f"{SITE}/4338392?format=original",),
        "md5:8f85fb1aa29d80a2797247e434deb79d",
        filename="HAM10000_metadata.csv",
    ),
    Download(
        (f"{SITE}/3172585",), "md5:4639bfa73ab251610530a97c898e6e46", MEMBERS, filename="HAM10000_images_part_1.zip"
    ),
    Download(
        (f"{SITE}/3172584",), "md5:da43d6cc50f6613013be07e8986b384b", MEMBERS, filename="HAM10000_images_part_2.zip"
    ),
)


class HAM10000(Listed):
    """HAM10000: 7 diagnoses of skin lesions, RGB."""

    test_share: image_files.Share = 0.2  # of the lesions of each class
    draw: int = 0  # seed of test_share

    class_names = NAMES
    source = Source("HAM10000", "https://doi.org/10.7910/DVN/DBW86T", "CC BY-NC 4.0", DOWNLOADS, FOLDER)

    @property
    def splits(self) -> tuple[image_files.Split, ...]:
        return ("test",) if self.test_share == 1 else ("train", "test")

    def needed(self, root: Path) -> Sequence[Path]:
        (listed,) = self.lists("", root)
        return [listed, *(item.path for item in _items(listed))] if listed.is_file() else [listed]

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / "HAM10000_metadata.csv"]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        """Return the images of a split, in the order of the table."""
        (listed,) = self.lists(part, root)
        items = _items(listed)
        image_files.check_whole(listed, len(items), COUNT)
        diagnosis = {item.lesion: item.diagnosis for item in items}
        lesions = sorted(diagnosis)
        y = image_files.numbered((diagnosis[lesion] for lesion in lesions), NAMES)
        split: image_files.Split = "test" if part == "test" else "train"
        chosen = {lesions[i] for i in image_files.drawn(y, self.test_share, self.draw, split)}
        return [(item.path, NAMES.index(item.diagnosis)) for item in items if item.lesion in chosen]


class Item(NamedTuple):
    path: Path
    lesion: str
    diagnosis: str


def _items(listed: Path) -> list[Item]:
    """Return the images that the table lists, in its order."""
    found: dict[str, Item] = {}
    rows = csv.DictReader(image_files.text_of(listed).splitlines())
    if lacking := [name for name in ("lesion_id", "image_id", "dx") if name not in (rows.fieldnames or ())]:
        raise ValueError(f"{listed} has no column {lacking[0]}")
    here = {path.name: path for part in PARTS for path in (listed.parent / part).glob("ISIC_*.jpg")}
    for row in rows:
        where, name = f"{listed}:{rows.line_num}", row["image_id"] or ""
        if not re.fullmatch(r"ISIC_\d{7}", name) or row["dx"] not in NAMES or not row["lesion_id"]:
            raise ValueError(f"{where}: image {name!r}, diagnosis {row['dx']!r}: no image of a class")
        if name in found:
            raise ValueError(f"{where}: {name} is listed twice")
        path = here.get(f"{name}.jpg", listed.parent / f"{name}.jpg")
        found[name] = Item(path, row["lesion_id"], row["dx"])
    return list(found.values())
