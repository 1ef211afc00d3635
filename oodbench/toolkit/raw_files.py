"""The files of data sets, read without running anything that is in them."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import pickletools
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodbench.errors import of_machine

# What decoders raise on bytes that are cut short or something else.
DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError),
    *(RecursionError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError),
    *(pickle.UnpicklingError, struct.error, zlib.error),
)

MAT = ("cell", "char", "double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
RATIO = 200  # what is packed unpacks to so many times its own size at most: text to some 10, images to 1, bombs to 1000


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise ValueError with the name of the file for whatever a decoder makes of its bytes."""
    try:
        yield
    except DAMAGE as error:
        if of_machine(error):
            raise
        raise ValueError(f"{path} is damaged: {error or type(error).__name__}") from error


def missing(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not path.is_file()]


def present(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


# ---- reading --------------------------------------------------------------------------------------


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return an IDX file of bytes, gzipped or not; raises ValueError where it is cut short or something else."""
    content = path.read_bytes()
    with reading(path):
        raw = _unpacked(content) if path.suffix == ".gz" else content
    if raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path} is not an IDX file of bytes")
    shape = tuple(np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4).tolist())
    start = 4 + 4 * raw[3]
    if len(raw) - start != math.prod(shape):
        raise ValueError(f"{path} is damaged: {len(raw) - start} bytes of {math.prod(shape)}")
    with reading(path):
        return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def _unpacked(content: bytes) -> bytes:
    most = RATIO * max(1 << 20, len(content))
    raw = gzip.GzipFile(fileobj=io.BytesIO(content)).read(most + 1)
    if len(raw) > most:
        raise ValueError(f"it unpacks to more than {RATIO} times its size")
    return raw


def read_mat(path: Path, *names: str) -> list[Any]:
    """Return arrays of a .mat file by name; raises ValueError where it is cut short, something else, or lacks one."""
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    content = path.read_bytes()
    with reading(path):
        most = RATIO * max(1 << 20, len(content))
        _check_cells(content, most)
        try:
            for name, shape, kind in whosmat(io.BytesIO(content)):
                if name in names and (kind not in MAT or 8 * math.prod(shape) > most):  # scipy sets the memory aside
                    raise ValueError(f"{name} is said to be a {kind} of the shape {shape}")
            found = loadmat(io.BytesIO(content), variable_names=names)
        except MatReadError as error:
            raise ValueError(str(error)) from error
        return [found[name] for name in names]


MATRIX, PACKED, CELL, NUMBERS = 14, 15, 1, {4, *range(6, 16)}  # of MAT-files of version 5; NUMBERS and texts


def _check_cells(content: bytes, most: int) -> None:
    """Refuse variables that unpack to more than so many bytes, and cells of anything but numbers and texts.

    scipy unpacks what it is asked for, and follows cells in cells as deep as they lie. Other versions have neither.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        return
    for kind, variable in _variables(content, order, most):
        if kind == MATRIX and _class(variable, order) == CELL:
            _flags, _shape, _name, *inside = _elements(variable, order)
            if any(what != MATRIX or _class(each, order) not in NUMBERS for what, each in inside):
                raise ValueError("it has a cell of something else than numbers and texts")


def _variables(content: bytes, order: str, most: int) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of a file, those that are packed unpacked."""
    for kind, element in _elements(content[128:], order):
        if kind != PACKED:
            yield kind, element
            continue
        raw = zlib.decompressobj().decompress(element, most + 1)
        if len(raw) > most:
            raise ValueError(f"it unpacks to more than {RATIO} times its size")
        yield from _elements(raw, order)


def _class(matrix: bytes, order: str) -> int:
    """Return the class of a matrix, in its flags; an empty matrix may have none."""
    return int(struct.unpack_from(f"{order}I", matrix, 8)[0]) & 255 if matrix else min(NUMBERS)


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements that follow each other in a MAT-file of version 5."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        small, start = kind >> 16, at + 8
        if small:  # a size of at most 4, and the content in place of a size
            kind, size, start = kind & 0xFFFF, small, at + 4
        yield kind, content[start : start + size]
        at = at + 8 if small else start + size + (-size % 8 if kind != PACKED else 0)


def read_pickled(path: Path) -> dict[str, Any]:
    """Return a pickled dict, its arrays of bytes as uint8, whichever Python and NumPy wrote it.

    Nothing that the file names is imported or called: a numpy array is read from what it says of itself, any
    other name is refused. Raises ValueError where the file is cut short, something else, or names anything else.
    """
    content = path.read_bytes()
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in strings, which damage makes
        _check_opcodes(content)
        found = _Unpickler(content).load()
        names = [key.decode("latin1") if isinstance(key, bytes) else key for key in found]
        _check(all(isinstance(name, str) for name in names), "a key is no text")
        return {name: _array(v) if isinstance(v, _Said) else v for name, v in zip(names, found.values(), strict=True)}


def read_rows(paths: Sequence[Path], key: str, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (N, 32, 32, 3) and labels (N,) of pickled batches: a row is 32 x 32 red, then green, then blue."""
    x, y = zip(*(_read_batch(path, key, classes) for path in paths), strict=True)
    return np.concatenate(x), np.concatenate(y)


def _read_batch(path: Path, key: str, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = read_pickled(path)
    with reading(path):
        if not {"data", key} <= batch.keys():
            raise ValueError(f"it has {', '.join(batch) or 'nothing'}, and not data and {key}")
        x = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        if batch["data"].shape != (len(x), 3 * 32 * 32):
            raise ValueError(f"data of shape {batch['data'].shape}")
        if not isinstance(batch[key], list) or not all(type(label) is int for label in batch[key]):
            raise ValueError(f"{key} are no list of numbers")
    return x, checked_labels(path, batch[key], len(x), classes)


# What arrays, texts, numbers, lists, tuples and dicts are written with. Others copy, drop or make what none of them is.
OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
}
TEXTS = {each for each in OPCODES if "STRING" in each or "UNICODE" in each or "BYTES" in each}
Kind = Literal["text", "made", ""]  # made: by a call


def _check_opcodes(content: bytes) -> None:
    """Refuse what makes the unpickler set memory aside that the file does not fill, hash no text, change functions.

    It follows the stack as `pickletools.dis` does: a tuple as a key may lie as deep as the file is long.
    """
    stack: list[Kind] = []
    marks: list[int] = []
    memo: dict[int, Kind] = {}
    frame = 0  # where the current one ends
    for opcode, argument, at in pickletools.genops(content):
        name, number = opcode.name, argument if isinstance(argument, int) else 0
        if name not in OPCODES:
            raise pickle.UnpicklingError(f"it has the opcode {name}, which no array, text, number, list or dict needs")
        if frame and at is not None and at >= frame:
            _check(at == frame, "a frame ends inside of an opcode")
            frame = 0
        if name == "FRAME" and at is not None:
            _check(not frame, "a frame begins in another")
            frame = at + 9 + number
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[number])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            _check(number <= len(content), f"it numbers {number} objects in {len(content)} bytes")
            memo[len(memo) if name == "MEMOIZE" else number] = stack[-1]
        else:
            _step(name, opcode, stack, marks)


def _step(name: str, opcode: pickletools.OpcodeInfo, stack: list[Kind], marks: list[int]) -> None:
    """Let one opcode take what it takes from the stack, and leave what it makes."""
    before = opcode.stack_before
    if pickletools.markobject in before:
        start = marks.pop()
        taken = stack[start:]
        del stack[start - before.index(pickletools.markobject) :]
    else:
        start = len(stack) - len(before)
        _check(start >= 0, "it takes more than there is")
        taken = stack[start:]
        del stack[start:]
    if name in ("SETITEM", "SETITEMS", "DICT"):
        _check("" not in (taken[1::2] if name == "SETITEM" else taken[::2]), "a key is no text")
    if name == "BUILD":
        _check(taken[0] == "made", "it changes what it has not made")
    made: Kind = "made" if name in ("REDUCE", "BUILD") else "text" if name in TEXTS else ""
    stack.extend([made] * len(opcode.stack_after))


def _check(holds: bool, said: str) -> None:
    if not holds:
        raise pickle.UnpicklingError(said)


class _Said:
    """An array, or its type, as a pickle describes it: what to make it of, and its state."""

    def __init__(self, *made_of: Any) -> None:
        self.made_of = made_of

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Buffer(_Said):
    """An array that protocol 5 describes: its content, its type, its shape, C or F."""

    @property
    def state(self) -> tuple[Any, ...]:
        content, kind, shape, order = self.made_of
        return None, shape, kind, order == "F", content


class _Unpickler(pickle.Unpickler):
    NAMES: ClassVar[dict[str, Callable[..., Any]]] = {
        **dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"), _Said),
        "numpy.core.numeric._frombuffer": _Buffer,
    }
    BYTES = frozenset({"_codecs.encode", "__builtin__.bytes", "builtins.bytes"})  # as Python 3 writes them for Python 2

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._room = len(content)

    def _encoded(self, text: str = "", encoding: str = "") -> bytes:
        self._room -= len(text)
        _check(self._room >= 0, "it makes more bytes than it holds")
        return text.encode("latin1")

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if f"{module}.{name}" in self.BYTES:
            return self._encoded
        found = self.NAMES.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")  # NumPy 2, NumPy 1
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return found


def _array(said: _Said) -> NDArray[np.uint8]:
    _, shape, kind, fortran, content = said.state
    if kind.made_of[0] not in (b"u1", "u1"):
        raise ValueError("an array of something else than bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


def checked_labels(path: Path, labels: Sequence[int] | NDArray[Any], count: int, classes: int) -> NDArray[np.int64]:
    """Return the labels of a file as int64; raises ValueError unless they number `count` images by class."""
    with reading(path):
        y = np.asarray(labels)
        if y.shape != (count,) or y.dtype.kind not in "iu":
            raise ValueError(f"labels of shape {y.shape}, {y.dtype}, for {count} images")
        if count and not 0 <= y.min() <= y.max() < classes:
            raise ValueError(f"labels from {y.min()} to {y.max()} of {classes} classes")
        return y.astype(np.int64)
