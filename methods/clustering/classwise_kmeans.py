"""K-means inside each class: k clusters to a class, for classes of several modes. It sees the labels."""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from oodbench.api import Clustering, Clusters, Size
from oodbench.toolkit.clusters import grouped, to_device


class ClasswiseKMeans(Clustering):
    """Class-wise k-means: k clusters inside each class, best of several restarts."""

    k: Size = 2  # clusters of each class
    restarts: Size = 10  # the best of which is kept
    iterations: Size = 300  # at most

    labels = True

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        assert y is not None
        assign = torch.empty_like(y)
        for number, label in enumerate(y.unique().tolist()):
            members = y == label
            if self.k > int(members.sum()):
                raise ValueError(f"{self.k} clusters of the {int(members.sum())} training items of class {label}")
            means = KMeans(self.k, n_init=self.restarts, max_iter=self.iterations, random_state=seed)
            within = means.fit(f[members].cpu().numpy()).labels_
            assign[members] = number * self.k + to_device(within, f)
        return grouped(f, assign)
