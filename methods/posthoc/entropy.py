"""Entropy of the softmax (Chan et al. 2021, arXiv 2012.06575, without their training).

In log space: pytorch-ood's Entropy takes every probability below 1e-7 as 1e-7.
"""

from __future__ import annotations

from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, of_logits


class Entropy(Posthoc):
    """Entropy: of the softmax, in nats."""

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_logits(entropy)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy (B,) of the softmax of logits (B, C)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
