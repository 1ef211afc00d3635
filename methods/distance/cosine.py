"""Cosine distance to the centroid of largest cosine (Sinhamahapatra et al. 2022, arXiv 2203.08549).

Centroids are means of the features as the space hands them over: means of unit vectors in a unit space.
A zero vector has cosine 0 with everything.
"""

from __future__ import annotations

from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.vectors import unit


class Cosine(Distance):
    """Cosine: 1 - the largest cosine similarity to a centroid."""

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        direction = unit(c.centroid.double())

        def score(x: Tensor) -> Scores:
            nearest = (unit(x.double()) @ direction.T).max(1)
            return Scores(1 - nearest.values, nearest.indices)

        return score
