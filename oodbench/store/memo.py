"""Answers that are remembered: an artifact is made once, under a hash of the fields that it depends on.

A key is a hash of the fields that a stage and its ancestors read: parameters with defaults filled in, data hashes, the
code of the plugin and of our modules that it imports, and a number below, to be raised by hand when the rest of a
stage's arithmetic changes. The cache is the dependency graph.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from oodbench.store.artifacts import Artifact, Store, digest

# Raise a number when the arithmetic of its stage changes; everything after it is then made again.
REDO = ("train", "bank", "score", "failed")  # what a run may be asked to make again
NUMBER = {"data": 2, "train": 1, "bank": 1, "probe": 2, "score": 3}
AFTER = {"train": ("train", "bank", "probe"), "bank": ("bank", "probe")}  # what is made again with a stage
Fields = dict[str, Any]
WEIGHTS = "weights"  # a fact of what is made of a training: which weights these were
WORKER = "OODBENCH_WORKER"  # a variable: which of several processes of one command this is, from 2


class Watch:
    """Hears what a study at work does; this one says nothing of it."""

    def planned(self, runs: int, cells: int, done: int) -> None: ...
    def stage(self, what: str, title: str) -> None: ...
    def training(self, epochs: int, done: int, images: int) -> None: ...  # epochs done before; images an epoch
    def terms(self, means: dict[str, float]) -> None: ...  # of the loss of the epoch that is told next
    def epoch(self, epoch: int, epochs: int, loss: float) -> None: ...
    def scoring(self, rows: int, of: int) -> None: ...  # rows of one training that are made
    def scored(self, cells: int, failed: int) -> None: ...  # made here, and kept
    def found(self, cells: int) -> None: ...  # made by another process meanwhile
    def failed(self, title: str, message: str) -> None: ...
    def downloading(self, file: str, done: int, total: int | None) -> None: ...  # bytes
    def warn(self, message: str) -> None: ...


class Warnings(Watch):
    """Passes on what it is warned of, each once, and nothing else."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._said: set[str] = set()

    def warn(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._say(message)


class Memo:
    """A store of answers; with `redo`, a stage and what follows from it are made again, once."""

    def __init__(self, store: Store, watch: Watch, redo: str = "") -> None:
        self.store = store
        self.watch = watch
        self.redo = redo
        self._made: set[str] = set()  # keys made or found: not to be made again under `redo`

    def remembered(self, kind: str, fields: Fields, fill: Callable[[Path], dict[str, Any]], title: str) -> Artifact:
        """Return an artifact from the store, or make it, once, whoever else wants it."""
        key = digest(fields)
        if kind in AFTER.get(self.redo, ()) and key not in self._made:
            self.store.remove(kind, key)
        self._made.add(key)
        found = self.found(kind, fields)
        if found is not None:
            return found

        def filled(folder: Path) -> dict[str, Any]:
            meta = fill(folder)
            weights = self._weights(fields)
            return meta | ({WEIGHTS: digest(weights.files)} if weights else {})

        of = key if kind == "train" else fields.get("train")  # one lock for a training and what is made of it
        with self.store.lock(f"run-{of}" if of else f"{kind}-{key}"):
            found = self.found(kind, fields)  # another process may have made it meanwhile
            if found is None:
                self.watch.stage(kind, title)
                found = self.store.write(kind, key, fields, filled)
            return found

    def found(self, kind: str, fields: Fields) -> Artifact | None:
        """Return an artifact that is there, or None; what was made of other weights than are there now is removed."""
        key = digest(fields)
        found = self.store.read(kind, key)
        weights = self._weights(fields) if found else None
        if found is None or weights is None or found.meta.get(WEIGHTS) == digest(weights.files):
            return found
        trained = datetime.fromisoformat(weights.meta.get("trained_at", "1970-01-01T00:00:00Z")).timestamp()
        if WEIGHTS not in found.meta and self.store.made_at(kind, key) >= trained:  # older versions did not say
            return found
        self.store.remove(kind, key)
        return None

    def _weights(self, fields: Fields) -> Artifact | None:
        """Return the weights that something is made of, where it is made of any that are there."""
        return self.store.read("train", fields["train"]) if "train" in fields else None

    def facts(self, kind: str, fields: Fields) -> dict[str, Any] | None:
        """Return the facts of an artifact that is there, or None."""
        artifact = self.found(kind, fields)
        return None if artifact is None else artifact.meta

    def keep(self, kind: str, fields: Fields, facts: dict[str, Any], title: str) -> dict[str, Any]:
        """Return facts, once they are an artifact that has no files."""
        found = self.found(kind, fields)
        if found is None:
            self.watch.stage(kind, title)
            found = self.store.write(kind, digest(fields), fields, lambda _: facts)
        return found.meta
