"""SSD's distance to the nearest cluster (Sehwag et al. 2021, arXiv 2103.12051).

Features are scaled to unit length, then z-scored by the mean and deviation of the training items; the score is the
least squared Mahalanobis distance to a cluster's mean, each under the cluster's own covariance, divided by the
number of its items and inverted by pseudo-inverse. The paper takes penultimate features, and its code one
cluster by default. These are the steps of a space (`unit`, `zscore`) and of `mahalanobis` (per_cluster, pinv), but in
float64 from end to end: scaling features of a large common mean leaves their differences in the last digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.linear_algebra import moments, standardizer, whitened_squares, whitening
from oodbench.toolkit.vectors import unit


class SSD(Distance):
    """SSD: squared Mahalanobis distance to the nearest cluster of unit-norm, z-scored features."""

    raw = True

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        standardize = standardizer(unit(f.double()))
        train = standardize(unit(f.double()))
        clusters = [train[c.assign == k] for k in range(len(c.centroid))]
        means, covariances = zip(*map(moments, clusters), strict=True)
        pairs = zip(covariances, clusters, strict=True)
        whitenings = [whitening(each, len(rows), self.label) for each, rows in pairs]
        centers = torch.stack(means)

        def score(x: Tensor) -> Scores:
            best = whitened_squares(standardize(unit(x.double())), centers, whitenings).min(1)
            return Scores(best.values, best.indices)

        return score
