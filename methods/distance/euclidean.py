"""Euclidean distance to the nearest centroid (Sinhamahapatra et al. 2022, arXiv 2203.08549)."""

from __future__ import annotations

from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.geometry import nearest, squares_between


class Euclidean(Distance):
    """Euclidean distance to the nearest centroid."""

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        def score(x: Tensor) -> Scores:
            cluster = nearest(x, c.centroid)[1]
            squares = squares_between(x, c.centroid[cluster])
            return Scores(squares.sqrt(), cluster)

        return score
