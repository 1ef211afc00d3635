"""The layouts that published sets have: images in folders, images that lists name, images packed into a few files.

Beside them what several of these sets share of where they are from. A layout may derive from another one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Dataset, Download, Images, Source
from oodbench.toolkit import image_files, raw_files
from oodbench.toolkit.image_files import Split

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, H, W) or (N, H, W, C), and labels (N,)
ANY = r"([^/]+/)*[^/.][^/]*"  # in an archive: a file at any depth that is not hidden

# ---- folders ----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a split lies, and how many images it is published with."""

    folders: Sequence[str]  # in DATA; of several it is the first that is there
    size: int | None = None  # a folder that holds other than as many is refused; None: any number is taken


class Folders(Dataset):
    """Images below the folder of each class; where `class_names` is None, of each folder that there is."""

    train_place: ClassVar[Place | None] = None  # where a split lies; None: there is none
    test_place: ClassVar[Place | None] = None

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


class ILSVRC2012(Folders):
    """ImageNet-1k or classes of it: a folder for each WordNet id, as torchvision unpacks it or as OpenOOD has it.

    It is placed by hand. The validation images are the test split: labels of the test images were never published.
    """

    train_place = Place(("imagenet/train", "images_largescale/imagenet_1k/train"))
    test_place = Place(("imagenet/val", "images_largescale/imagenet_1k/val"))


def ilsvrc2012(title: str, page: str) -> Source:
    """Return the source of ImageNet-1k, or of classes of it that have a title and a page of their own."""
    return Source(
        title,
        page,
        "ImageNet's terms of access: non-commercial research and education",
        (Download((), None, r"(train|val)/.+", filename="folders train and val"),),
        "imagenet",
        "register at https://image-net.org, take ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
        "ILSVRC2012_devkit_t12.tar.gz into that folder, and let torchvision.datasets.ImageNet unpack them there, once "
        "for split='train' and once for split='val'",
    )


def shipped_by_openood(title: str, page: str, licence: str, name: str, address: str) -> Source:
    """Return the source of a set that OpenOOD ships as NAME.zip, at an address where no program can get it."""
    archive = Download((), None, rf"{ANY}\.(JPE?G|jpe?g|png)", filename=f"{name}.zip")
    script = "OpenOOD's scripts/download/download.py"
    by_hand = f"take {name}.zip from {address}, or let {script} do so, unpacked or not"
    return Source(title, page, licence, (archive,), name, by_hand)


def shipped_by_odin(title: str, folder: str, archive: str, md5: str) -> Source:
    """Return the source of images 32 x 32 of ODIN, Liang et al. 2018, by its authors' address of the archive."""
    address, filename = f"https://www.dropbox.com/s/{archive}?dl=1", archive.rpartition("/")[2]
    download = Download((address,), md5, rf"{ANY}\.(png|jpe?g)", filename=filename)  # its folders are not documented
    return Source(title, "https://github.com/facebookresearch/odin", "see the page", (download,), folder)


def shipped_by_csi(title: str, folder: str, address: str) -> Source:
    """Return the source of images 32 x 32 of CSI, Tack et al. 2020, at an address where no program can get them."""
    archive = Download((), None, rf"{ANY}\.(png|jpe?g)", filename=f"{folder}.tar.gz")
    by_hand = f"take it from {address}, unpacked or not"
    return Source(title, "https://github.com/alinlab/CSI", "see the page", (archive,), folder, by_hand)


# ---- lists ------------------------------------------------------------------------------------------


class Listed(Dataset):
    """Images that lists name, part by part."""

    @property
    def parts(self) -> Sequence[str]:
        """The parts that it is published in, in their order; by default the splits."""
        return self.splits

    def parts_of(self, split: Split) -> Sequence[str]:
        """Return the parts that make up a split, in their order."""
        return [split]

    @abstractmethod
    def lists(self, part: str, root: Path) -> Sequence[Path]:
        """Return the files that say which images a part has, of which class."""

    @abstractmethod
    def listed(self, part: str, root: Path) -> Sequence[tuple[Path, int]]:
        """Return the images of a part with their class, in the order of its list."""

    def names(self, root: Path) -> tuple[str, ...]:
        """Return the names of all classes, which the lists tell where `class_names` does not."""
        return self.class_names or ()

    def needed(self, root: Path) -> Sequence[Path]:
        return self._files(self.parts, root)

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        return raw_files.present(self._files(self.parts_of(split), root))

    def load(self, split: Split, root: Path) -> Images:
        image_files.check_has(self, split)
        items = [item for part in self.parts_of(split) for item in self.listed(part, root)]
        y = np.array([k for _, k in items], dtype=np.int64)
        return Images(image_files.of_files([path for path, _ in items]), y, self.names(root))

    def _files(self, parts: Sequence[str], root: Path) -> list[Path]:
        lists = list(dict.fromkeys(path for part in parts for path in self.lists(part, root)))
        if raw_files.missing(lists):
            return lists
        return [*lists, *(path for part in parts for path, _ in self.listed(part, root))]


class Parted(Listed):
    """Images that lists name, in parts of which a study may say which are the test split."""

    test: tuple[str, ...] = ("test",)  # parts that are the test split; all others are the train split

    def parts_of(self, split: Split) -> Sequence[str]:
        return [part for part in self.parts if (part in self.test) == (split == "test")]


# ---- a few files ------------------------------------------------------------------------------------


CIFAR10_ARCHIVE = Download(
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    "md5:c58f30108f718f92721af3b95e74349a",
    r"cifar-10-batches-py/(data_batch_[1-5]|test_batch)",
    size=170_498_071,
)


class Packed(Dataset):
    """Images of one size, packed into a few files for each split that there is."""

    train_files: ClassVar[tuple[str, ...]] = ()  # of the train split, in DATA; none: there is no such split
    test_files: ClassVar[tuple[str, ...]] = ()

    @property
    def splits(self) -> tuple[Split, ...]:
        both: tuple[Split, ...] = ("train", "test")
        return tuple(split for split in both if getattr(self, f"{split}_files"))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes; by default that of images without labels, which are one class."""
        return (self.name,)

    def paths(self, split: Split, root: Path) -> list[Path]:
        """Return the files of a split where they are, else where they would be put."""
        return [root / name for name in (self.train_files if split == "train" else self.test_files)]

    @abstractmethod
    def read(self, *paths: Path) -> Labelled:
        """Return the images and labels of a split from its files; raises ValueError where one is damaged."""

    def needed(self, root: Path) -> Sequence[Path]:
        return [path for split in self.splits for path in self.paths(split, root)]

    def files(self, split: Split, root: Path) -> Sequence[Path]:
        return raw_files.present(self.paths(split, root))

    def load(self, split: Split, root: Path) -> Images:
        image_files.check_has(self, split)
        return Images(*self.read(*self.paths(split, root)), self.class_names)


class IDX(Packed):
    """MNIST's four IDX files, gzipped or not: images 28 x 28, grey, and their labels."""

    train_files = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")  # in a folder
    test_files = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

    # Where they may lie, in DATA or absolute: the first folder that has all four is read.
    folders: ClassVar[tuple[str, ...]]

    def paths(self, split: Split, root: Path) -> list[Path]:
        tops = [root / each for each in self.folders]
        every = (*self.train_files, *self.test_files)
        top = next((each for each in tops if all(_packed(each / name).is_file() for name in every)), tops[0])
        return [_packed(path) for path in super().paths(split, top)]

    def read(self, *paths: Path) -> Labelled:
        images, labels = paths
        x, y = raw_files.read_idx(images), raw_files.read_idx(labels)
        if x.shape[1:] != (28, 28):
            raise ValueError(f"{images} holds items of shape {x.shape[1:]}, not (28, 28)")
        return x, raw_files.checked_labels(labels, y, len(x), len(self.class_names))


def _packed(path: Path) -> Path:
    """Return a file, or where it is not there its gzipped form."""
    return path if path.is_file() else path.with_name(f"{path.name}.gz")
