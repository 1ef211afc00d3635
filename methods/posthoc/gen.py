"""Generalised entropy (GEN), Liu et al. 2023 (CVPR): gamma 0.1 and the 100 largest probabilities.

In log space: pytorch-ood's GEN takes every probability below 1e-7 as 1e-7, whose power of gamma = 0.1 is still 0.2, so
that it cannot tell confident items apart. 1 - p of the likeliest class is summed over the others, for p rounds to 1
where logits are 37 apart. Theirs is our sum divided by the number of terms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Positive, Posthoc, Size, Split
from oodbench.toolkit.pytorch_ood import SetScore, of_logits


class GEN(Posthoc):
    """GEN: sum of p^gamma (1 - p)^gamma over the most probable classes."""

    gamma: Positive = 0.1  # power of p and 1 - p
    top: Size = 100  # M of the paper; all classes where there are fewer

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_logits(self._score)

    def _score(self, logits: Tensor) -> Tensor:
        ordered = logits.topk(min(self.top, logits.shape[1])).values
        log_p = ordered - logits.logsumexp(1, keepdim=True)  # (B, M)
        log_rest = (-log_p.expm1()).log()  # of 1 - p, but that of the first, which may round to 1
        others = logits.scatter(1, logits.argmax(1, keepdim=True), -torch.inf).logsumexp(1)
        log_rest[:, 0] = others - logits.logsumexp(1)
        return (self.gamma * (log_p + log_rest)).exp().sum(1)
