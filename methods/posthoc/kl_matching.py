"""KL matching, Hendrycks et al. 2022, arXiv 1911.11132, section 4.2, by pytorch-ood's KLMatching.

The typical posterior of each class is the mean softmax of the held-out ID items that are predicted to be of it, as in
the paper; a class that none is predicted to be of has none.
"""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, of_logits, reference


class KLMatching(Posthoc):
    """KL matching: least KL divergence of the softmax from a class's typical softmax."""

    val = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_logits(detector.KLMatching(None).fit_logits(reference(val).logits.double()).predict_logits)
