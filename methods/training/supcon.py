"""SupCon, Khosla et al. 2020, arXiv 2004.11362, eq. 2: the sum over positives outside the logarithm.

Temperature 0.1 and the head (linear, ReLU, linear to 128) are those of the CIFAR recipe.
"""

from __future__ import annotations

from torch import Tensor

from oodbench.api import Batch, Head, Positive, State, Training
from oodbench.toolkit.losses import contrastive


class SupCon(Training):
    """SupCon: supervised contrastive training, positives share the label."""

    temperature: Positive = 0.1  # by which cosines are divided
    head: Head = "mlp-128"  # form of the projection head
    base_temperature: Positive | None = None  # 0.07: the loss times temperature / 0.07, as SupContrast's code has it

    views = 2
    labels = True

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.y is not None
        loss = contrastive(b.out["z"], b.y, self.temperature)
        return loss if self.base_temperature is None else loss * self.temperature / self.base_temperature, state
