"""From assignments to clusters: what every clustering ends with."""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Clusters
from oodbench.toolkit.vectors import centroids


def grouped(f: Tensor, assign: Tensor) -> Clusters:
    """Return the clusters of f (N, D) under assignments (N,), -1 = noise; numbers that nobody has are closed up.

    Raises ValueError where every item is noise.
    """
    used, dense = assign.unique(return_inverse=True)
    if used[0] == -1:
        dense = dense - 1
        used = used[1:]
    if not len(used):
        raise ValueError("the clustering found no cluster: every item is noise")
    return Clusters(centroids(f, dense, len(used)), dense)


def check_count(k: int, f: Tensor) -> None:
    """Raise ValueError where there are fewer items than clusters."""
    if k > len(f):
        raise ValueError(f"{k} clusters of {len(f)} training items")


def to_device(labels: object, f: Tensor) -> Tensor:
    """Return scikit-learn's or faiss's cluster numbers as int64 beside f."""
    return torch.as_tensor(labels, dtype=torch.int64, device=f.device)
