"""What fails while files are read is told apart: the machine, whose faults pass, and the bytes, which are damaged."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oodbench.data import feature_files
from oodbench.study.registry import Registry
from oodbench.toolkit import image_files, raw_files
from oodbench.training import weights

FULL = [OSError(errno.EMFILE, "Too many open files"), MemoryError("Unable to allocate 80 GiB")]


def _arrays(file: Path) -> None:
    Registry().load("dataset", "arrays")(path=str(file), test_share=1.0).load("test", file.parent)


READERS: dict[str, tuple[Callable[[Path], Any], Any, str]] = {  # and what of a library each calls
    "i.png": (lambda file: image_files.decode(file.read_bytes(), str(file)), Image, "open"),
    "a.npz": (_arrays, np, "load"),
    "x.gz": (raw_files.read_idx, raw_files.gzip, "GzipFile"),
    "f.npy": (feature_files.read, np, "load"),
    "w.pt": (weights.read, torch, "load"),
}


@pytest.mark.parametrize("error", FULL, ids=["files", "memory"])
@pytest.mark.parametrize("name", READERS)
def test_a_machine_that_has_no_more_is_not_told_as_damage(
    name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    read, library, function = READERS[name]
    (tmp_path / name).write_bytes(b"what is in it is never seen")
    monkeypatch.setattr(library, function, fails)
    with pytest.raises(type(error)) as told:
        read(tmp_path / name)
    assert told.value is error


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_files, "RATIO", 2)
    for count, said in (
        ((2 << 20) - 7, "is not an IDX file"),
        ((2 << 20) + 1, "is damaged: it unpacks to more than 2"),
    ):
        (tmp_path / "x.gz").write_bytes(raw_files.gzip.compress(bytes(count)))
        with pytest.raises(ValueError, match=said):
            raw_files.read_idx(tmp_path / "x.gz")
