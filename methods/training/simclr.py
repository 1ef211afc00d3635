"""SimCLR, Chen et al. 2020, arXiv 2002.05709, eq. 1: NT-Xent over two views.

Temperature 0.5 and the head (linear, ReLU, linear to 128) are those of the CIFAR recipe.
"""

from __future__ import annotations

from torch import Tensor

from oodbench.api import Batch, Head, Positive, State, Training
from oodbench.toolkit.losses import nt_xent


class SimCLR(Training):
    """SimCLR: self-supervised contrastive training (NT-Xent)."""

    temperature: Positive = 0.5  # by which cosines are divided
    head: Head = "mlp-128"  # form of the projection head
    base_temperature: Positive | None = None  # 0.07: the loss times temperature / 0.07, as SupContrast's code has it

    views = 2

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        loss = nt_xent(b.out["z"], self.temperature)
        return loss if self.base_temperature is None else loss * self.temperature / self.base_temperature, state
