"""Relative Mahalanobis distance to classes (RMDS), Ren et al. 2021, arXiv 2106.09022, eq. 2, squared.

What the distance `relative_mahalanobis` is on classes as clusters, under the name by which it is a baseline. Both
covariances are divided by the number of items and inverted in float64 by pseudo-inverse, and one that is not of full
rank is warned of in the row; pytorch-ood's RMD inverts sums of squares plus 1e-6 in float32.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.posthoc import SetScore, labels, of_features


class RMDS(Posthoc):
    """RMDS: squared Mahalanobis distance to the nearest class, less that to everything."""

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        classes, own = labels(train).unique(return_inverse=True)
        mean = train.h.double().mean(0)
        h = train.h.double() - mean
        means = torch.stack([h[own == c].mean(0) for c in range(len(classes))])  # (C, D), of centred features
        near, far = self._whitening(h - means[own]), self._whitening(h)
        places = means @ near

        def score(x: Tensor) -> Tensor:
            centred = x - mean
            classwise = torch.cdist(centred @ near, places).square()  # (B, C)
            return classwise.amin(1) - (centred @ far).square().sum(1)

        return of_features(score)

    def _whitening(self, rows: Tensor) -> Tensor:
        """Return W (D, R) with W W^T the pseudo-inverse of the covariance of centred rows (N, D)."""
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        keep = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
        if not keep.any():
            raise ValueError(f"{self.label}: the features have no variance")
        if not keep.all():
            warnings.warn(f"{self.label}: rank {int(keep.sum())} of {len(values)}", stacklevel=2)
        whitening: Tensor = vectors[:, keep] / values[keep].sqrt()
        return whitening
