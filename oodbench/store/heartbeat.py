"""Who is at work on a study now: a small file for each process in its folder of results, renewed every few seconds.

It is removed at the end. One that is left, of a process that was killed, says so itself: that process is gone. No
number depends on it, so that what cannot be written is left out.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from oodbench.store.files import FileError, write_whole
from oodbench.store.memo import WORKER, Watch
from oodbench.store.sharing import born, lives

FOLDER = "running"  # in the folder of results
EVERY = 3.0  # seconds between two renewals, at least
QUIET = 120.0  # seconds after which a process that cannot be asked for may be gone


class Beat(BaseModel):
    """What a process at work says of itself. Times are in seconds since the epoch."""

    pid: int
    host: str
    born: str  # what tells a process from a later one of the same number; empty where the system does not say
    worker: int  # of one command's processes
    device: str
    began: float
    at: float  # when this was written
    stage: str = ""
    title: str = ""  # of the training
    since: float = 0.0  # when the stage began
    epoch: int = 0  # done
    epochs: int = 0
    rows: int = 0  # scored of this training
    of: int = 0
    cells: int = 0  # made by this process
    failed: int = 0

    @property
    def is_here(self) -> bool:
        return self.host == platform.node()

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended, as far as this machine can tell."""
        return self.is_here and not lives(self.pid, self.born)

    @property
    def is_quiet(self) -> bool:
        """Whether it has not been heard of for long, which an epoch of minutes explains, too."""
        return time.time() - self.at > QUIET


class Heartbeat(Watch):
    """Tells another watch all that it hears, and keeps the file of this process."""

    def __init__(self, results: Path, device: str, watch: Watch) -> None:
        self.watch = watch
        self._folder = results / FOLDER
        now, pid = time.time(), os.getpid()
        worker = int(os.environ.get(WORKER) or 1)
        self.beat = Beat(pid=pid, host=platform.node(), born=born(pid), worker=worker, device=device, began=now, at=now)
        self._is_on = False
        self._heard: list[list[str]] = []  # who listens to warnings

    @contextmanager
    def heard(self) -> Iterator[list[str]]:
        """Give a list of what is warned of meanwhile."""
        found: list[str] = []
        self._heard.append(found)
        try:
            yield found
        finally:
            self._heard.remove(found)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep the file meanwhile, and remove those of processes that are gone."""
        for path, beat in _files(self._folder):
            if beat.is_gone:
                _remove(path)
        self._is_on = True
        self._renew(True)
        try:
            yield
        finally:
            self._is_on = False
            _remove(self._file)
            with suppress(OSError):  # others are at work
                self._folder.rmdir()

    @property
    def _file(self) -> Path:
        return self._folder / f"{self.beat.host}-{self.beat.pid}.json"

    def _renew(self, at_once: bool = False) -> None:
        now = time.time()
        if self._is_on and (at_once or now - self.beat.at >= EVERY):
            self.beat.at = now
            with suppress(FileError):  # the run's own files will say so
                write_whole(self._file, self.beat.model_dump_json(indent=1).encode())

    def planned(self, runs: int, cells: int, done: int) -> None:
        self.watch.planned(runs, cells, done)

    def stage(self, what: str, title: str) -> None:
        beat = self.beat
        is_news = (what, title) != (beat.stage, beat.title)
        beat.stage, beat.title, beat.since = what, title, time.time()
        beat.epoch = beat.epochs = beat.rows = beat.of = 0
        self._renew(is_news and what in ("train", "score", "wait"))
        self.watch.stage(what, title)

    def training(self, epochs: int, done: int, images: int) -> None:
        self.beat.epochs, self.beat.epoch = epochs, done
        self.watch.training(epochs, done, images)

    def terms(self, means: dict[str, float]) -> None:
        self.watch.terms(means)

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        self.beat.epochs, self.beat.epoch = epochs, epoch + 1
        self._renew()
        self.watch.epoch(epoch, epochs, loss)

    def scoring(self, rows: int, of: int) -> None:
        self.beat.rows, self.beat.of = rows, of
        self._renew()
        self.watch.scoring(rows, of)

    def scored(self, cells: int, failed: int) -> None:
        self.beat.cells += cells
        self.beat.failed += failed
        self._renew()
        self.watch.scored(cells, failed)

    def found(self, cells: int) -> None:
        self.watch.found(cells)

    def failed(self, title: str, message: str) -> None:
        self.watch.failed(title, message)

    def downloading(self, file: str, done: int, total: int | None) -> None:
        self._renew()
        self.watch.downloading(file, done, total)

    def warn(self, message: str) -> None:
        for each in self._heard:
            each.append(message)
        self.watch.warn(message)


def beats(results: Path) -> list[Beat]:
    """Return what the processes say of themselves that are, or were, at work in a folder of results."""
    return sorted((beat for _, beat in _files(results / FOLDER)), key=lambda beat: (beat.began, beat.worker))


def _files(folder: Path) -> Iterator[tuple[Path, Beat]]:
    for path in folder.glob("*.json"):
        with suppress(OSError, ValidationError):  # it has just been removed, or is no file of ours
            yield path, Beat.model_validate_json(path.read_bytes())


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
