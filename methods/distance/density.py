"""Euclidean distance to a centroid in units of its cluster's own spread (no paper's: our definition).

The spread of a cluster is the root mean square distance of its members to its centroid; the score is the least
ratio over clusters. A dense cluster reaches less far than a wide one of the same centroid. Its square is the
Mahalanobis distance under a covariance of each cluster that is a multiple of the identity, divided by D. The
published ways to allow for clusters of unequal radii are a covariance (`mahalanobis`) or a threshold
(`per_cluster`) of each cluster.

Of a cluster without spread (one item, or equal ones) everything else is infinitely far: nothing is scored against
it, and the row says so.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.linear_algebra import squared_distances, squares_between


class Density(Distance):
    """Density: Euclidean distance to a centroid, divided by the RMS distance of the cluster's members to it."""

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        centers = c.centroid.double()
        residuals = (f[c.assign == k].double() - center for k, center in enumerate(centers))
        spread = torch.stack([each.square().sum(1).mean().sqrt() for each in residuals])
        if not spread.any():
            raise ValueError(f"{self.label}: no cluster has any spread")
        if not spread.all():
            points = int((spread == 0).sum())
            warnings.warn(f"{self.label}: {points} of {len(spread)} clusters have no spread", stacklevel=2)

        def score(x: Tensor) -> Scores:
            ratios = squared_distances(x, c.centroid) / spread.square()
            cluster = torch.where(spread > 0, ratios, torch.inf).argmin(1)
            return Scores(squares_between(x, centers[cluster]).sqrt() / spread[cluster], cluster)

        return score
