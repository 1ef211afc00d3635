"""Agglomerative clustering, scikit-learn's: Ward's criterion (Ward 1963), average or complete linkage.

Merging takes time and memory quadratic in the items, so at most `sample` of them are merged, drawn with the
clustering's seed; every item then belongs to the nearest mean of the merged ones. With no more items than
`sample`, all are merged and nothing is drawn.
"""

from __future__ import annotations

from typing import Literal

import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from oodbench.api import Clustering, Clusters, Count, Size
from oodbench.toolkit.clusters import check_count, grouped, to_device


class Agglomerative(Clustering):
    """Agglomerative: clusters merged from single items, on a stated sample of them."""

    k: Count = "classes"  # clusters
    linkage: Literal["ward", "average", "complete"] = "ward"  # which two clusters are merged next
    sample: Size = 5000  # items that are merged, at most

    @property
    def single(self) -> bool:
        return self.k == 1

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        assert isinstance(self.k, int)
        chosen = f
        if len(f) > self.sample:
            order = torch.randperm(len(f), generator=torch.Generator().manual_seed(seed))
            chosen = f[order[: self.sample].to(f.device)]
        check_count(self.k, chosen)
        merged = AgglomerativeClustering(self.k, linkage=self.linkage).fit(chosen.cpu().numpy())
        found = grouped(chosen, to_device(merged.labels_, f))
        if len(chosen) == len(f):
            return found
        return grouped(f, torch.cdist(f.double(), found.centroid.double()).argmin(1))
