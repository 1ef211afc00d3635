"""The sets of a study, prepared in its format, and what they share; each made once and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oodbench.api import Dataset
from oodbench.data import corruptions, download, duplicates, prepare, published
from oodbench.data.contents import Contents
from oodbench.data.prepare import Prepared
from oodbench.errors import UserError, suggestion
from oodbench.store.memo import NUMBER, Memo
from oodbench.study.grid import canonical
from oodbench.study.study import Study

DISK = 0.9  # share of the store's free disk that the images of a set may take
Split = Literal["train", "test"]


class Library:
    """The data sets of a study, by set and split."""

    def __init__(self, study: Study, memo: Memo) -> None:
        self.study = study
        self.memo = memo
        self.contents = Contents(memo.store.root)
        self._prepared: dict[tuple[str, Split], Prepared] = {}

    def data_fields(self, dataset: Dataset, split: Split) -> dict[str, Any]:
        return {
            "number": NUMBER["data"],
            "dataset": canonical(dataset),
            "source": self.study.registry.fingerprint("dataset", dataset.name),
            "split": split,
            "image": self.study.settings.image.canonical,
            "files": self.contents.of(dataset.files(split, self.study.data)),
            **({"corruption": corruptions.NUMBER} if dataset.corrupt else {}),
        }

    def prepared(self, dataset: Dataset, split: Split) -> Prepared:
        """Return a split of a set in the study's format. Raises UserError where its files are missing or damaged."""
        known = (str(canonical(dataset)), split)
        if split not in dataset.splits:
            uses = {"train": "ID set, outliers or validation OOD", "test": "ID set or OOD test set"}[split]
            raise UserError(f"data set {dataset.label}: it has no {split} images, and cannot be {uses}")
        if known not in self._prepared:
            try:
                with self.memo.store.lock(f"fetch-{dataset.name}"), download.shown(self.memo.watch.downloading):
                    download.fetch_set(dataset, self.study.data)
                found, others = self._prepare(dataset, split), self.other_files(dataset, split)
                self._prepared[known] = found._replace(warnings=(*found.warnings, *others))
                for each in others:
                    self.memo.watch.warn(f"{dataset.label}, {split}: {each}")
            except UserError:
                raise
            except (OSError, ValueError) as error:
                raise UserError(f"data set {dataset.label}: {error}") from error
            except Exception as error:  # a reader's own bug, or what its library raises on a damaged file
                raise UserError(f"data set {dataset.label}: {type(error).__name__}: {error}") from error
        return self._prepared[known]

    def other_files(self, dataset: Dataset, split: Split) -> list[str]:
        """Return what is said of a split whose files are other ones than were published; no key knows of it."""
        root = self.study.data

        def files() -> list[Path]:
            return [Path(each) for each in dataset.files(split, root) if Path(each).is_file()]

        return published.other_files(dataset, files, root, self.contents)

    def _prepare(self, dataset: Dataset, split: Split) -> Prepared:
        image, root = self.study.settings.image, self.study.data

        def fill(folder: Path) -> dict[str, Any]:
            return prepare.prepare(dataset, split, image, root, folder, DISK * self.memo.store.free())

        title = f"{dataset.label}, {split}"
        artifact = self.memo.remembered("data", self.data_fields(dataset, split), fill, title)
        for each in artifact.meta.get("warnings", ()):
            self.memo.watch.warn(f"{title}: {each}")
        if "lazy" not in artifact.meta:
            return prepare.opened(artifact.path, artifact.meta)
        what = f"its {artifact.meta['lazy'] / 1e9:.2g} GB were more than {DISK:.0%} of the free disk of the store"
        how = f"it is decoded whenever it is read; with more room, delete {artifact.path} and it is prepared again"
        self.memo.watch.warn(f"{title}: {what}, so {how}")
        return prepare.reopened(dataset, split, image, root, artifact.path, artifact.meta)

    def hash_fields(self, dataset: Dataset, split: Split) -> dict[str, Any]:
        return {"number": duplicates.NUMBER, "set": self.prepared(dataset, split).content}

    def _hashes(self, dataset: Dataset, split: Split) -> NDArray[np.uint8]:
        """Return the perceptual hashes of a set's images (N, 8)."""

        def fill(folder: Path) -> dict[str, Any]:
            np.save(folder / "hashes.npy", duplicates.hashes(self.prepared(dataset, split).x))
            return {"set": dataset.label, "split": split}

        title = f"{dataset.label}, {split}"
        artifact = self.memo.remembered("hash", self.hash_fields(dataset, split), fill, title)
        found: NDArray[np.uint8] = np.load(artifact.path / "hashes.npy")
        return found

    def near_fields(self, one: Dataset, split: Split, other: Dataset, other_split: Split) -> dict[str, Any]:
        return {"one": self.hash_fields(one, split), "other": self.hash_fields(other, other_split)}

    def near(self, one: Dataset, split: Split, other: Dataset, other_split: Split) -> duplicates.Pairs:
        """Return the images of a split of another set that have a near duplicate in a split of one."""

        def fill(folder: Path) -> dict[str, Any]:
            x, y = self.prepared(one, split).x, self.prepared(other, other_split).x
            found = duplicates.near(x, y, self._hashes(one, split), self._hashes(other, other_split))
            np.savez(folder / "near.npz", **found._asdict())
            return {"one": f"{one.label}, {split}", "other": f"{other.label}, {other_split}"}

        title = f"{other.label}, {other_split} in {one.label}, {split}"
        artifact = self.memo.remembered("near", self.near_fields(one, split, other, other_split), fill, title)
        with np.load(artifact.path / "near.npz") as found:
            return duplicates.Pairs(*(found[name] for name in duplicates.Pairs._fields))

    def shifted_labels(self, shifted: Dataset, id_: Dataset) -> NDArray[np.int64]:
        """Return the classes (N,) of the test images of a covariate-shifted set, as ID numbers them.

        Raises UserError where it has a class that ID has not: classes are matched by their names.
        """
        names, found = self.prepared(id_, "train").classes, self.prepared(shifted, "test")
        if strange := [name for name in found.classes if name not in names]:
            hint = suggestion(strange[0], names)
            raise UserError(f"{shifted.label} has the class '{strange[0]}', the ID set {id_.label} has none such{hint}")
        return np.array([names.index(each) for each in found.classes], dtype=np.int64)[found.y]

    def reference_set(self, dataset: Dataset) -> Prepared:
        """Return the images of a reference that is a set of its own."""
        return self.prepared(dataset, "test")
