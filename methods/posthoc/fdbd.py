"""Fast decision boundary distance (fDBD), Liu & Qin 2024, arXiv 2312.11536, by pytorch-ood's fDBD.

Its fit makes a tensor of classes x classes x dimensions.
"""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, linear, of_features


class FDBD(Posthoc):
    """fDBD: minus the mean distance to the other classes' boundaries, relative to that to the training mean."""

    linear = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_features(detector.fDBD(None, linear(head)).fit_features(train.h).predict_features)
