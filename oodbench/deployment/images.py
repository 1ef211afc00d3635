"""From files, folders and arrays to images in a detector's format, by the functions that data sets take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodbench.data.prepare import to_format
from oodbench.errors import UserError, of_machine
from oodbench.study.settings import ImageFormat
from oodbench.toolkit.image_files import Decoding, below, decode

ARRAYS = (".npy", ".npz")
NAME = "x"  # of the array of images in an .npz of several
Images = NDArray[np.uint8]
Failed = Callable[[str, str], None]  # hears what is no image, and why


class Block(NamedTuple):
    """Images in a detector's format, and where each is from."""

    files: list[str]
    positions: list[int | None]  # in an array of images; None: the file is one image
    x: Images  # (B, H, W, C)


class _Source(NamedTuple):
    """An image that is not read yet."""

    file: str
    position: int | None
    read: Callable[[], Images]  # (H, W) or (H, W, C)


def blocks(paths: Iterable[Path], image: ImageFormat, how: Decoding, size: int, failed: Failed) -> Iterator[Block]:
    """Yield the images of files, of folders at any depth and of arrays, `size` at a time in their order.

    What is no image is told to `failed`, and the others are read.
    """
    waiting: list[tuple[_Source, Images]] = []
    sources = _sources(paths, how, failed)
    with ThreadPoolExecutor() as pool:
        while some := [*islice(sources, size)]:
            for each, found in zip(some, pool.map(partial(_read, image=image), some), strict=True):
                if isinstance(found, str):
                    failed(each.file if each.position is None else f"{each.file}[{each.position}]", found)
                else:
                    waiting.append((each, found))
            while len(waiting) >= size:
                yield _block(waiting[:size])
                del waiting[:size]
    if waiting:
        yield _block(waiting)


def of_array(x: Any, image: ImageFormat, size: int, name: str = "images") -> Iterator[Images]:
    """Yield images (N, H, W) or (N, H, W, C) of uint8 in a format, `size` at a time. Raises UserError on others."""
    try:
        found = _checked(np.asarray(x))
        for start in range(0, len(found), size):
            yield to_format(np.array(found[start : start + size]), image)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _block(found: Sequence[tuple[_Source, Images]]) -> Block:
    sources, images = zip(*found, strict=True)
    return Block([each.file for each in sources], [each.position for each in sources], np.stack(images))


def _read(source: _Source, image: ImageFormat) -> Images | str:
    """Return an image in a format (H, W, C), or why it is none."""
    try:
        found: Images = to_format(source.read()[None], image)[0]
        return found
    except (ValueError, UserError) as error:
        return str(error).removeprefix(f"{source.file} ").removeprefix(f"{source.file}: ")
    except OSError as error:
        return error.strerror or str(error)


def _sources(paths: Iterable[Path], how: Decoding, failed: Failed) -> Iterator[_Source]:
    for path in paths:
        try:
            files = below(path) if path.is_dir() else [path]
        except (OSError, ValueError) as error:
            failed(str(path), str(error))
            continue
        if not files:
            failed(str(path), "the folder holds no images")
        for file in files:
            if file.suffix.lower() in ARRAYS and not path.is_dir():
                yield from _of_array_file(file, failed)
            else:
                yield _Source(str(file), None, partial(_decoded, file, how))


def _decoded(file: Path, how: Decoding) -> Images:
    if not file.is_file():
        raise ValueError("there is no such file" if not file.exists() else "it is no regular file")
    return decode(file.read_bytes(), str(file), how)


def _of_array_file(file: Path, failed: Failed) -> Iterator[_Source]:
    try:
        x = _checked(_loaded(file))
    except Exception as error:  # damaged files make numpy raise whatever it met
        if of_machine(error) and not isinstance(error, FileNotFoundError):
            raise
        failed(str(file), str(error) if isinstance(error, ValueError) else "it cannot be read as an array of NumPy")
        return
    for i in range(len(x)):
        yield _Source(str(file), i, partial(_item, x, i))


def _item(x: Images, i: int) -> Images:
    return np.array(x[i])


def _loaded(file: Path) -> NDArray[Any]:
    if not file.is_file():
        raise ValueError("there is no such file")
    found = np.load(file, mmap_mode="r", allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found:
        names = list(found.files)
        if NAME not in names and len(names) != 1:
            raise ValueError(
                f"it holds {', '.join(names) or 'nothing'}; wanted is one array, or one of the name {NAME}"
            )
        array: NDArray[Any] = found[NAME if NAME in names else names[0]]
        return array


def _checked(x: NDArray[Any]) -> Images:
    """Return an array of images (N, H, W) or (N, H, W, C). Raises ValueError where it is none, or might be another."""
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or 0 in x.shape[1:]:
        raise ValueError(f"wanted are images of uint8, (N, H, W) or (N, H, W, C), not {x.dtype} {x.shape}")
    if x.ndim == 3 and x.shape[2] in (3, 4):
        raise ValueError(f"{x.shape} is one image of colours or many grey ones: give x[None], or x[..., None]")
    return x
