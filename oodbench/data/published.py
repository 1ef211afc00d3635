"""Which files of a data set are other ones than were published: hashes tell, where they are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from oodbench.api import Dataset
from oodbench.data.contents import Contents

# Of files that archives hold, by where they are in DATA; md5, as torchvision.datasets.CIFAR10 and CIFAR100 list them.
MEMBERS = {
    "cifar-10-batches-py/data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "md5:40351d587109b95175f43aff81a1287e",
    "cifar-100-python/train": "md5:16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
}


def other_files(dataset: Dataset, files: Callable[[], Sequence[Path]], root: Path, contents: Contents) -> list[str]:
    """Return a line where files of a set have other hashes than the published ones; none where no hash is known."""
    known = {root / name: digest for name, digest in _known(dataset)}
    said = []
    for path in (each for each in (files() if known else ()) if each in known):
        kind, _, wanted = known[path].partition(":")
        found = contents.md5(path) if kind == "md5" else contents.each([path])[0]
        if found != wanted:
            said.append(f"{path.relative_to(root)} ({kind} {found}, published {wanted})")
    if not said:
        return []
    others = "is another file than was published" if len(said) == 1 else "are other files than were published"
    return [f"{', '.join(said)} {others}: images, labels or their order may be others"]


def _known(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield the place in DATA and the hash of each file of a set whose hash is published."""
    for each in dataset.source.downloads if dataset.source else ():
        if each.members is not None:
            yield from ((name, digest) for name, digest in MEMBERS.items() if re.fullmatch(each.members, name))
        elif each.hash and dataset.source:
            yield (PurePosixPath(dataset.source.folder) / each.name).as_posix(), each.hash
