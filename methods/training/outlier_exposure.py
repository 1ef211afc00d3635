"""Outlier exposure, Hendrycks et al. 2019, arXiv 1812.04606: cross-entropy, and a flat softmax on outliers.

L = cross-entropy of ID items + weight * cross-entropy from the uniform distribution to the softmax of outliers,
the latter -1/C sum_c log p_c, a mean over outliers. The weight (the paper's lambda) is 0.5 for classification. ID
items and outliers pass the network together; the authors' code takes twice as many outliers as ID items a step
(`outlier_batch` of the recipe).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, NonNegative, State, Training


class OutlierExposure(Training):
    """Outlier exposure: cross-entropy classifier whose softmax on outliers is drawn to the uniform one."""

    weight: NonNegative = 0.5  # of the outliers' term

    labels = True
    outliers = True

    @property
    def heads(self) -> dict[str, str]:
        return {"logits": "linear"}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.y is not None
        assert b.outlier is not None
        logits = b.out["logits"]  # (V, B, C)
        known = F.cross_entropy(logits.flatten(0, 1), b.y.repeat(len(logits)))
        flat = -b.outlier["logits"].log_softmax(-1).mean()
        return known + self.weight * flat, state
