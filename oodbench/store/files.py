"""Files that are there whole or not at all, and files without a name."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oodbench.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    Path(name).chmod(0o644)
    Path(name).rename(path)


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
