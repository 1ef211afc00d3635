"""Errands: a unit on a host that shares no file system with the one that gave it. Files come with it, rows go back.

On that host it is a command like any other, with the store, results and data of that host, which stay there. A worker
imports this module, and no torch with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oodbench.engines.parcels import BACK, OUT, check_size, files_in, pack, unpack
from oodbench.engines.seam import Command
from oodbench.errors import UserError

LOG = "log"  # in what is sent back
LOG_BYTES = 1_000_000  # of a log that comes back, its end
Run = Callable[[tuple[str, ...], Path], str]  # runs words of oodbench with a log; how that ended, if not well


@dataclass(frozen=True)
class Errand:
    """What a worker does of a study whose files come in a parcel: the words of a unit after its file."""

    words: tuple[str, ...]
    threads: int = 1

    def __call__(self, files: bytes, run: Run | None = None) -> bytes:
        """Return the parcel that goes back: what the unit gives away, its log, and how it ended if not well."""
        with tempfile.TemporaryDirectory(prefix="oodbench-") as name:
            study, back, log = (Path(name).resolve() / each for each in ("study", "back", LOG))
            main = unpack(files, study, OUT).main
            words = ("unit", str(study / main), *self.words, "--to", str(back))
            error = (run or self._run)(words, log)
            found = {LOG: _end_of(log)} | ({} if error else files_in(back))
            try:
                check_size(found, BACK, "rows and scores that are kept", "keep the scores of fewer cells")
            except UserError as too_large:
                found, error = {LOG: found[LOG]}, str(too_large)
            return pack(found, error=error)

    def _run(self, words: tuple[str, ...], log: Path) -> str:
        return Command(words, log, self.threads, variables={})()


def _end_of(log: Path) -> bytes:
    return log.read_bytes()[-LOG_BYTES:] if log.is_file() else b""
