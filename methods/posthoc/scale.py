"""SCALE, Xu et al. 2024, arXiv 2310.00227, by pytorch-ood's SCALE.

Each item's penultimate features are multiplied by exp(sum of all / sum of the largest), the largest being all but a
fraction `percentile`. It takes features that are never negative, as after a ReLU, and refuses others.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, classifier, of_maps, require_rectified

LEAST = torch.finfo(torch.float64).tiny  # an item without any activation is not 0 / 0


class SCALE(Posthoc):
    """SCALE: energy of the logits of features scaled by how much of them is in the largest."""

    percentile: Annotated[float, Interval(ge=0, lt=1)] = 0.85  # share of features that are not the largest

    applies = True
    rectified = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        require_rectified(train.h, self.label)
        fitted = detector.SCALE(None, classifier(head), percentile=self.percentile)
        return of_maps(lambda x: fitted.predict_feature_maps(x.clamp_min(LEAST)))
