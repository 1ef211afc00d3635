"""Distance to the k-th nearest training feature (Sun et al. 2022, arXiv 2204.06507), exact.

The paper takes unit-norm penultimate features (a unit space) and k = 50 for CIFAR-10. Neighbours are
found by a matrix product on centred features, or by faiss's flat index; the k-th distance is then
computed from the difference of the two vectors, so that it has full precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores, Size
from oodbench.geometry import squared_distances_to

BLOCK = 512  # queries at a time: a block of distances is BLOCK x N float32
Search = Callable[[Tensor, int], Tensor]  # x (M, D), k -> positions (M, k) of the nearest, nearest first


class KNN(Distance):
    """KNN: Euclidean distance to the k-th nearest training feature."""

    k: Size = 50
    library: Literal["torch", "faiss"] = "torch"

    clusters = False

    @property
    def requires(self) -> dict[str, str]:
        return {"faiss": "pip install 'oodbench[cpu]' or 'oodbench[gpu]'"} if self.library == "faiss" else {}

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        if self.k > len(f):
            raise ValueError(f"knn(k={self.k}) of {len(f)} training items")
        search = self._search(f)
        return lambda x: _scores(x, f, search(x, self.k)[:, -1])

    def leave_one_out(self, f: Tensor, c: Clusters) -> Scores:
        if self.k >= len(f):
            raise ValueError(f"knn(k={self.k}) of {len(f) - 1} other training items")
        found = self._search(f)(f, self.k + 1)  # (N, k + 1), the item itself mostly among them
        itself = found == torch.arange(len(f), device=f.device)[:, None]
        itself[:, -1] |= ~itself.any(1)  # among many duplicates an item may not find itself
        return _scores(f, f, found[~itself].view(len(f), self.k)[:, -1])

    def _search(self, f: Tensor) -> Search:
        return _faiss(f) if self.library == "faiss" else _exact(f)


def _scores(x: Tensor, f: Tensor, neighbour: Tensor) -> Scores:
    score = (x.double() - f[neighbour].double()).norm(dim=1)
    return Scores(score, torch.zeros_like(neighbour))


def _exact(f: Tensor) -> Search:
    measure = squared_distances_to(f)

    def search(x: Tensor, k: int) -> Tensor:
        return torch.cat([measure(block).topk(k, largest=False).indices for block in x.split(BLOCK)])

    return search


def _faiss(f: Tensor) -> Search:
    import faiss

    flat = faiss.IndexFlatL2(f.shape[1])
    index: faiss.Index = faiss.index_cpu_to_all_gpus(flat) if f.is_cuda else flat
    mean = f.double().mean(0)

    def centred(x: Tensor) -> NDArray[np.float32]:
        return np.asarray((x.double() - mean).float().cpu())

    index.add(centred(f))
    return lambda x, k: torch.as_tensor(index.search(centred(x), k)[1], device=x.device)
