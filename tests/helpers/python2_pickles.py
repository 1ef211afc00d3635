"""Pickles as Python 2 wrote them, which is how CIFAR is published."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np


def py2(value: Any) -> bytes:
    """Return the opcodes by which Python 2's cPickle (protocol 2) writes a value: its str are bytes."""
    if isinstance(value, str):
        text = value.encode("latin1")
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(py2, value)) + b"e"
    if isinstance(value, np.ndarray):
        fortran = not value.flags.c_contiguous
        kind = b"cnumpy\ndtype\n(" + py2(value.dtype.str[1:]) + py2(0) + py2(1) + b"tR"
        kind += b"(" + py2(3) + py2(value.dtype.str[0]) + b"NNN" + py2(-1) + py2(-1) + py2(0) + b"tb"
        content = value.tobytes("F" if fortran else "C")
        shape = b"(" + b"".join(map(py2, value.shape)) + b"t"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + py2(0) + b"t" + py2("b") + b"tR"
        state = b"(" + py2(1) + shape + kind + (b"\x88" if fortran else b"\x89")
        return made + state + b"T" + struct.pack("<i", len(content)) + content + b"tb"
    assert isinstance(value, dict)
    return b"}(" + b"".join(py2(key) + py2(each) for key, each in value.items()) + b"u"


def write_py2(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x80\x02" + py2(value) + b".")
