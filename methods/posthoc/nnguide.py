"""Nearest neighbour guidance (NNGuide), Park et al. 2023, arXiv 2309.14888, by pytorch-ood's NNGuide.

The bank is all training items, and k is 10; OpenOOD draws 1 % of them, and takes k = 100.
"""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Size, Split
from oodbench.toolkit.pytorch_ood import SetScore, labels, of_features

ROWS = 512  # similarities are items x training items


class NNGuide(Posthoc):
    """NNGuide: minus the energy score times the mean similarity to the k nearest training items."""

    k: Size = 10  # nearest training items

    applies = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        fitted = detector.NNGuide(None, head.apply, k=self.k).fit_features(train.h, labels(train))
        return of_features(lambda h: fitted.predict_features(h.float()), ROWS)
