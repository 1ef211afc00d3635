"""DICE, Sun & Li 2022, arXiv 2111.09805, by pytorch-ood's DICE; 0.9 of the weights dropped.

The contribution of a weight is the weight times its feature's mean over training items.
"""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Fraction, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, labels, of_features, weights

ENTRIES = 1 << 24  # pytorch-ood multiplies items x classes x dimensions: so many at a time


class DICE(Posthoc):
    """DICE: energy of the logits of a head that keeps the weights that contribute most."""

    sparsity: Fraction = 0.9  # of the weights, dropped

    linear = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        weight, bias = weights(head)
        fitted = detector.DICE(None, weight, bias, p=self.sparsity).fit_features(train.h, labels(train))
        return of_features(fitted.predict_features, rows=max(1, ENTRIES // weight.numel()))
