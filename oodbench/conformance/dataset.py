"""What holds of every data set whose files are there, in the folder of downloaded data (root)."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Literal

import numpy as np

from oodbench.api import Dataset, Images
from oodbench.conformance.toys import expect
from oodbench.data import duplicates, prepare
from oodbench.data.download import fetch_set

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


def says_where_it_is_from(dataset: Dataset, root: Path) -> None:
    """It says where it is from."""
    source = dataset.source
    if source is None:  # a program makes it, or its files are the user's own
        return
    for text in ("title", "page", "licence"):
        expect(getattr(source, text), f"its source has a {text}")
    expect(_inside(source.folder), f"its folder '{source.folder}' is in the folder of all data")
    names = [each.name for each in source.downloads]
    expect(names and len(set(names)) == len(names), f"its downloads have a name each, not {names}")
    for each in source.downloads:
        expect(each.name and _inside(each.name), f"'{each.name}' names a file")
        known = each.hash is None or re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", each.hash)
        expect(known, f"the hash of {each.name} is md5:... or sha256:..., not {each.hash}")
        expect(each.urls or source.by_hand, f"by_hand says how to get {each.name}, as no program can")
        re.compile(each.members or "")
    expect(dataset.needed(root), "a set with a source names the files that it needs")


def _inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def names_its_files(dataset: Dataset, root: Path) -> None:
    """It names the files that it needs."""
    fetch_set(dataset, root)
    needed = list(dataset.needed(root))
    lost = [str(path) for path in needed if not path.is_file()]
    if lost and dataset.source is None:
        raise FileNotFoundError(f"there is no file {lost[0]}")
    expect(not lost, f"what it needs is there once it is fetched, but not {', '.join(lost[:3])}")
    if dataset.source is not None:
        read = {path for split in SPLITS for path in dataset.files(split, root)}
        more = sorted(str(path) for path in read - set(needed))
        expect(not more, f"what it reads is among what it needs, but not {', '.join(more[:3])}")


@functools.lru_cache(maxsize=2)
def loaded(dataset: Dataset, split: Literal["train", "test"], root: Path) -> Images:
    """Return a split, which takes its time where it is generated: once for all checks."""
    fetch_set(dataset, root)
    return dataset.load(split, root)


def is_well_formed(dataset: Dataset, root: Path) -> None:
    """Its images and labels are well formed."""
    for split in dataset.splits:
        images = loaded(dataset, split, root)
        expect(len(images.x) == len(images.y) > 0, f"{split}: as many labels as images")
        first = np.asarray(images.x[0])
        expect(first.dtype == np.uint8 and first.ndim in (2, 3), f"{split}: images are uint8 (H, W) or (H, W, C)")
        expect(images.y.dtype == np.int64, f"{split}: labels are int64")
        expect(images.y.min() >= 0 and images.y.max() < len(images.classes), f"{split}: labels number the classes")
        known = dataset.class_names
        expect(known is None or known == images.classes, f"{split}: class_names are the names of the classes")


def repeats(dataset: Dataset, root: Path) -> None:
    """Loading it twice gives the same."""
    split = dataset.splits[-1]
    first, second = loaded(dataset, split, root), dataset.load(split, root)
    same = np.array_equal(first.y, second.y) and np.array_equal(np.asarray(first.x[0]), np.asarray(second.x[0]))
    expect(same, "loading it twice gives the same images")


def is_split(dataset: Dataset, root: Path) -> None:
    """Train and test are disjoint."""
    if len(dataset.splits) < 2:
        return
    seen = []
    for split in SPLITS:
        x = loaded(dataset, split, root).x
        some = range(0, len(x), max(1, len(x) // 20_000))
        seen.append(prepare.digests([np.asarray(x[i]) for i in some]))  # type: ignore[arg-type]
    shared = len(duplicates.exact(*seen)[1]) / len(seen[1])
    expect(shared < 0.01, f"train and test are disjoint, but {100 * shared:.1f} % of test is in train")


CHECKS = (says_where_it_is_from, names_its_files, is_well_formed, repeats, is_split)
