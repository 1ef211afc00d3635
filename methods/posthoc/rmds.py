"""Relative Mahalanobis distance to classes (RMDS), Ren et al. 2021, arXiv 2106.09022, squared.

What the distance `relative_mahalanobis` is on classes as clusters, under the name by which it is a baseline. Both
covariances are divided by the number of items and inverted in float64 by pseudo-inverse, and one that is not of full
rank is warned of in the row; pytorch-ood's RMD inverts sums of squares plus 1e-6 in float32.
"""

from __future__ import annotations

import torch

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.linear_algebra import lower, moments, nearest_to, rounding, scatter, smallest, whitening
from oodbench.toolkit.pytorch_ood import SetScore, labels, of_features


class RMDS(Posthoc):
    """RMDS: squared Mahalanobis distance to the nearest class, less that to everything."""

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        classes, own = labels(train).unique(return_inverse=True)
        n = len(train.h)
        mean, everything = moments(train.h)
        centers = torch.stack([train.h[own == k].double().mean(0) for k in range(len(classes))])
        least = max(rounding(train.h), smallest(everything))  # one for both: a part has no higher rank than the whole
        near = whitening(scatter(train.h, centers, own) / n, n, self.label, least=least)
        far = whitening(everything, n, self.label, least=least)
        nearest, everywhere = nearest_to(centers, lower(near)), nearest_to(mean[None], lower(far))
        return of_features(lambda x: nearest(x)[0] - everywhere(x)[0])
