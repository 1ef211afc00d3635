"""Generalised entropy (GEN), Liu et al. 2023 (CVPR): gamma 0.1 and the 100 largest probabilities.

In log space: pytorch-ood's GEN takes every probability below 1e-7 as 1e-7, whose power of gamma = 0.1 is still 0.2, so
that it cannot tell confident items apart. Theirs is our sum divided by the number of terms.
"""

from __future__ import annotations

from torch import Tensor

from oodbench.api import ClassifierHead, Positive, Posthoc, Size, Split
from oodbench.toolkit.pytorch_ood import SetScore, of_logits


class GEN(Posthoc):
    """GEN: sum of p^gamma (1 - p)^gamma over the most probable classes."""

    gamma: Positive = 0.1
    top: Size = 100  # M of the paper; all classes where there are fewer

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_logits(self._score)

    def _score(self, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(1).topk(min(self.top, logits.shape[1])).values  # (B, M)
        log_rest = (-log_p.expm1()).log()  # of 1 - p, -inf where p is 1
        return (self.gamma * (log_p + log_rest)).exp().sum(1)
