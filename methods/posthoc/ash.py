"""Activation shaping (ASH), Djurisic et al. 2023, arXiv 2209.09858.

Of each item's penultimate features, the smallest (a fraction `percentile`) become 0 and
the others are sharpened by exp(sum before / sum after) (s), set to one value of the same sum (b), or kept (p). It
takes features that are never negative, as after a ReLU, and refuses others. OpenOOD's is b.

pytorch-ood and OpenOOD keep so many features whatever their values: of equal ones, as zeros are, b then fills those
that a sort happens to put first. Here a feature that is 0 stays 0, and of equal ones at the edge all are kept.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, classifier, of_features, require_rectified

LEAST = torch.finfo(torch.float64).tiny  # an item without any activation is not 0 / 0


class ASH(Posthoc):
    """ASH: energy of the logits of features of which the smallest are pruned and the others shaped."""

    variant: Literal["s", "b", "p"] = "s"  # what the largest features become: sharpened, binary, as they are
    percentile: Annotated[float, Interval(ge=0, lt=1)] = 0.9  # share of an item's features that become 0

    applies = True
    rectified = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        require_rectified(train.h, self.label)
        logits = classifier(head)
        return of_features(lambda h: -logits(self._shaped(h)).logsumexp(1))

    def _shaped(self, h: Tensor) -> Tensor:
        """Return features (B, D) without the smallest, the others shaped."""
        kept = h.shape[1] - round(h.shape[1] * self.percentile)
        edge = h.topk(max(kept, 1)).values[:, -1:]
        large = (h >= edge) & (h > 0)
        pruned = h.where(large, 0)
        total = h.sum(1, keepdim=True)
        if self.variant == "b":
            return large * total / large.sum(1, keepdim=True).clamp_min(1)
        return pruned * (total / pruned.sum(1, keepdim=True).clamp_min(LEAST)).exp() if self.variant == "s" else pruned
