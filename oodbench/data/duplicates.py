"""Images that two sets share, exactly or nearly: perceptual hashes, their search, and a second look at the pixels.

Candidates are pairs whose phash (64 bits; imagehash's, after hackerfactor.com's "Looks Like It") differs in at most
BITS bits. A pair is a near duplicate where, moreover, one image is the other under a change of brightness and
contrast, but for REST grey levels (root mean square), and the two correlate by at least CORRELATION, which images of
hardly any contrast do not by chance. Both are of the images as the study sees them, at its size.

Share of planted copies that are found (600 images each; %), and what is found where no copy was planted:

    copy                    Fashion-MNIST  digits, 28 px  digits, 8 px  photographs, 32 px  textures, 32 px
    JPEG, quality 75                 99.7          100.0          98.7                98.0            100.0
    JPEG, quality 50                 89.3          100.0           4.3                75.0             95.3
    brightness +10 %                100.0           99.8          99.8               100.0            100.0
    noise, 5 grey levels             99.3          100.0         100.0               100.0             95.7
    to 3/4 size and back              0.3          100.0           0.0                88.2             97.2
    to 1/2 size and back              0.0           98.7           0.0                32.2             79.3
    shifted by one pixel              0.0            0.0           0.0                10.0             12.2

    Fashion-MNIST, train and test: 37 of 10,000 test images (49 pairs) are reported. To the eye they are the same
    pictures up to a rest of 10; above it some are not (train 35999 and test 4146 have other prints). With the hash
    alone they would be 7,162 (711,490 pairs), with a correlation of 0.98 rather than REST 316 (597 pairs).
    Digits and letters, photographs and Fashion-MNIST against each other, digits train and test: none.

So what is found is a re-encoded, brighter or slightly noisy copy. A shifted, cropped or flipped one is another
image here, and so is one that was enlarged from half its size where the study's images are small and sharp.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

NUMBER = 1  # to be raised by hand where hashes or the rule change: what is remembered is then made again
BITS = 8  # of 64 that hashes of near duplicates differ in, at most
REST = 12.0  # grey levels between near duplicates, at most
CORRELATION = 0.9  # of their pixels, at least
QUERIES = 256  # hashes that are searched for at a time
SIDE, HASHED = 32, 1024  # pixels of an image as it is hashed, and how many are at a time
NUMBERS = 2**22  # pixels of a block of pairs
# Equal images in sets as they are published: one, its split, other, its split -> how many of other are in one. Counted
# over all images of both, 32 x 32.
KNOWN = {
    ("cifar10", "train", "cifar100", "test"): 1,
    ("cifar10", "test", "cifar100", "train"): 1,
    ("cifar10", "test", "cifar100", "test"): 1,
    ("cifar100", "train", "cifar10", "test"): 1,
    ("cifar100", "test", "cifar10", "train"): 1,
    ("cifar100", "test", "cifar10", "test"): 1,
    ("cifar100", "train", "cifar100", "test"): 10,
    ("cifar100", "test", "cifar100", "test"): 2,  # of its own, where lists cut the split in two
}
Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]


class IndexedImages(Protocol):
    """Images (N, H, W, C) of bytes: an array, or what decodes them when indexed."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, at: Any) -> Bytes: ...


class Pairs(NamedTuple):
    """The images of a set that have a duplicate in another, each with the closest one (the first, if several are)."""

    one: Indices  # (P,) positions in the other set
    other: Indices  # (P,) positions in the set, ascending
    bits: Indices  # (P,) in which their hashes differ
    rest: NDArray[np.float64]  # (P,) grey levels
    correlation: NDArray[np.float64]  # (P,)

    def at(self, rows: NDArray[Any]) -> Pairs:
        """Return some of the pairs, by positions or by a mask."""
        return Pairs(*(each[rows] for each in self))


# ---- exact ------------------------------------------------------------------------------------------------


def exact(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """Return positions in one and in other of equal images, from digests (N, 2): each of other once, the first of one.

    Positions in other ascend.
    """
    both = np.concatenate([one, other])
    order = np.lexsort(both.T)  # stable: of equal ones the first comes first
    new = np.ones(len(both), dtype=bool)
    new[1:] = (both[order[1:]] != both[order[:-1]]).any(1)
    first = np.empty_like(order)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(both)), 0))]
    there = np.flatnonzero(first[len(one) :] < len(one))
    return first[len(one) :][there], there


def repeated(digest: NDArray[np.uint64], y: Indices) -> tuple[Pairs, Pairs]:
    """Return the images of a set that an earlier one equals, each with the first such: of digests (N, 2), labels (N,).

    In the first pairs all images that look so have one label, in the second they have several: they contradict.
    """
    _, start, look = np.unique(digest, axis=0, return_index=True, return_inverse=True)
    look = look.reshape(-1)
    at = np.flatnonzero(start[look] < np.arange(len(y)))
    labels = np.unique(np.stack([look, y], 1), axis=0)  # of each look, each once
    several = (np.bincount(labels[:, 0]) > 1)[look[at]] if len(at) else np.zeros(0, dtype=bool)
    zero = np.zeros(len(at))
    found = Pairs(start[look[at]], at, zero.astype(np.int64), zero, zero + 1)
    return found.at(~several), found.at(several)


def known(one: str, split: str, other: str, other_split: str) -> int:
    """Return how many equal images two published sets share, by their labels; 0 where none are known."""
    names = [re.split(r"[ (]", label)[0] for label in (one, other)]
    return KNOWN.get((names[0], split, names[1], other_split), 0)


# ---- near -------------------------------------------------------------------------------------------------


def hashes(x: IndexedImages) -> Bytes:
    """Return the phash of images (N, H, W, C) as bytes (N, 8), bit for bit imagehash's: 20 us an image of 32 x 32."""
    parts = [_bits(_grey(x[start : start + HASHED])) for start in range(0, len(x), HASHED)]
    return np.packbits(np.concatenate(parts), axis=1) if parts else np.zeros((0, 8), dtype=np.uint8)


def _grey(x: Bytes) -> Bytes:
    """Return images (N, H, W, C) as Pillow makes them grey and of SIDE x SIDE (N, SIDE, SIDE)."""
    if x.shape[3] == 3:
        red, green, blue = np.moveaxis(x.astype(np.uint32), 3, 0)
        grey: Bytes = ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)  # Pillow's mode L
    else:
        grey = x.mean(3).round().astype(np.uint8)
    if grey.shape[1:] == (SIDE, SIDE):
        return grey
    pictures = (Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for each in grey)
    return np.stack([np.asarray(each) for each in pictures])


def _bits(grey: Bytes) -> NDArray[np.bool_]:
    """Return which of the 8 x 8 lowest frequencies of images (N, SIDE, SIDE) are above their median (N, 64)."""
    from scipy.fftpack import dct

    low = dct(dct(grey, axis=1)[:, :8], axis=2)[:, :, :8].reshape(len(grey), 64)
    found: NDArray[np.bool_] = low > np.median(low, axis=1, keepdims=True)
    return found


def near(x: IndexedImages, y: IndexedImages, x_hashes: Bytes, y_hashes: Bytes) -> Pairs:
    """Return the images of y (M, H, W, C) that have a near duplicate in x (N, H, W, C), given the hashes of both.

    Equal images are near, too.
    """
    parts = [_like(x, y, *each) for each in candidates(x_hashes, y_hashes)]
    found = Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True))) if parts else _none()
    order = np.lexsort((found.one, found.rest, found.other))
    _, first = np.unique(found.other[order], return_index=True)
    return found.at(order[first])


def _none() -> Pairs:
    whole, real = np.zeros(0, dtype=np.int64), np.zeros(0)
    return Pairs(whole, whole, whole, real, real)


def candidates(x: Bytes, y: Bytes, library: str = "") -> Iterator[tuple[Indices, Indices, Indices]]:
    """Yield positions in x (N, 8) and in y (M, 8) of hashes that differ in at most BITS bits, and in how many.

    faiss searches where it is there, six times as fast as numpy: 0.7 s and 4 s for 60,000 x 10,000 on a CPU core.
    """
    library = library or ("faiss" if find_spec("faiss") else "numpy")
    return _by_faiss(x, y) if library == "faiss" else _by_numpy(x, y)


def _by_faiss(x: Bytes, y: Bytes) -> Iterator[tuple[Indices, Indices, Indices]]:
    import faiss

    index = faiss.IndexBinaryFlat(64)
    index.add(np.ascontiguousarray(x))
    for start in range(0, len(y), QUERIES):
        ends, bits, at = index.range_search(np.ascontiguousarray(y[start : start + QUERIES]), BITS + 1)  # below it
        counts = (ends[1:] - ends[:-1]).astype(np.int64)
        rows = np.repeat(np.arange(start, start + len(counts)), counts)
        yield at.astype(np.int64), rows, bits.astype(np.int64)


def _by_numpy(x: Bytes, y: Bytes) -> Iterator[tuple[Indices, Indices, Indices]]:
    one, other = (np.ascontiguousarray(each).view(np.uint64) for each in (x, y))  # (N, 1), (M, 1)
    for start in range(0, len(y), QUERIES):
        bits = np.bitwise_count(other[start : start + QUERIES] ^ one.T)  # (QUERIES, N)
        row, at = np.nonzero(bits <= BITS)
        yield at, row + start, bits[row, at].astype(np.int64)


def _like(x: IndexedImages, y: IndexedImages, one: Indices, other: Indices, bits: Indices) -> Pairs:
    """Return the candidates that are near duplicates."""
    step = max(1, NUMBERS // int(np.prod(x.shape[1:])))
    parts = [compared(x[one[s : s + step]], y[other[s : s + step]]) for s in range(0, len(one), step)]
    if not parts:
        return _none()
    rest, correlation = (np.concatenate(each) for each in zip(*parts, strict=True))
    kept = (rest <= REST) & (correlation >= CORRELATION)
    return Pairs(one, other, bits, rest, correlation).at(kept)


def compared(a: Bytes, b: Bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how unlike images a and b (P, H, W, C) are, pair by pair, in grey levels, and their correlation (P,).

    The first is the root mean square of what is left of the image of more contrast when gain and offset of the other
    are those of least squares. The correlation with an image of one colour is 0.
    """
    f, g = (torch.from_numpy(np.ascontiguousarray(each)).flatten(1).float() for each in (a, b))
    f, g = (each - each.mean(1, keepdim=True) for each in (f, g))
    ff, gg, fg = ((p * q).mean(1).double() for p, q in ((f, f), (g, g), (f, g)))
    correlation = fg / (ff * gg).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    rest = (torch.maximum(ff, gg) * (1 - correlation.square()).clamp_min(0)).sqrt()
    return rest.numpy(), correlation.numpy()
