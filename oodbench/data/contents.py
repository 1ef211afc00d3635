"""What files hold, as one hash of their names and contents, which is remembered for as long as the files stay."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from oodbench.store.artifacts import sha256
from oodbench.store.files import write_whole

FILE = "hashes.json"  # in the store: of files as they lie on this disk, with their sizes and times, the hash
SINGLE = 100  # files of a split, up to which each one's hash is remembered
MOST = 10_000  # hashes that are remembered, the last ones


class Contents:
    """The hashes of files, remembered in a store; a file that was exchanged meanwhile is read anew."""

    def __init__(self, store: Path) -> None:
        self._file = store / FILE

    def each(self, paths: Sequence[Path]) -> list[str]:
        """Return the SHA-256 of each file; a folder has none.

        Raises ValueError where a path is neither a file nor a folder, such as a pipe, which would be waited for.
        """
        stamps = [_stamp([path]) for path in paths]
        known = self._known()
        lost = {stamp: path for stamp, path in zip(stamps, paths, strict=True) if stamp not in known}
        if lost:
            known = self._remember(dict(zip(lost, _hashed([*lost.values()]), strict=True)))
        return [known[stamp] for stamp in stamps]

    def md5(self, path: Path) -> str:
        """Return the MD5 of a file, by which some are published."""
        stamp, known = f"md5 {_stamp([path])}", self._known()
        if stamp not in known:
            with path.open("rb") as file:
                known = self._remember({stamp: hashlib.file_digest(file, "md5").hexdigest()})
        return known[stamp]

    def of(self, paths: Sequence[Path]) -> str:
        """Return one hash of the names and contents of files, in their order; of a folder the name is all that counts.

        A name is that below the folder which holds all of them: it is the same wherever they lie.
        """
        if len(paths) <= SINGLE:
            return _of_names(paths, self.each(paths))
        stamp, known = _stamp(paths), self._known()
        if stamp not in known:
            known = self._remember({stamp: _of_names(paths, _hashed(paths))})
        return known[stamp]

    def _known(self) -> dict[str, str]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def _remember(self, new: dict[str, str]) -> dict[str, str]:
        known = self._known() | new  # others write, too
        write_whole(self._file, json.dumps(dict([*known.items()][-MOST:]), indent=1).encode())
        return known


def _stamp(paths: Sequence[Path]) -> str:
    """Return a hash of where files lie, of their sizes and times."""
    seen = [path.stat() for path in paths]
    for path, each in zip(paths, seen, strict=True):
        if not (stat.S_ISREG(each.st_mode) or stat.S_ISDIR(each.st_mode)):
            raise ValueError(f"{path} is neither a file nor a folder")
    facts = [(each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in seen]
    return _digest([(str(path.absolute()), *each) for path, each in zip(paths, facts, strict=True)])


def _hashed(paths: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: "" if path.is_dir() else sha256(path), paths))


def _of_names(paths: Sequence[Path], hashes: Sequence[str]) -> str:
    top = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
    return _digest([(os.path.relpath(path.absolute(), top), each) for path, each in zip(paths, hashes, strict=True)])


def _digest(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()
