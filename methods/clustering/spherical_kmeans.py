"""Spherical k-means (Dhillon & Modha 2001): clusters of largest cosine to their direction.

Features are scaled to unit length; an item goes to the direction of largest cosine, and a direction is the
unit-length mean of its items, in turn until nothing changes. Seeds are k-means++'s on the sphere
(scikit-learn's); the restart with the largest sum of cosines is kept. A direction that loses its last item
takes the item of smallest cosine to its own.
"""

from __future__ import annotations

import torch
from sklearn.cluster import kmeans_plusplus
from torch import Tensor

from oodbench.api import Clustering, Clusters, Count, Size
from oodbench.toolkit.clusters import check_count, grouped
from oodbench.toolkit.vectors import centroids, unit


class SphericalKMeans(Clustering):
    """Spherical k-means: k clusters of largest cosine, best of several restarts."""

    k: Count = "classes"  # clusters
    restarts: Size = 10  # the best of which is kept
    iterations: Size = 300  # at most

    @property
    def single(self) -> bool:
        return self.k == 1

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        assert isinstance(self.k, int)
        check_count(self.k, f)
        x = unit(f.double())
        tries = [self._once(x, self.k, seed + restart) for restart in range(self.restarts)]
        best = max(range(self.restarts), key=lambda i: tries[i][0])
        return grouped(f, tries[best][1])

    def _once(self, x: Tensor, k: int, seed: int) -> tuple[float, Tensor]:
        """Return the sum of cosines and the assignment (N,) of one restart on unit vectors x (N, D)."""
        seeds = kmeans_plusplus(x.cpu().numpy(), k, random_state=seed % 2**32)[0]
        directions = unit(torch.as_tensor(seeds, dtype=x.dtype, device=x.device))
        assign = torch.full((len(x),), -1, device=x.device)
        for _ in range(self.iterations):
            cosine, nearest = (x @ directions.T).max(1)
            for empty in (torch.bincount(nearest, minlength=k) == 0).nonzero()[:, 0]:
                nearest[cosine.argmin()] = empty
                cosine[cosine.argmin()] = 1.0
            if torch.equal(nearest, assign):
                break
            assign = nearest
            directions = unit(centroids(x.float(), assign, k).double())
        return float((x * directions[assign]).sum()), assign
