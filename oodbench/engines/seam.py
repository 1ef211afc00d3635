"""The seam between a study and a cluster: a task is a command line, an engine runs tasks and says how each ended.

What a task computes travels through the shared store and the folder of results; nothing of it is handed back. Where
hosts share no file system, what it sends back is a parcel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Protocol

from pydantic import BaseModel, TypeAdapter

from oodbench.store.files import write_whole

JOBS = "jobs"  # in a study's folder of results: what was given to an engine, and logs
POLL = 0.2  # seconds between two looks at a process
FINE = (0, 1)  # exit codes of a command: done, done with errors in rows


class Needs(BaseModel, frozen=True):
    """What a task asks for."""

    gpus: int = 0
    cpus: int = 1
    memory: int = 2 * 10**9  # bytes
    seconds: int = 3600  # after which it is ended, and goes on where it was
    ends: int = 3  # how often that may happen


class Task(BaseModel, frozen=True):
    """A command line of oodbench, and what it needs."""

    name: str  # STAGE-RUN: unique among those that have not ended
    stage: str
    runs: tuple[str, ...]  # Run.named of the trainings that it is about
    words: tuple[str, ...]  # what a person could type on that node after `oodbench`
    needs: Needs = Needs()
    after: tuple[str, ...] = ()  # names of tasks that have ended, whatever how, before it begins


@dataclass(frozen=True)
class Ended:
    """How a task ended: well, or with an error."""

    name: str
    error: str = ""
    log: str = ""  # a file
    sent: bytes = b""  # the parcel that it sends back, if no file system is shared
    final: bool = False  # another try would come to the same


class Engine(Protocol):
    """Runs tasks somewhere. Tasks outlive the process that gave them."""

    by: str  # its name

    def alive(self) -> dict[str, str]:
        """Return the tasks that have not ended, whoever gave them, and what each is at, in a word or two."""

    def submit(self, tasks: Sequence[Task]) -> None:
        """Take tasks. Raises UserError where one asks for what there is not; then none of them is taken."""

    def ended(self, waiting: set[str]) -> Iterator[Ended]:
        """Yield each task as it ends and take it from `waiting`, to which more may come, until that is empty."""

    def cancel(self) -> int:
        """End all that are alive, and return how many those were."""

    def close(self) -> None:
        """Leave it; the tasks go on."""


def own_variables() -> dict[str, str]:
    """Return the variables of this process that a command on another node has to have, too."""
    return {name: value for name, value in os.environ.items() if name.startswith("OODBENCH_")}


@dataclass(frozen=True)
class Command:
    """What an engine runs on a node: a command of oodbench in a process of its own, which does not outlive this one."""

    words: tuple[str, ...]
    log: Path  # to which all that it writes is added
    threads: int = 1
    folder: Path = field(default_factory=Path.cwd)
    variables: dict[str, str] = field(default_factory=own_variables)

    def __call__(self) -> str:
        """Run it, and return how it ended where that was not well, else ""."""
        with self.log.open("ab") as log:
            start = log.tell()
            process = self.start(log.fileno())
            try:
                while process.poll() is None:
                    time.sleep(POLL)
            finally:
                if process.stdin:
                    process.stdin.close()
        return "" if process.returncode in FINE else f"{_how(process.returncode)}{_last_line(self.log, start)}"

    def start(self, log: int) -> subprocess.Popen[bytes]:
        """Start it. It ends when nobody holds the other end of its input."""
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(self.threads))
        words = [sys.executable, "-m", "oodbench.cli.workers", *self.words]
        env = os.environ | limits | self.variables
        return subprocess.Popen(words, cwd=self.folder, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log)


def _how(code: int) -> str:
    return f"was ended by {Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as stream:
        stream.seek(start)
        lines = [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()}" if lines else ""


class GivenTask(BaseModel):
    """A task that was given to an engine."""

    task: Task
    job: str  # by what the engine knows it
    folder: str = ""  # of the engine's own files
    by: str = ""  # the engine
    address: str = ""  # where it is, if that has to be said


class Ledger:
    """The tasks of a study that were given to an engine and have not been seen to end: a file beside its rows."""

    def __init__(self, results: Path) -> None:
        self.folder = results / JOBS
        self._file = self.folder / "given.json"

    def read(self, by: str = "") -> dict[str, GivenTask]:
        """Return them by name, those of one engine or all. Raises ValueError where the file is damaged."""
        if not self._file.is_file():
            return {}
        found = _GIVEN.validate_json(self._file.read_bytes())
        return {name: each for name, each in found.items() if by in ("", each.by)}

    def add(self, given: Sequence[GivenTask]) -> None:
        self._write(self.read() | {each.task.name: each for each in given})

    def drop(self, *names: str) -> None:
        found = self.read()
        if found.keys() & set(names):
            self._write({name: each for name, each in found.items() if name not in names})

    def log(self, name: str) -> Path:
        """Return the file to which a task writes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{name}.log"

    def _write(self, given: dict[str, GivenTask]) -> None:
        write_whole(self._file, _GIVEN.dump_json(given, indent=1))


_GIVEN = TypeAdapter(dict[str, GivenTask])
