"""What a study needs of data: what of it is there, where the rest is from, and a manifest of what was prepared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from oodbench.api import Dataset, Download, Source
from oodbench.data.contents import SINGLE
from oodbench.data.download import absent
from oodbench.data.library import Library, Split
from oodbench.errors import UserError
from oodbench.store.files import write_whole
from oodbench.store.provenance import now, version
from oodbench.study import suites
from oodbench.study.grid import canonical
from oodbench.study.study import Study
from oodbench.toolkit.offline import offline
from oodbench.toolkit.raw_files import missing

FILE = "data.json"  # in a study's folder of results
HERE, TO_DOWNLOAD, BY_HAND, MISSING, DAMAGED = "here", "to download", "by hand", "missing", "damaged"
GENERATED = "generated, or comes with a library"
OWN = "your own files"


@dataclass
class Need:
    """A data set, and what a study needs it for."""

    dataset: Dataset
    roles: list[str]
    splits: list[Split]
    files: suites.Files | None = None  # where its files are from, if a suite says so


class Supply(NamedTuple):
    """Whether the files of a set are there, and what the rest would take."""

    state: str  # HERE, TO_DOWNLOAD, BY_HAND, MISSING or DAMAGED
    downloads: tuple[Download, ...] = ()  # that are not there
    licence: str = "–"
    origin: str = ""

    @property
    def size(self) -> int | None:
        """Bytes to download; None where a size is not known."""
        sizes = [each.size for each in self.downloads]
        return None if None in sizes else sum(size for size in sizes if size is not None)


def needs(study: Study) -> list[Need]:
    """Return the data sets of a study, each once, with the splits that a run prepares."""
    found: dict[str, Need] = {}

    def add(label: str, dataset: Dataset, role: str, *splits: Split) -> None:
        need = found.setdefault(str(canonical(dataset)), Need(dataset, [], []))
        if dataset.source is None and _own(dataset):
            need.files = need.files or suites.files(label, role)
        need.roles += [role] if role not in need.roles else []
        need.splits += [split for split in splits if split not in need.splits]

    for id_ in study.ids:
        setup = study.setups[id_.label]
        of = setup.suite
        add(of, id_, "ID", "train", "test")
        if setup.reference.kind == "val":
            add(of, id_, "reference")
        if setup.reference.held_out:
            add(of, setup.reference.held_out, "reference", "test")
        for group, members in setup.ood.items():
            for each in members.values():
                add(of, each, group, "test")
        for each in setup.covariate:
            add(of, each, "covariate", "test")
        for each in setup.outliers if any(training.outliers for training in study.trainings) else ():
            add(of, each, "outliers", "train")
        for each in setup.validation:
            add(of, each, "validation", "train")
    return list(found.values())


def other_files(study_needs: Iterable[Need], library: Library) -> list[str]:
    """Return a line for each split of sets whose files are here and are other ones than were published."""
    return [
        f"{need.dataset.label}, {split}: {line}"
        for need in study_needs
        for split in need.splits
        for line in library.other_files(need.dataset, split)
    ]


def supply(need: Need, root: Path) -> Supply:
    """Return whether the files of a set are there; looks at names on the disk, and into lists of files."""
    try:
        return _supply(need, root, here=need.dataset.source is None and not lacking(need, root))
    except (OSError, ValueError):  # of a list or a folder; preparing the set says what is wrong
        return Supply(DAMAGED)


def missing_supply(need: Need, root: Path) -> Supply:
    """Return what a set whose files are not there would take."""
    return _supply(need, root, here=False)


def _supply(need: Need, root: Path, here: bool) -> Supply:
    dataset, source = need.dataset, need.dataset.source
    if source is None:
        if need.files:
            return Supply(HERE if here else BY_HAND, licence=need.files.licence, origin=need.files.page)
        return Supply(HERE if here else MISSING, origin=OWN if _own(dataset) else GENERATED)
    hosts = dict.fromkeys(urlsplit(each.urls[0]).hostname or "" for each in source.downloads if each.urls)
    origin = ", ".join([*hosts, source.page])
    folder = root / source.folder
    lost = missing(dataset.needed(root))
    downloads = tuple(each for each in absent(source, lost, folder) if not _placed(each, source, root))
    if not all(each.urls for each in downloads):
        return Supply(BY_HAND, downloads, source.licence, origin)
    state = MISSING if offline() else TO_DOWNLOAD
    return Supply(state if downloads else HERE, downloads, source.licence, origin)


def lacking(need: Need, root: Path) -> str:
    """Return why the files of a set are not here; "" where they are, or lie in archives that preparing it unpacks.

    Sets of a user's own are looked into, lists to the last image. Raises OSError or ValueError where one is damaged.
    """
    dataset, source = need.dataset, need.dataset.source
    if source is not None:
        lost = missing(dataset.needed(root))
        gone = [each for each in absent(source, lost, root / source.folder) if not _placed(each, source, root)]
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        return f"{lost[0]} is not here{more}" if gone else ""
    if not _own(dataset):
        return ""
    if dataset.requires and not any(dataset.files(split, root) for split in need.splits):
        return f"it has no file in {root}"  # its library might go and get it
    try:
        for split in need.splits:
            dataset.load(split, root)
    except FileNotFoundError as error:
        return str(error)
    except (OSError, ValueError):
        raise
    except Exception:  # noqa: BLE001 - of a module that is not installed, or a reader's own bug: preparing the set says it
        return ""
    return ""


def _placed(download: Download, source: Source, root: Path) -> bool:
    return (root / source.folder / download.name).is_file()


def _own(dataset: Dataset) -> bool:
    """Return whether a set without a source reads files, which are the user's then."""
    return type(dataset).files is not Dataset.files


def prepare(library: Library, wanted: Iterable[Need]) -> Iterator[tuple[Need, str]]:
    """Prepare every split that a study needs, write the manifest, and yield sets that cannot be had, and why."""
    sets = []
    for need in wanted:
        facts = _facts(need, library.study)
        try:
            for module, how in need.dataset.requires.items():
                if find_spec(module) is None:
                    raise UserError(f"{need.dataset.label} needs {module}: {how}")
            facts["splits"] = {split: _split_facts(need.dataset, split, library) for split in need.splits}
        except UserError as error:
            by_hand = f"; {need.files.by_hand}" if need.files else ""
            facts["problem"] = str(error) + by_hand.replace("{data}", str(library.study.data))
            yield need, facts["problem"]
        sets.append(facts)
    manifest = {
        "study": library.study.name,
        "image": library.study.settings.image.canonical,
        "version": version(),
        "made_at": now(),
        "sets": sets,
    }
    write_whole(library.study.results / FILE, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def _facts(need: Need, study: Study) -> dict[str, Any]:
    dataset, source = need.dataset, need.dataset.source
    facts = {"set": dataset.label, "roles": need.roles, "parameters": canonical(dataset)}
    if need.files:
        return facts | {"source": {"page": need.files.page, "licence": need.files.licence}}
    if source is None:
        return facts | {"source": OWN if _own(dataset) else GENERATED}
    downloads = [
        {"name": each.name, "urls": each.urls, "hash": each.hash, "size": each.size} for each in source.downloads
    ]
    named = {"title": source.title, "page": source.page, "licence": source.licence}
    return facts | {"source": named | {"downloads": downloads}}


def _split_facts(dataset: Dataset, split: Split, library: Library) -> dict[str, Any]:
    prepared = library.prepared(dataset, split)
    counts = np.bincount(prepared.y, minlength=len(prepared.classes)).tolist()
    files = [Path(file) for file in dataset.files(split, library.study.data) if Path(file).is_file()]
    return {
        "content": prepared.content,
        "images": len(prepared.y),
        "classes": dict(zip(prepared.classes, counts, strict=True)),
        "mapped": isinstance(prepared.x, np.ndarray),
        "warnings": list(prepared.warnings),
        **({"damaged": len(prepared.damaged)} if prepared.damaged else {}),
        "files": _originals(files, library),
    }


def _originals(files: Sequence[Path], library: Library) -> dict[str, Any]:
    """Return the SHA-256 of each original file; of very many, one of the list of their names and sizes."""
    root = library.study.data
    named = {str(path.relative_to(root) if path.is_relative_to(root) else path): path for path in files}
    if len(named) <= SINGLE:
        return {"sha256": dict(sorted(zip(named, library.contents.each([*named.values()]), strict=True)))}
    sizes = {name: path.stat().st_size for name, path in sorted(named.items())}
    listed = "".join(f"{name}\t{size}\n" for name, size in sizes.items())
    digest = hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()
    return {"count": len(sizes), "bytes": sum(sizes.values()), "sha256 of the sorted names and sizes": digest}
