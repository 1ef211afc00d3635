"""Simplified Hopfield energy (SHE), Zhang et al. 2023 (ICLR), by pytorch-ood's SHE.

A class of which no training item is classified right has no pattern, and is an error.
"""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, classifier, labels, of_features


class SHE(Posthoc):
    """SHE: minus the inner product with the mean of the predicted class's rightly classified training items."""

    applies = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        fitted = detector.SHE(None, classifier(head)).fit_features(train.h, labels(train))
        return of_features(fitted.predict_features)
