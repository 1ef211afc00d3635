"""Activation shaping (ASH), Djurisic et al. 2023, arXiv 2209.09858, by pytorch-ood's ASH.

Of each item's penultimate features, the smallest (a fraction `percentile`) become 0 and
the others are sharpened by exp(sum before / sum after) (s), set to one value of the same sum (b), or kept (p). It
takes features that are never negative, as after a ReLU, and refuses others.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Interval
from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, classifier, of_maps, require_rectified

LEAST = torch.finfo(torch.float64).tiny  # an item without any activation is not 0 / 0


class ASH(Posthoc):
    """ASH: energy of the logits of features of which the smallest are pruned and the others shaped."""

    variant: Literal["s", "b", "p"] = "s"
    percentile: Annotated[float, Interval(ge=0, lt=1)] = 0.9

    applies = True
    rectified = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        require_rectified(train.h, self.label)
        fitted = detector.ASH(None, classifier(head), variant=f"ash-{self.variant}", percentile=self.percentile)
        return of_maps(lambda x: fitted.predict_feature_maps(x.clamp_min(LEAST)))
