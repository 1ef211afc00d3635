"""Maximum logit, Hendrycks et al. 2022, arXiv 1911.11132, by pytorch-ood's MaxLogit."""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, of_logits


class MaxLogit(Posthoc):
    """Max logit: minus the largest logit."""

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_logits(detector.MaxLogit(None).predict_logits)
