"""CUB-200-2011, Wah et al. 2011, Caltech CNS-TR-2011-001: 5,994 + 5,794 photographs of 200 birds, RGB, of many sizes.

DATA/CUB_200_2011, or CUB_200_2011.tgz in DATA; else it is downloaded. Images, classes and the split are those of its
lists images.txt, image_class_labels.txt, train_test_split.txt (1: train) and classes.txt. A class is named as its
folder, 001.Black_footed_Albatross. CSI tests on images of both parts: `test: [train, test]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from oodbench.api import Download, Source
from oodbench.toolkit import image_files
from oodbench.toolkit.layouts import Parted

FOLDER = "CUB_200_2011"
IMAGE = r"\d{3}\.[\w-]+/[\w-]+\.jpg"
LISTS = {  # file -> what follows the number of an image, or of a class
    "images.txt": IMAGE,
    "image_class_labels.txt": r"\d+",
    "train_test_split.txt": r"[01]",
    "classes.txt": r"\d{3}\.[\w-]+",
}
ARCHIVE = Download(
    ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",),
    "md5:97eceeb196236b17998738112f37df78",
    rf"{FOLDER}/(images/{IMAGE}|(images|image_class_labels|train_test_split|classes)\.txt)",
)


class CUB(Parted):
    """CUB-200-2011: 200 classes of birds, RGB, of many sizes."""

    test: tuple[Literal["train", "test"], ...] = ("test",)  # the other part, if any, is the train split

    source = Source("CUB-200-2011", "https://data.caltech.edu/records/65de6-vp158", "see the page", (ARCHIVE,))

    def names(self, root: Path) -> tuple[str, ...]:
        return tuple(_table(root, "classes.txt").values())

    def lists(self, part: str, root: Path) -> Sequence[Path]:
        return [root / FOLDER / name for name in LISTS]

    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        paths, labels, trains, classes = (_table(root, name) for name in LISTS)
        if not paths.keys() == labels.keys() == trains.keys():
            raise ValueError(f"{root / FOLDER}: {', '.join([*LISTS][:3])} are not of the same images")
        if unknown := sorted(set(labels.values()) - classes.keys()):
            raise ValueError(f"{root / FOLDER / 'image_class_labels.txt'}: there is no class {unknown[0]}")
        numbers = {key: k for k, key in enumerate(classes)}
        chosen = [key for key in paths if trains[key] == ("1" if part == "train" else "0")]
        return [(root / FOLDER / "images" / paths[key], numbers[labels[key]]) for key in chosen]


def _table(root: Path, name: str) -> dict[str, str]:
    """Return what a list says of each number; raises ValueError where a line is something else."""
    found: dict[str, str] = {}
    what = "line of this list, or its second"
    for where, match in image_files.lines(root / FOLDER / name, rf"(\d+) ({LISTS[name]})\s*", what):
        if match[1] in found:
            raise ValueError(f"{where} is no {what}")
        found[match[1]] = match[2]
    return found
