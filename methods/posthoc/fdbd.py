"""Fast decision boundary distance (fDBD), Liu & Qin 2024, arXiv 2312.11536, by pytorch-ood's fDBD.

The paper divides by a feature's distance to the training mean; OpenOOD also tries its length (`normalizer: norm`), and
takes what is better on validation. Its fit makes a tensor of classes x classes x dimensions.
"""

from __future__ import annotations

from typing import Literal

from pytorch_ood import detector
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, linear, of_features

LEAST = 1e-8  # of what is divided by, as in pytorch-ood


class FDBD(Posthoc):
    """fDBD: minus the mean distance to the other classes' boundaries, relative to that to the training mean."""

    normalizer: Literal["mean", "norm"] = "mean"  # what it is relative to: the distance to the mean, or the length

    linear = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        fitted = detector.fDBD(None, linear(head)).fit_features(train.h)
        if self.normalizer == "mean":
            return of_features(fitted.predict_features)

        def relative_to_length(h: Tensor) -> Tensor:
            far = (h.float() - fitted.train_mean.to(h.device)).norm(dim=1).clamp_min(LEAST)
            score: Tensor = fitted.predict_features(h) * far / h.float().norm(dim=1).clamp_min(LEAST)
            return score

        return of_features(relative_to_length)
