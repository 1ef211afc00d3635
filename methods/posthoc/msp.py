"""Maximum softmax probability (MSP), Hendrycks & Gimpel 2017, arXiv 1610.02136.

Computed as the sum of the other probabilities: pytorch-ood's MaxSoftmax is 1 for every confident item.
"""

from __future__ import annotations

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, doubt, of_logits


class MSP(Posthoc):
    """MSP: 1 - the largest softmax probability."""

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_logits(doubt)
