"""mixup, Zhang et al. 2018, arXiv 1710.09412, and CutMix, Yun et al. 2019, arXiv 1905.04899: classes of mixed images.

L = cross-entropy to the shares that the classes have in a mixed image
mixup:  x = l x_i + (1 - l) x_j, and class y_i has the share l, y_j the rest
CutMix: a box of x_j, of 1 - l of the area and where a border cuts it of less, lies in x_i; shares are by area

l is drawn of Beta(alpha, alpha) once a batch, and every batch is mixed (torchvision's v2.MixUp and v2.CutMix). The
papers have alpha 1 for CIFAR; the authors of CutMix mix half of the batches there.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Mixing, Positive, State, Training


class Mixup(Training):
    """mixup and CutMix: cross-entropy classifier of mixed images."""

    form: Literal["mixup", "cutmix"] = "mixup"  # weighted sums of two images, or a box of one in the other
    alpha: Positive = 1.0  # of the Beta distribution of the shares

    labels = True

    @property
    def mixing(self) -> Mixing:
        return Mixing(self.form, self.alpha)

    @property
    def heads(self) -> dict[str, str]:
        return {"logits": "linear"}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.target is not None
        logits = b.out["logits"]  # (V, B, C)
        return F.cross_entropy(logits.flatten(0, 1), b.target.repeat(len(logits), 1)), state
