"""Relative Mahalanobis distance, Ren et al. 2021, arXiv 2106.09022, squared.

The least squared Mahalanobis distance to a centroid under the covariance that all clusters share, minus that
to the mean of everything under the covariance of everything: what all training items have in common
counts for nothing. Both covariances are divided by the number of items and inverted by pseudo-inverse, cut at the same
variance, that of `pinv` for the covariance of everything (see mahalanobis.py); one that is not of full rank is warned
of in the row.
"""

from __future__ import annotations

from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.linear_algebra import (
    lower,
    means,
    members,
    moments,
    nearest_to,
    rounding,
    scatter,
    smallest,
    whitening,
)


class RelativeMahalanobis(Distance):
    """Relative Mahalanobis: distance to the nearest centroid, less that to everything."""

    several = True  # both distances of a single cluster are the same

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        rows, assign = members(f, c.assign)
        mean, everything = moments(rows)
        within = scatter(rows, means(rows, assign), assign) / len(rows)
        least = max(rounding(rows), smallest(everything))  # one for both: a part has no higher rank than the whole
        near = whitening(within, len(rows), self.label, least=least)
        far = whitening(everything, len(rows), self.label, least=least)
        nearest, everywhere = nearest_to(c.centroid.double(), lower(near)), nearest_to(mean[None], lower(far))

        def score(x: Tensor) -> Scores:
            squares, cluster = nearest(x)
            return Scores(squares - everywhere(x)[0], cluster)

        return score
