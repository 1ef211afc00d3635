"""Cross-entropy: a classifier; with cosine distance to class centroids it is the study's reference method.

Sinhamahapatra et al. 2022, arXiv 2203.08549. `head: cosine` classifies by the cosine to a weight
vector per class, times a learned scale, instead of an affine map.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Fraction, State, Training


class CrossEntropy(Training):
    """Cross-entropy classifier, with a linear or a cosine head."""

    head: Literal["linear", "cosine"] = "linear"  # form of the classifier
    label_smoothing: Fraction = 0.0  # share of the target that is spread over all classes

    labels = True

    @property
    def heads(self) -> dict[str, str]:
        return {"logits": self.head}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        logits = b.out["logits"]  # (V, B, C)
        assert b.y is not None
        target = b.y.repeat(len(logits))
        return F.cross_entropy(logits.flatten(0, 1), target, label_smoothing=self.label_smoothing), state
