"""Distance to the k-th nearest feature of the nearest cluster: Sun et al. 2022 (arXiv 2204.06507), kept in a cluster.

The cluster is that of the nearest centroid, the neighbours are its members alone; the combination is our own. A
cluster of fewer than k members gives the distance to its farthest one, and the row says so. Neighbours are
found by a matrix product on centred features; the k-th distance is computed from the difference of the two vectors.

A training item that is left out of its own score is no member of its cluster, and its cluster's centroid is the
mean without it, which is n / (n - 1) times as far from it. Other items stay where the clustering put them.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores, Size
from oodbench.toolkit.linear_algebra import nearest_to, squared_distances, squared_distances_to, squares_between

BLOCK = 512  # queries at a time: a block of distances is BLOCK x members float32


class Local(Distance):
    """Local: Euclidean distance to the k-th nearest member of the cluster of the nearest centroid."""

    k: Size = 10  # which neighbour, 1 = the nearest

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        self._warn_of_small(c, self.k)
        nearest = nearest_to(c.centroid)

        def score(x: Tensor) -> Scores:
            cluster = nearest(x)[1]
            return Scores(self._score(x, cluster, torch.full_like(cluster, -1), f, c.assign), cluster)

        return score

    def leave_one_out(self, f: Tensor, c: Clusters) -> Scores:
        self._warn_of_small(c, self.k + 1)
        squares = squared_distances(f, c.centroid).double()
        item = (c.assign >= 0).nonzero()[:, 0]
        own = c.assign[item]
        size = torch.bincount(own)[own].double()
        without = squares[item, own] * (size / (size - 1)).square()
        squares[item, own] = torch.where(size > 1, without, torch.inf)  # a cluster of it alone is gone
        if squares.isinf().all(1).any():
            raise ValueError(f"{self.label} of no other training item")
        cluster = squares.argmin(1)
        return Scores(self._score(f, cluster, torch.arange(len(f), device=f.device), f, c.assign), cluster)

    def _score(self, x: Tensor, cluster: Tensor, itself: Tensor, f: Tensor, assign: Tensor) -> Tensor:
        """Return the distance of x (M, D) to the k-th nearest item of f in its cluster (M,).

        `itself` (M,) is the place in f that an item must not find, -1 for none.
        """
        found = torch.empty_like(cluster)
        for k in cluster.unique():
            members = (assign == k).nonzero()[:, 0]  # (n,)
            measure = squared_distances_to(f[members])
            for rows in (cluster == k).nonzero()[:, 0].split(BLOCK):
                hidden = itself[rows, None] == members  # (B, n)
                squares = measure(x[rows]).masked_fill(hidden, torch.inf)
                closest = squares.topk(min(self.k, len(members)), largest=False).indices  # nearest first
                place = (len(members) - hidden.sum(1)).clamp_max(self.k) - 1
                found[rows] = members[closest.gather(1, place[:, None])[:, 0]]
        return squares_between(x, f[found]).sqrt()

    def _warn_of_small(self, c: Clusters, least: int) -> None:
        sizes = torch.bincount(c.assign[c.assign >= 0], minlength=len(c.centroid))
        small = int((sizes < least).sum())
        if small:
            said = f"{small} of {len(sizes)} clusters have too few members for k={self.k}: the farthest one counts"
            warnings.warn(f"{self.label}: {said}", stacklevel=3)
