"""Cosine distance to the centroid of largest cosine (Sinhamahapatra et al. 2022, arXiv 2203.08549).

Centroids are means of the features as the space hands them over: means of unit vectors in a unit space.
A zero vector has cosine 0 with everything. A centroid at the origin, but for rounding, has no direction: the mean of
all features of a centred space is one, and an error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.linear_algebra import BLOCK
from oodbench.toolkit.vectors import unit

ROUNDING = 1e-5  # length of a centroid, as a share of the features' mean: means of float32 come this near to 0


class Cosine(Distance):
    """Cosine: 1 - the largest cosine similarity to a centroid."""

    angular = True

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        lengths = torch.cat([rows.double().norm(dim=1) for rows in f.split(BLOCK)])
        nowhere = c.centroid.norm(dim=1) <= ROUNDING * lengths.mean()
        if nowhere.any():
            raise ValueError(f"the centroid of cluster {int(nowhere.nonzero()[0])} is the origin but for rounding")
        direction = unit(c.centroid.double())

        def score(x: Tensor) -> Scores:
            found = [(unit(rows.double()) @ direction.T).max(1) for rows in x.split(BLOCK)]
            return Scores(1 - torch.cat([each.values for each in found]), torch.cat([each.indices for each in found]))

        return score
