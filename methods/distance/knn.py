"""Distance to the k-th nearest training feature (Sun et al. 2022, arXiv 2204.06507), exact.

The paper takes unit-norm penultimate features (a unit space) and k = 50 for CIFAR-10. Neighbours are
found by a matrix product on centred features, or by faiss's flat index, both float32; where that has too few
digits, because clusters are far apart, the product is made again in float64. The k-th distance is then computed from
the difference of the two vectors in float64, so that it has full precision. Settings that
differ in k share one search. Training features may be a mapped file: they are read block by block, never copied.

`sample` keeps so many training features, drawn once with a fixed seed, for banks too large to search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores, Size
from oodbench.toolkit.linear_algebra import BLOCK

ITEMS = 2**25  # bytes of the items that share a pass over the training features
QUERIES = 1024  # items of a matrix product
BANK = 2**27  # bytes of a block of training features; few blocks are few selections
PRODUCTS = 2**28  # bytes of the products of the two, which bound a block, too
WIDTH = 4  # columns: rows of whole 16 bytes
GROUP = 16  # distances of which only the least is looked at first
DIGITS = 2**-10  # of the squared lengths about the mean; smaller squared distances are not told apart in float32
Search = Callable[[Tensor, int], Tensor]  # x (M, D), k -> positions (M, k) of the nearest, nearest first


class KNN(Distance):
    """KNN: Euclidean distance to the k-th nearest training feature."""

    k: Size = 50  # which neighbour, 1 = the nearest
    library: Literal["torch", "faiss"] = "torch"  # that finds neighbours; faiss needs an extra of the package
    sample: Size | None = None  # training features searched; all of them where there are no more

    clusters = False

    @property
    def requires(self) -> dict[str, str]:
        return {"faiss": "pip install 'oodbench[cpu]' or 'oodbench[gpu]'"} if self.library == "faiss" else {}

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        score = self.fit_together([self], f, c)
        return lambda x: score(x)[0]

    @classmethod
    def fit_together(cls, distances: Sequence[Self], f: Tensor, c: Clusters) -> Callable[[Tensor], list[Scores]]:
        alike: dict[tuple[str, int | None], list[Self]] = {}
        for each in distances:
            alike.setdefault((each.library, each.sample), []).append(each)
        searches = {key: _scorer(several, several[0]._bank(f)) for key, several in alike.items()}

        def score(x: Tensor) -> list[Scores]:
            found = {key: search(x) for key, search in searches.items()}
            return [found[each.library, each.sample][each.k] for each in distances]

        return score

    def leave_one_out(self, f: Tensor, c: Clusters) -> Scores:
        bank, position = self._bank(f), self._positions(f)
        if self.k >= len(bank):
            raise ValueError(f"{self.label} of {len(bank) - 1} other training items")
        found = self._search(bank)(f, self.k + 1)  # (N, k + 1), the item itself mostly among them
        itself = position[found] == torch.arange(len(f), device=f.device)[:, None]
        itself[:, -1] |= ~itself.any(1)  # it is not in the sample, or did not find itself among many duplicates
        return _scores(f, bank, found[~itself].view(len(f), self.k)[:, -1])

    def _positions(self, f: Tensor) -> Tensor:
        """Return the positions (S,) of the training features that are searched."""
        if self.sample is None or self.sample >= len(f):
            return torch.arange(len(f), device=f.device)
        drawn = torch.randperm(len(f), generator=torch.Generator().manual_seed(0))[: self.sample]
        return drawn.sort().values.to(f.device)

    def _bank(self, f: Tensor) -> Tensor:
        return f if self.sample is None else f[self._positions(f)]

    def _search(self, f: Tensor) -> Search:
        return _faiss(f) if self.library == "faiss" else _exact(f)


def _scorer(alike: Sequence[KNN], f: Tensor) -> Callable[[Tensor], dict[int, Scores]]:
    """Return a function from x to the scores under each k, of settings that differ in nothing else."""
    for each in alike:
        if each.k > len(f):
            raise ValueError(f"{each.name}(k={each.k}) of {len(f)} training items")
    search, most = alike[0]._search(f), max(each.k for each in alike)

    def score(x: Tensor) -> dict[int, Scores]:
        found = search(x, most)
        return {each.k: _scores(x, f, found[:, each.k - 1]) for each in alike}

    return score


def _scores(x: Tensor, f: Tensor, neighbour: Tensor) -> Scores:
    pairs = zip(x.split(BLOCK), neighbour.split(BLOCK), strict=True)
    score = torch.cat([(rows.double() - f.index_select(0, nearest)).norm(dim=1) for rows, nearest in pairs])
    return Scores(score, torch.zeros_like(neighbour))


def _exact(f: Tensor) -> Search:
    middle = f.mean(0)  # any point near the features does, so float32 is enough
    items, room = max(QUERIES, ITEMS // f.shape[1] // f.element_size()), _Room()

    def found(x: Tensor, k: int) -> Tensor:
        near = _nearest(x - middle, f, middle, k, room)
        close = _too_close(x, f.index_select(0, near[:, -1]), middle)
        if close.any():
            near[close] = _nearest(x[close] - middle.double(), f, middle.double(), k, _Room())
        return near

    return lambda x, k: torch.cat([found(rows, k) for rows in x.split(items)])


class _Room:
    """Memory that one search leaves to the next: to take it anew each time costs a twentieth of the time on the CPU."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, numbers: int, like: Tensor) -> Tensor:
        """Return so many numbers (numbers,), of any value, in the precision and on the device of a tensor."""
        if name not in self._held or len(self._held[name]) < numbers:
            self._held[name] = like.new_empty(numbers)
        return self._held[name][:numbers]


def _too_close(x: Tensor, p: Tensor, middle: Tensor) -> Tensor:
    """Return for which pairs of x and p (M, D) squares about a point leave too few digits of their distance (M,)."""
    lengths = (x - middle).square().sum(1) + (p - middle).square().sum(1)
    return (x - p).square().sum(1) < DIGITS * lengths


def _nearest(x: Tensor, f: Tensor, middle: Tensor, k: int, room: _Room) -> Tensor:
    """Return positions (M, k) of the features f (N, D) nearest to x + middle, nearest first.

    What is compared is |p|^2 / 2 - x.p for the centred p of f: half the squared distance, less |x|^2 / 2. It is
    one matrix product, of -x with a column of ones and p with a column of |p|^2 / 2, and of zeros up to a width that
    fast products on a CUDA device have.
    """
    x = torch.cat([-x, torch.ones_like(x[:, :1]), x.new_zeros(len(x), -(x.shape[1] + 1) % WIDTH)], 1)
    size = _features_at_a_time(f, x.element_size())
    bank = room.take("bank", size * x.shape[1], x).view(size, -1)
    products = room.take("products", min(QUERIES, len(x)) * size, x)
    best: list[tuple[Tensor, Tensor]] = []  # of each block of queries: values (B, k), unordered, and positions
    for start in range(0, len(f), size):
        p = _centred(f[start : start + size], middle, bank)
        for i, rows in enumerate(x.split(QUERIES)):
            out = products[: len(rows) * len(p)].view(len(rows), len(p))
            value, place = _least(torch.mm(rows, p.T, out=out), k)
            place += start
            if start:
                value, order = _least(torch.cat([best[i][0], value], 1), k)
                best[i] = value, torch.cat([best[i][1], place], 1).gather(1, order)
            else:
                best.append((value, place))
    return torch.cat([place.gather(1, value.argsort(1)) for value, place in best])


def _features_at_a_time(f: Tensor, item: int) -> int:
    """Return how many of the features f (N, D) of `item` bytes a number a block has: blocks are of about one size."""
    most = max(GROUP, min(BANK // f.shape[1], PRODUCTS // QUERIES) // item)
    blocks = -(-len(f) // most)
    return -(-len(f) // (blocks * GROUP)) * GROUP


def _centred(f: Tensor, middle: Tensor, bank: Tensor) -> Tensor:
    """Fill the first rows of bank (., D + 1 + zeros) with p = f - middle and |p|^2 / 2, up to a number of groups.

    The rows beyond f are infinitely far away.
    """
    dim = f.shape[1]
    p = torch.sub(f, middle, out=bank[: len(f), :dim])
    bank[: len(f), dim] = torch.linalg.vector_norm(p, dim=1).square_() / 2
    beyond = bank[len(f) : len(f) + -len(f) % GROUP]
    beyond[:, :dim] = 0
    beyond[:, dim] = torch.inf
    filled = bank[: len(f) + len(beyond)]
    filled[:, dim + 1 :] = 0
    return filled


def _least(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k least of each row of values (B, W) and where they are, in no order; all where W < k.

    They lie in the k groups of least minima: one pass over everything, and a selection among few.
    """
    width = values.shape[1]
    groups = width // GROUP
    if width % GROUP or groups < 2 * k:
        plain = values.topk(min(k, width), largest=False, sorted=False)
        return plain.values, plain.indices
    grouped = values.unflatten(1, (GROUP, groups))
    group = grouped.amin(1).topk(k, largest=False, sorted=False).indices  # (B, k)
    candidates = grouped.gather(2, group[:, None].expand(-1, GROUP, -1)).flatten(1)
    found = candidates.topk(k, largest=False, sorted=False)
    return found.values, found.indices // k * groups + group.gather(1, found.indices % k)


def _faiss(f: Tensor) -> Search:
    import faiss

    index: faiss.Index = faiss.IndexFlatL2(f.shape[1])
    if f.is_cuda and getattr(faiss, "get_num_gpus", int)():  # faiss-cpu has no such function
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), f.get_device(), index)
    middle = f.mean(0)

    def centred(x: Tensor) -> NDArray[np.float32]:
        return np.asarray((x - middle).cpu())

    index.add(centred(f))
    return lambda x, k: torch.as_tensor(index.search(centred(x), k)[1], device=x.device)
