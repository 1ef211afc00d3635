"""Files that are there whole or not at all, and files without a name."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from oodbench.errors import UserError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from numpy.typing import NDArray

PART = ".part-"  # how the name of a file begins that is being written
# What reading a zip that may be damaged raises, and reading JSON in it.
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, RecursionError)


class FileError(UserError):
    """A file of ours that cannot be read or written: the disk is full, it is another user's, a folder is a file."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise FileError where something cannot be written."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, and remove what killed writes left beside it.

    Its mode is what the umask leaves. Raises FileError where it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for each in path.parent.glob(f"{PART}*"):
            _remove_unheld(each)
        with _held_file(path.parent) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            if sys.platform == "win32":
                stream.close()
            Path(stream.name).rename(path)


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file, and beside it FILE.sha256, which `sha256sum --check` reads."""
    write_whole(path, content)
    write_whole(_seal_of(path), f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode())


def read_sealed(path: Path) -> bytes:
    """Return what a file holds. Raises ValueError where that is not what its seal says; one without a seal is taken."""
    content, seal = path.read_bytes(), _seal_of(path)
    if seal.is_file() and seal.read_text(encoding="utf-8").split()[:1] != [hashlib.sha256(content).hexdigest()]:
        raise ValueError(f"it is not what {seal.name} says: it was altered or cut short")
    return content


def _seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


@contextmanager
def _held_file(folder: Path) -> Iterator[BinaryIO]:
    """Open a new file that this process holds while it is written; it goes where it is not renamed."""
    while True:
        path = folder / f"{PART}{secrets.token_hex(8)}"
        stream = path.open("xb")
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX)
        if path.exists():  # else another process took it for a killed one's before it was held
            break
        stream.close()
    try:
        with stream:
            yield stream
    finally:
        path.unlink(missing_ok=True)


def _remove_unheld(path: Path) -> None:
    """Remove a file that no process holds."""
    if sys.platform != "win32":
        with suppress(OSError), path.open("rb") as stream:  # another process holds it, or has removed it
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def scratch(rows: int, columns: int) -> NDArray[np.float32]:
    """Return an array (rows, columns) in a memory-mapped file under TMPDIR, which goes when the array does.

    Raises UserError where there is no room for it: a page of a mapped file that the disk cannot hold ends the process.
    """
    size = 4 * rows * columns
    try:
        with tempfile.TemporaryFile(prefix="oodbench-") as nameless:
            if sys.platform == "linux":
                os.posix_fallocate(nameless.fileno(), 0, size)
            return np.memmap(nameless, np.float32, "w+", shape=(rows, columns))
    except OSError as error:
        raise UserError(
            f"no temporary file of {size / 1e6:.1f} MB: {error.strerror}; set TMPDIR to a folder with room, "
            "or give more memory"
        ) from error
