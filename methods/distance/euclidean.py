"""Euclidean distance to the nearest centroid (Sinhamahapatra et al. 2022, arXiv 2203.08549)."""

from __future__ import annotations

from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.linear_algebra import nearest_to


class Euclidean(Distance):
    """Euclidean distance to the nearest centroid."""

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        nearest = nearest_to(c.centroid)

        def score(x: Tensor) -> Scores:
            squares, cluster = nearest(x)
            return Scores(squares.sqrt(), cluster)

        return score
