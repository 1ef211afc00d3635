"""The layouts that most published sets have: images in folders, and images that lists name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oodbench.api import Dataset, Images
from oodbench.toolkit import image_files, raw_files
from oodbench.toolkit.image_files import Split


class Place(NamedTuple):
    """Where a split lies, and how many images it is published with."""

    folders: Sequence[str]  # in DATA; of several it is the first that is there
    size: int | None = None  # a folder that holds other than as many is refused; None: any number is taken


class Folders(Dataset):
    """Images below the folder of each class; where `class_names` is None, of each folder that there is."""

    @property
    def train_place(self) -> Place | None:
        """Where the train split lies; None: there is none."""
        return None

    @property
    def test_place(self) -> Place | None:
        """Where the test split lies; None: there is none."""
        return None

    @property
    def places(self) -> dict[Split, Place]:
        """Where each split lies that there is."""
        both: dict[Split, Place | None] = {"train": self.train_place, "test": self.test_place}
        return {split: place for split, place in both.items() if place}

    @property
    def splits(self) -> tuple[Split, ...]:
        return tuple(self.places)

    def top(self, split: Split, root: Path) -> Path:
        """Return the folder of a split."""
        return image_files.first_folder(root, self.places[split].folders)

    def needed(self, root: Path) -> Sequence[Path]:
        return [path for split in self.splits for path in image_files.needed_below(self.top(split, root))]

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        return image_files.below(self.top(split, root)) if split in self.splits else []

    def read(self, top: Path) -> Images:
        """Return the images of a split, given its folder."""
        return image_files.of_classes(top, self.class_names)

    def load(self, split: Split, root: Path) -> Images:
        image_files.check_has(self, split)
        top = self.top(split, root)
        found = self.read(top)
        if (size := self.places[split].size) is not None:
            image_files.check_whole(top, len(found.x), size)
        return found


class Unlabelled(Folders):
    """Images at any depth below a folder, which have no labels and are one class, named as the set."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return (self.name,)

    def read(self, top: Path) -> Images:
        return image_files.of_one_class(image_files.below(top), self.name)


class Listed(Dataset):
    """Images that lists name, part by part."""

    test: tuple[str, ...] = ("test",)  # parts that are the test split; all others are the train split

    @property
    @abstractmethod
    def parts(self) -> Sequence[str]:
        """The parts that it is published in, in their order."""

    @abstractmethod
    def lists(self, part: str, root: Path) -> Sequence[Path]:
        """Return the files that say which images a part has, of which class."""

    @abstractmethod
    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        """Return the images of a part with their class, in the order of its list."""

    @abstractmethod
    def names(self, root: Path) -> tuple[str, ...]:
        """Return the names of all classes, which the lists may tell."""

    def needed(self, root: Path) -> Sequence[Path]:
        return self._files(self.parts, root)

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        return raw_files.present(self._files(self._own(split), root))

    def load(self, split: Split, root: Path) -> Images:
        items = [item for part in self._own(split) for item in self.listed(part, root)]
        y = np.array([k for _, k in items], dtype=np.int64)
        return Images(image_files.of_files([path for path, _ in items]), y, self.names(root))

    def _own(self, split: Split) -> Sequence[str]:
        return [part for part in self.parts if (part in self.test) == (split == "test")]

    def _files(self, parts: Sequence[str], root: Path) -> list[Path]:
        lists = list(dict.fromkeys(path for part in parts for path in self.lists(part, root)))
        if raw_files.missing(lists):
            return lists
        return [*lists, *(path for part in parts for path, _ in self.listed(part, root))]
