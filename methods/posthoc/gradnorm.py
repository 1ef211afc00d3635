"""GradNorm, Huang, Geng & Li 2021, arXiv 2110.00218: the L1 norm of a gradient by the weights of the linear head.

The gradient is that of KL(uniform || softmax), which is linear in the features: no backward pass is needed.

    dKL / dW = (softmax - 1 / C) h^T, and its L1 norm is |h|_1 |softmax - 1 / C|_1     (the paper's U V, eq. 7)

It is large for ID, so the score is minus that. The temperature is 1, as in the paper's main results.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import weights


class GradNorm(Posthoc):
    """GradNorm: minus the L1 norm of the gradient of KL(uniform || softmax) by the weights of the head."""

    linear = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> Callable[[Split], Tensor]:
        weights(head)  # a head of another form has other gradients

        def score(items: Split) -> Tensor:
            p = items.logits.double().softmax(1)  # (M, C)
            of_features = items.h.double().abs().sum(1)
            return -of_features * (p - 1 / p.shape[1]).abs().sum(1)

        return score
