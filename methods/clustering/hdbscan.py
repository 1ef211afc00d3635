"""HDBSCAN, scikit-learn's (Campello et al. 2013; McInnes et al. 2017): clusters by density, the rest is noise.

Features are first reduced to their `pca` leading principal components, or to as many as there are: in hundreds of
dimensions the search for neighbours takes minutes and densities hardly differ. At most `sample` items are
clustered, drawn with the clustering's seed; those that are noise stay noise (-1), and each item outside the
sample goes to the nearest centroid of the clustered ones, in the features as they are: none of them is noise.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from sklearn import cluster
from sklearn.decomposition import PCA
from torch import Tensor

from oodbench.api import Clustering, Clusters, Size
from oodbench.toolkit.clusters import grouped, to_device


class HDBSCAN(Clustering):
    """HDBSCAN: as many clusters as there are dense regions, on a stated sample; sparse items are noise."""

    min_cluster_size: Annotated[int, Ge(2)] = 15  # items
    min_samples: Size | None = None  # neighbours that make a region dense; None: min_cluster_size
    pca: Size | None = 16  # None: all dimensions
    sample: Size = 5000  # items that are clustered, at most

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        order = torch.arange(len(f))
        if len(f) > self.sample:
            order = torch.randperm(len(f), generator=torch.Generator().manual_seed(seed))[: self.sample]
        chosen = order.to(f.device)
        model = cluster.HDBSCAN(min_cluster_size=self.min_cluster_size, min_samples=self.min_samples, copy=True)
        labels = to_device(model.fit(self._reduced(f[chosen])).labels_, f)
        found = grouped(f[chosen], labels)
        assign = torch.cdist(f.double(), found.centroid.double()).argmin(1)
        assign[chosen] = found.assign
        return grouped(f, assign)

    def _reduced(self, f: Tensor) -> NDArray[np.float64]:
        x: NDArray[np.float64] = f.double().cpu().numpy()
        if self.pca is None or self.pca >= f.shape[1]:
            return x
        reduced: NDArray[np.float64] = PCA(min(self.pca, len(x)), svd_solver="full").fit_transform(x)
        return reduced
