"""Checkpoints: where a training that was killed goes on. At most one of a training is kept, none once it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from oodbench.store.artifacts import Store, digest
from oodbench.store.memo import Fields
from oodbench.training.train import Progress

KIND = "checkpoint"


class Checkpoints:
    """The checkpoints of one training, by what its key is made of. `seconds` is what all its tries have taken.

    One is due after so many minutes, and where `epochs` is a number, after every so many epochs, too.
    """

    def __init__(self, store: Store, fields: Fields, minutes: float, epochs: int | None = None) -> None:
        self._store = store
        self._fields = fields
        self._train_key = digest(fields)
        self._minutes = minutes
        self._epochs = epochs
        self._start = self._last = time.perf_counter()
        self._before = 0.0

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def latest(self) -> Progress | None:
        """Return the newest progress that is whole, or None."""
        for key in reversed(self._keys()):
            artifact = self._store.read(KIND, key)
            if artifact is not None:
                self._before = artifact.meta["seconds"]
                return Progress(
                    artifact.meta["epochs"], artifact.meta["losses"], load_file(artifact.file("progress.safetensors"))
                )
        return None

    def offer(self, epochs: int, progress: Callable[[], Progress]) -> None:
        """Keep the progress after so many epochs, if it is time for it."""
        by_epoch = self._epochs is not None and epochs % self._epochs == 0
        if not by_epoch and time.perf_counter() - self._last < 60 * self._minutes:
            return
        older = self._keys()
        now = progress()

        def fill(folder: Path) -> dict[str, Any]:
            save_file(now.tensors, folder / "progress.safetensors")
            return {"epochs": now.epochs, "losses": now.losses, "seconds": self.seconds}

        self._store.write(KIND, f"{self._train_key}-{now.epochs:06d}", self._fields, fill)
        self._remove(older)
        self._last = time.perf_counter()

    def clear(self) -> None:
        self._remove(self._keys())
        self._store.sweep(KIND, self._train_key)

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            self._store.remove(KIND, key)

    def _keys(self) -> list[str]:
        return self._store.keys(KIND, f"{self._train_key}-")
