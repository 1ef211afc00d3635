"""Mahalanobis distance to the nearest centroid (Lee et al. 2018, arXiv 1807.03888), squared.

`covariance: shared` is one covariance of all items about the means of their own clusters, divided by their number;
`diagonal` keeps of it the variance of each dimension alone; `per_cluster` gives each cluster its own, as the
studied code does (Sinhamahapatra et al. 2022). Where items are fewer than dimensions a covariance is singular,
and what is done about it decides the score, so the policy is part of the method's name:

    pinv    pseudo-inverse: directions of no training variance are ignored (SSD, OpenOOD): of no more than the rounding
            of float32 features, or D times that of float64 of the largest variance; a covariance that is not of full
            rank is warned of in the row, for clusters of unequal rank are not comparable: the one of the lowest rank is
            nearest to everything
    pinv32  the same, cut at D times the rounding of float32 of the largest variance, where scikit-learn's pinvh cuts a
            covariance that is itself float32, as OpenOOD's is: where variances span five digits it ignores some
    shrink  a share of the mean variance is mixed into all directions; `shrinkage: ledoit_wolf` chooses the
            share from the residuals (Ledoit & Wolf 2004), a number sets it
    pca     the distance within the leading `components` directions of variance; dimensions under `diagonal`

The inverse is a whitening matrix, applied once: N D^2 instead of K N D^2 operations.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Interval
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores, Size
from oodbench.toolkit.linear_algebra import (
    EPS32,
    EPS64,
    lower,
    mean,
    means,
    members,
    nearest_to,
    residuals,
    rounding,
    scatter,
    squares,
    whitened_squares,
    whitening,
)


class Mahalanobis(Distance):
    """Mahalanobis: squared distance under one covariance or one of each cluster, with a policy for singular ones."""

    covariance: Literal["shared", "diagonal", "per_cluster"] = "shared"  # of all clusters, or of each
    singular: Literal["pinv", "pinv32", "shrink", "pca"] = "pinv"  # what is done about directions of no variance
    shrinkage: Literal["ledoit_wolf"] | Annotated[float, Interval(gt=0, le=1)] = "ledoit_wolf"  # of `shrink`
    components: Size = 64  # that `pca` keeps

    @property
    def label(self) -> str:
        amount = f"{self.shrinkage:g}" if isinstance(self.shrinkage, float) else self.shrinkage
        policy = {"shrink": f"shrink={amount}", "pca": f"pca={self.components}"}.get(self.singular, self.singular)
        return f"{self.name}({self.covariance}, {policy})"

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        return self._per_cluster(f, c) if self.covariance == "per_cluster" else self._shared(f, c)

    def _shared(self, f: Tensor, c: Clusters) -> Scorer:
        rows, assign = members(f, c.assign)
        whiten = self._whitening(rows, means(rows, assign), assign)  # (D, R)
        w = whiten.square().sum(1).sqrt() if self.covariance == "diagonal" else lower(whiten)
        nearest = nearest_to(c.centroid, w.float())
        return lambda x: Scores(*nearest(x))

    def _per_cluster(self, f: Tensor, c: Clusters) -> Scorer:
        centers = c.centroid.double()
        clusters = (f[c.assign == k] for k in range(len(centers)))
        whitenings = [self._whitening(rows, mean(rows)).float() for rows in clusters]

        def score(x: Tensor) -> Scores:
            best = whitened_squares(x, centers, whitenings).min(1)
            return Scores(best.values.double(), best.indices)

        return score

    def _whitening(self, rows: Tensor, center: Tensor, assign: Tensor | None = None) -> Tensor:
        """Return W (D, R), float64, with W W^T the inverse of the covariance of rows under the policy."""
        diagonal = self.covariance == "diagonal"
        if self.singular == "shrink":
            covariance = self._shrunk(rows, center, assign)
            covariance = covariance.diagonal().diag() if diagonal else covariance
        elif diagonal:
            covariance = (squares(rows, center, assign) / len(rows)).diag()
        else:
            covariance = scatter(rows, center, assign) / len(rows)
        components = self.components if self.singular == "pca" else None
        eps = EPS32 if self.singular == "pinv32" else EPS64
        least = 0.0 if self.singular == "shrink" else rounding(rows)
        return whitening(covariance, len(rows), self.label, components, least, eps)

    def _shrunk(self, rows: Tensor, center: Tensor, assign: Tensor | None) -> Tensor:
        covariance, share = scatter(rows, center, assign) / len(rows), self.shrinkage
        if share == "ledoit_wolf":
            residual = torch.cat(list(residuals(rows, center, assign))).cpu().numpy()
            share = float(ledoit_wolf_shrinkage(residual, assume_centered=True))
        eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return (1 - share) * covariance + share * covariance.diagonal().mean() * eye
