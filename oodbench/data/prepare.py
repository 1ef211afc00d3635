"""From a data set's files to the images that a study sees: class protocol, format, hash, overlap."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from oodbench.api import Dataset, Images
from oodbench.data.colour import luma
from oodbench.data.corruptions import corrupted
from oodbench.errors import UserError
from oodbench.study.class_protocol import kept_classes
from oodbench.study.settings import ImageFormat
from oodbench.toolkit.image_files import Encoded, UndecodableError, of_each_class

SUBSET_SEED = 0  # of `per_class` and `limit`: the same images in every study
SHOWN = 3  # damaged images that a warning names
CHUNK = 1024  # images decoded and resized at a time


class LazyImages:
    """The images of a split in a study's format, decoded whenever they are read, for a disk that does not hold them.

    Indexed like an array (N, H, W, C) of uint8. Raises ValueError where an image is not what was prepared.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        images: Images,
        index: NDArray[np.int64],
        image: ImageFormat,
        corrupt: str | None,
        digest: NDArray[np.uint64] | None = None,
    ) -> None:
        self._x = images.x
        self._corrupt = corrupt
        self._index = index  # (N,) positions in the set
        self._image = image
        self._digest = digest  # (N, 2), to be held against
        self.shape = (len(index), image.size, image.size, image.channels)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, at: int | slice | NDArray[Any]) -> NDArray[np.uint8]:
        if isinstance(at, int | np.integer):
            found: NDArray[np.uint8] = self[np.array([at])][0]
            return found
        rows = np.arange(len(self))[at]
        if not len(rows):
            return np.zeros((0, *self.shape[1:]), dtype=np.uint8)
        x = _formatted(self._x, self._index[rows], self._image)
        if self._corrupt:
            x = to_format(corrupted(x, self._corrupt), self._image)  # of as many grey levels as before
        if self._digest is not None:
            other = (digests(x) != self._digest[rows]).any(1)
            if other.any():
                raise ValueError(
                    f"image {rows[other][0]} is decoded to other pixels than when the set was prepared: its file, or "
                    "the library that decodes it, is another one; delete the prepared set, and it is prepared again"
                )
        return x

    def chunks(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the images one piece after the other, each with the position of its first."""
        for start in range(0, len(self), CHUNK):
            yield start, self[start : start + CHUNK]


class Prepared(NamedTuple):
    """One split of a set in a study's format."""

    x: NDArray[np.uint8] | LazyImages  # (N, H, W, C), memory-mapped or decoded whenever they are read
    y: NDArray[np.int64]  # (N,) 0 ... number of classes - 1
    digest: NDArray[np.uint64]  # (N, 2) hash of each image
    classes: tuple[str, ...]
    content: str  # hash of x and y
    warnings: tuple[str, ...] = ()  # what the set said while it was prepared
    damaged: tuple[int, ...] = ()  # positions in the set of images that were left out, as nothing can decode them


def here(dataset: Dataset, root: Path) -> bool:
    """Return whether a set's files seem to be there, without making them be."""
    try:
        if needed := dataset.needed(root):
            return all(path.exists() for path in needed)
        if type(dataset).files is Dataset.files:
            return True  # generated, or it comes with a dependency
        return all(dataset.files(split, root) for split in dataset.splits)
    except (OSError, ValueError):  # a list that is missing or damaged
        return False


def prepare(
    dataset: Dataset,
    split: Literal["train", "test"],
    image: ImageFormat,
    root: Path,
    folder: Path,
    room: float = math.inf,
) -> dict[str, Any]:
    """Write x.npy, y.npy and digest.npy of a split into a folder, and return the facts about them.

    Where x.npy would take more than `room` bytes it is left out, and `lazy` is among the facts. So is, as `warnings`,
    what the set warns of (`warnings.warn`) while it is loaded. A set whose parameter `skip_damaged` is true goes
    without images that cannot be decoded, and their positions are among the facts as `damaged`; it is decoded twice.
    """
    images, heard = _loaded(dataset, split, root)
    if len(images.x) != len(images.y):
        raise ValueError(f"split {split}: {len(images.x)} images, {len(images.y)} labels")
    outside = set(np.unique(images.y).tolist()) - set(range(len(images.classes)))
    if outside:
        raise ValueError(f"split {split}: labels {sorted(outside)} of {len(images.classes)} classes")
    damaged = _damaged(dataset, images)
    heard += _said_of(damaged, len(images.y))
    index, y, classes = select(dataset, images, [*damaged])
    if not len(index):
        raise UserError(f"{dataset.label}: the split {split} has no images of these classes")
    _check_left(dataset, images, damaged, split)
    x = LazyImages(images, index, image, dataset.corrupt)
    lazy = x.nbytes > room
    out = None if lazy else np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.uint8, shape=x.shape)
    hasher, found = hashlib.sha256(repr((x.shape, y.shape)).encode()), []
    for start, chunk in _decoded(dataset, x):
        if out is not None:
            out[start : start + len(chunk)] = chunk
        hasher.update(chunk.data)
        found.append(digests(chunk))
    hasher.update(np.ascontiguousarray(y).data)
    if out is not None:
        out.flush()
    np.save(folder / "y.npy", y)
    np.save(folder / "digest.npy", digest := np.concatenate(found))
    heard += in_several_classes(digest, y, classes)
    facts = {
        "name": dataset.label,
        "split": split,
        "content": hasher.hexdigest()[:16],  # of x and y
        "classes": list(classes),
        "counts": np.bincount(y, minlength=len(classes)).tolist(),
    }
    given = {"lazy": x.nbytes if lazy else 0, "damaged": [*damaged], "warnings": heard}
    return facts | {name: value for name, value in given.items() if value}


def _loaded(dataset: Dataset, split: Literal["train", "test"], root: Path) -> tuple[Images, list[str]]:
    """Return a split, and what the set warns of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        images = dataset.load(split, root)
    return images, [str(each.message) for each in heard]


def opened(folder: Path, meta: dict[str, Any]) -> Prepared:
    """Return what `prepare` wrote."""
    x = np.load(folder / "x.npy", mmap_mode="r")
    y, digest = np.load(folder / "y.npy"), np.load(folder / "digest.npy")
    return Prepared(x, y, digest, tuple(meta["classes"]), meta["content"], *_facts(meta))


def _facts(meta: dict[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return what a set warned of, and which of its images were left out."""
    return tuple(meta.get("warnings", ())), tuple(meta.get("damaged", ()))


def reopened(
    dataset: Dataset,
    split: Literal["train", "test"],
    image: ImageFormat,
    root: Path,
    folder: Path,
    meta: dict[str, Any],
) -> Prepared:
    """Return what `prepare` wrote without x.npy: its images are decoded from the set's own files."""
    images, _ = _loaded(dataset, split, root)
    index, y, classes = select(dataset, images, meta.get("damaged", ()))
    digest = np.load(folder / "digest.npy")
    if not np.array_equal(y, np.load(folder / "y.npy")):
        raise ValueError(f"split {split}: it is not what was prepared; delete {folder}")
    x = LazyImages(images, index, image, dataset.corrupt, digest)
    return Prepared(x, y, digest, classes, meta["content"], *_facts(meta))


# ---- class protocols ------------------------------------------------------------------------------


def select(
    dataset: Dataset, images: Images, damaged: Sequence[int] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return the positions, new labels and class names left by `keep`, `only`, `without`, `per_class` and `limit`.

    What is damaged is left out before any is drawn.
    """
    y, classes = _of_kept(dataset, images)
    y[list(damaged)] = -1
    index = np.flatnonzero(y >= 0)
    if dataset.per_class is not None:
        index = index[of_each_class(y[index], SUBSET_SEED, lambda count: dataset.per_class or count)]
    if dataset.limit is not None:
        index = index[of_each_class(np.zeros_like(index), SUBSET_SEED, lambda count: dataset.limit or count)]
    return index, y[index], classes


def _of_kept(dataset: Dataset, images: Images) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the new label of each image, -1 where its class is not kept, and the names of the kept classes."""
    kept = kept_classes(dataset, images.classes)
    number = np.full(len(images.classes), -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    return number[np.asarray(images.y, dtype=np.int64)], tuple(images.classes[k] for k in kept)


# ---- damaged files ----------------------------------------------------------------------------------


def _damaged(dataset: Dataset, images: Images) -> dict[int, str]:
    """Return the positions of images of kept classes that cannot be decoded, and why, where a set skips them."""
    if not getattr(dataset, "skip_damaged", False):
        return {}
    candidates = np.flatnonzero(_of_kept(dataset, images)[0] >= 0).tolist()

    def why(i: int) -> str:
        try:
            images.x[i]
        except UndecodableError as error:
            return str(error)
        return ""

    threads = torch.get_num_threads() if isinstance(images.x, Encoded) and images.x.threads else 1
    with ThreadPoolExecutor(threads) as pool:
        found = zip(candidates, pool.map(why, candidates), strict=True)
        return {i: said for i, said in found if said}


def _said_of(damaged: dict[int, str], count: int) -> list[str]:
    """Return what is said of images that are left out of so many."""
    if not damaged:
        return []
    shown = "; ".join([*damaged.values()][:SHOWN]) + "; ..." * (len(damaged) > SHOWN)
    return [f"{len(damaged)} of {count} images cannot be decoded and are left out (`skip_damaged`): {shown}"]


def _check_left(dataset: Dataset, images: Images, damaged: dict[int, str], split: str) -> None:
    """Refuse a split of which a class has damaged images alone."""
    y, classes = _of_kept(dataset, images)
    left = np.delete(y, [*damaged])
    for k in np.unique(y[[*damaged]]):
        if k not in left:
            raise UserError(
                f"{dataset.label}: the split {split} has no image of the class '{classes[k]}' that can be decoded"
            )


def _decoded(dataset: Dataset, x: LazyImages) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the images piece by piece; where one is damaged, and the set could go without it, that is said."""
    try:
        yield from x.chunks()
    except UndecodableError as error:
        hint = "; `skip_damaged: true` leaves such images out, and says how many" * hasattr(dataset, "skip_damaged")
        raise ValueError(f"{error}{hint}") from error


# ---- format -----------------------------------------------------------------------------------------


def _formatted(
    x: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], rows: NDArray[np.int64], image: ImageFormat
) -> NDArray[np.uint8]:
    if isinstance(x, np.ndarray):
        return to_format(x[rows], image)

    def one(i: int) -> NDArray[np.uint8]:
        return to_format(np.asarray(x[i])[None], image)

    if isinstance(x, Encoded) and x.threads:  # decoders let other threads run meanwhile
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return np.concatenate(list(pool.map(one, rows.tolist())))
    return np.concatenate([one(i) for i in rows.tolist()])


def to_format(images: NDArray[np.uint8], image: ImageFormat) -> NDArray[np.uint8]:
    """Return images (B, H, W) or (B, H, W, C), uint8, as (B, size, size, channels) of a study's format."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(f"images are uint8 of shape (B, H, W) or (B, H, W, C), not {images.dtype} {images.shape}")
    x = torch.from_numpy(np.ascontiguousarray(images if images.ndim == 4 else images[..., None]))
    x = x.permute(0, 3, 1, 2).float()  # (B, C, H, W) in 0 ... 255
    x = _to_channels(x, image.channels)
    x = _resized(x, image)
    if image.levels < 256:
        top = image.levels - 1
        x = (x * top / 255).round() * 255 / top
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _to_channels(x: Tensor, channels: int) -> Tensor:
    have = x.shape[1]
    if have == channels:
        return x
    if have == 1:
        return x.expand(-1, channels, -1, -1)
    if have in (3, 4) and channels == 1:
        return luma(x[:, :3])
    if have == 4 and channels == 3:
        return x[:, :3]
    raise UserError(f"images of {have} channels cannot be turned into {channels}; set image.channels to {have}")


def _resized(x: Tensor, image: ImageFormat) -> Tensor:
    height, width = x.shape[2:]
    side = image.short or image.size
    if (height, width) == (side, side) == (image.size, image.size):
        return x
    if image.fit == "crop":
        shorter = min(height, width)  # the longer side is rounded down, as torchvision does
        height, width = side * height // shorter, side * width // shorter
    else:
        height = width = image.size
    if image.resize == "nearest":
        x = F.interpolate(x, (height, width), mode="nearest-exact")
    else:
        x = F.interpolate(x, (height, width), mode=image.resize, antialias=image.antialias, align_corners=False)
    top, left = round((height - image.size) / 2), round((width - image.size) / 2)
    return x[:, :, top : top + image.size, left : left + image.size]


# ---- overlap ----------------------------------------------------------------------------------------


def digests(x: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a 128-bit hash (N, 2) of each image; equal images have equal hashes."""
    found = b"".join(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in x)
    return np.frombuffer(found, dtype=np.uint64).reshape(len(x), 2).copy()


def in_several_classes(digest: NDArray[np.uint64], y: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    """Return what is said of equal images, by their digests (N, 2), that have several labels (N,)."""
    _, same = np.unique(digest, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([same, y], 1), axis=0)  # of an image's look and its classes, each once
    looks = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    if not len(looks):
        return []
    count, (one, other) = int(np.isin(same, looks).sum()), pairs[pairs[:, 0] == looks[0], 1][:2]
    at = [int(np.flatnonzero((same == looks[0]) & (y == k))[0]) for k in (one, other)]
    first = f"image {at[0]} ({classes[one]}) is image {at[1]} ({classes[other]})"
    return [f"{count} images are equal to one of another class of the set: {first}" + ", ..." * (len(looks) > 1)]


def held_out_split(y: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions (fit, val): a share of each class, at least one item, is held out for thresholds."""
    held = of_each_class(y, seed, lambda count: max(1, round(share * count)))
    return np.flatnonzero(~held), np.flatnonzero(held)
