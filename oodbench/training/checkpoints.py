"""Checkpoints: where a training that was killed goes on. At most one of a training is kept, none once it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file

from oodbench.store.artifacts import Store, digest
from oodbench.store.memo import Fields
from oodbench.training.train import Progress

KIND = "checkpoint"


class Asked:
    """Whether somebody asks for a checkpoint at once: a cluster does, before it ends a process."""

    now = False
    to_end = False  # to end with it
    at_work = False  # whether a training could make one


class Pace(NamedTuple):
    """When checkpoints are due: after so many minutes, 0 being at each epoch, after so many epochs, and when asked."""

    minutes: float
    epochs: int | None = None
    asked: Asked | None = None


class Checkpoints:
    """The checkpoints of one training, by what its key is made of. `seconds` is what all its tries have taken."""

    def __init__(
        self, store: Store, fields: Fields, minutes: float, epochs: int | None = None, asked: Asked | None = None
    ) -> None:
        self._store = store
        self._fields = fields
        self._train_key = digest(fields)
        self._minutes = minutes
        self._epochs = epochs
        self._start = self._last = time.perf_counter()
        self._before = 0.0
        self._asked = asked or Asked()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def latest(self) -> Progress | None:
        """Return the newest progress that is whole, or None."""
        for key in reversed(self._keys()):
            artifact = self._store.read(KIND, key)
            if artifact is not None:
                self._before = artifact.meta["seconds"]
                meta, tensors = artifact.meta, load_file(artifact.file("progress.safetensors"))
                terms = tuple(meta.get("terms", [{}] * meta["epochs"]))
                return Progress(meta["epochs"], meta["losses"], tensors, meta.get("steps", 0), terms)
        return None

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """Let somebody ask for a checkpoint meanwhile. One that is to end the work ends it by KeyboardInterrupt."""
        self._asked.at_work = True
        try:
            yield
        finally:
            self._asked.at_work = False

    def offer(self, epochs: int, progress: Callable[[], Progress]) -> None:
        """Keep the progress after so many epochs, if it is time for it."""
        by_epoch = self._epochs is not None and epochs % self._epochs == 0
        if by_epoch or self._is_time():
            self._keep(progress())

    def offer_step(self, progress: Callable[[], Progress]) -> None:
        """Keep the progress within an epoch, if it is time for it."""
        if self._asked.now or (self._minutes and self._is_time()):
            self._keep(progress())

    def _is_time(self) -> bool:
        return self._asked.now or time.perf_counter() - self._last >= 60 * self._minutes

    def _keep(self, now: Progress) -> None:
        older = self._keys()

        def fill(folder: Path) -> dict[str, Any]:
            save_file(now.tensors, folder / "progress.safetensors")
            facts = {"epochs": now.epochs, "losses": now.losses, "seconds": self.seconds}
            facts |= {"terms": now.terms} if any(now.terms) else {}
            return facts | ({"steps": now.steps} if now.steps else {})

        within = f"-{now.steps:08d}" if now.steps else ""
        self._store.write(KIND, f"{self._train_key}-{now.epochs:06d}{within}", self._fields, fill)
        self._remove(older)
        self._last, self._asked.now = time.perf_counter(), False
        if self._asked.to_end:
            raise KeyboardInterrupt

    def clear(self) -> None:
        self._remove(self._keys())
        self._store.sweep(KIND, self._train_key)

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            self._store.remove(KIND, key)

    def _keys(self) -> list[str]:
        return self._store.keys(KIND, f"{self._train_key}-")
