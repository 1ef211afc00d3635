"""One cluster of everything: with Mahalanobis distance the single Gaussian of SSD.

Sehwag et al. 2021, arXiv 2103.12051.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Clustering, Clusters
from oodbench.toolkit.clusters import grouped


class One(Clustering):
    """One: all training features in a single cluster."""

    single = True

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        return grouped(f, torch.zeros(len(f), dtype=torch.int64, device=f.device))
