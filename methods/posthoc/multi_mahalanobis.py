"""Mahalanobis distance at several depths, Lee et al. 2018, arXiv 1807.03888, eq. 2: to the nearest class of each.

score: sum over layers l of min over classes k of (f_l(x) - mu_lk)^T Sigma_l^-1 (f_l(x) - mu_lk) / 2

f_l are the encoder's features at a depth, mean over places; Sigma_l is shared by the classes, divided by the number of
items, and inverted in float64 by pseudo-inverse. The paper weighs layers by a logistic regression on OOD data, which a
baseline does not see, and perturbs the image: here all layers count alike, and images stay, as in pytorch-ood's
MultiMahalanobis. Distances grow with a layer's dimensions, so that wide layers count for more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.linear_algebra import lower, means, nearest_to, rounding, scatter, whitening
from oodbench.toolkit.pytorch_ood import labels


class MultiMahalanobis(Posthoc):
    """Squared Mahalanobis distance to the nearest class, half of it, summed over the encoder's depths."""

    network = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> Callable[[Split], Tensor]:
        layers = head.layers
        if layers is None:
            raise ValueError("multi_mahalanobis needs the network")

        @torch.no_grad()
        def seen(items: Split) -> list[Tensor]:
            if items.images is None:
                raise ValueError("multi_mahalanobis needs images")
            blocks = [layers(x) for x in items.images()]
            return [torch.cat(layer) for layer in zip(*blocks, strict=True)]

        own = labels(train).unique(return_inverse=True)[1]
        nearest = [self._nearest(f, own.to(f.device), f"{self.label}, depth {i}") for i, f in enumerate(seen(train))]

        def score(items: Split) -> Tensor:
            found = zip(nearest, seen(items), strict=True)
            return torch.stack([distance(f)[0] / 2 for distance, f in found]).sum(0)

        return score

    def _nearest(self, f: Tensor, own: Tensor, what: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return what measures features (M, D) to the nearest class of training features (N, D)."""
        centers = means(f, own)
        inverse = whitening(scatter(f, centers, own) / len(f), len(f), what, least=rounding(f))
        return nearest_to(centers, lower(inverse))
