"""Mahalanobis distance to the nearest centroid (Lee et al. 2018, arXiv 1807.03888), squared.

`covariance: shared` is one covariance of all items about their own centroids, divided by their number;
`per_cluster` gives each cluster its own, as the studied code does (Sinhamahapatra et al. 2022). Where
items are fewer than dimensions a covariance is singular, and what is done about it decides the score, so
the policy is part of the method's name:

    pinv    pseudo-inverse: directions of no training variance are ignored (SSD, OpenOOD), cut where
            scikit-learn's pinvh cuts; a covariance that is not of full rank is warned of in the row, for clusters
            of unequal rank are not comparable: the one of the lowest rank is nearest to everything
    shrink  a share of the mean variance is mixed into all directions; `shrinkage: ledoit_wolf` chooses the
            share from the residuals (Ledoit & Wolf 2004), a number sets it
    pca     the distance within the leading `components` directions of variance

The inverse is a whitening matrix, applied once: N D^2 instead of K N D^2 operations.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores, Size
from oodbench.geometry import nearest, scatter


class Mahalanobis(Distance):
    """Mahalanobis: squared distance under a shared or per-cluster covariance, with a policy for singular ones."""

    covariance: Literal["shared", "per_cluster"] = "shared"
    singular: Literal["pinv", "shrink", "pca"] = "pinv"
    shrinkage: Literal["ledoit_wolf"] | Annotated[float, Interval(gt=0, le=1)] = "ledoit_wolf"
    components: Size = 64

    @property
    def label(self) -> str:
        amount = f"{self.shrinkage:g}" if isinstance(self.shrinkage, float) else self.shrinkage
        policy = {"pinv": "pinv", "shrink": f"shrink={amount}", "pca": f"pca={self.components}"}[self.singular]
        return f"{self.name}({self.covariance}, {policy})"

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        member = c.assign >= 0
        rows, assign = f[member], c.assign[member]
        return self._shared(rows, assign, c) if self.covariance == "shared" else self._per_cluster(rows, assign, c)

    def _shared(self, rows: Tensor, assign: Tensor, c: Clusters) -> Scorer:
        middle = c.centroid.double().mean(0)
        whiten = self._whitening(rows, c.centroid.double()[assign])  # (D, R)

        def white(x: Tensor) -> Tensor:
            return (x.double() - middle).float() @ whiten

        centers = white(c.centroid)

        def score(x: Tensor) -> Scores:
            squares, cluster = nearest(white(x), centers)
            return Scores(squares.double(), cluster)

        return score

    def _per_cluster(self, rows: Tensor, assign: Tensor, c: Clusters) -> Scorer:
        centers = c.centroid.double()
        whitenings = [self._whitening(rows[assign == k], center) for k, center in enumerate(centers)]

        def score(x: Tensor) -> Scores:
            pairs = zip(centers, whitenings, strict=True)
            squares = [((x.double() - center).float() @ w).square().sum(1) for center, w in pairs]
            best = torch.stack(squares, 1).min(1)  # of (M, K)
            return Scores(best.values.double(), best.indices)

        return score

    def _whitening(self, rows: Tensor, center: Tensor) -> Tensor:
        """Return W (D, R), float32, with W W^T the inverse of the covariance of rows under the policy."""
        n, dim = rows.shape
        if n < 2:
            raise ValueError(f"{self.label}: a cluster of {n} item has no covariance")
        covariance = scatter(rows, center) / n
        if self.singular == "shrink":
            covariance = self._shrunk(covariance, rows, center)
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0), vectors.flip(1)  # largest first
        rank = int((values > values[0] * dim * torch.finfo(torch.float64).eps).sum())
        if rank == 0:
            raise ValueError(f"{self.label}: the features of a cluster have no variance")
        if self.singular == "pinv" and rank < dim:
            warnings.warn(f"{self.label}: rank {rank} of {dim}, from {n} items", stacklevel=2)
        rank = min(rank, self.components) if self.singular == "pca" else rank
        whitening: Tensor = vectors[:, :rank] / values[:rank].sqrt()
        return whitening.float()

    def _shrunk(self, covariance: Tensor, rows: Tensor, center: Tensor) -> Tensor:
        share = self.shrinkage
        if share == "ledoit_wolf":
            residual = (rows.double() - center).cpu().numpy()
            share = float(ledoit_wolf_shrinkage(residual, assume_centered=True))
        eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return (1 - share) * covariance + share * covariance.diagonal().mean() * eye
