"""OECL, Le-Gia & Ahn 2023, arXiv 2312.15288: contrastive loss on ID views, plus alpha x the L2 norm of outliers.

L = NT-Xent(ID views) + alpha * mean over outlier views of ||z||_2, z the un-normalised head output; outliers
are neither anchors nor negatives and pass the network together with the ID views. alpha is 0 during the
warm-up (the first 50 of 1000 epochs in the authors' code), then constant. Their head is linear, batch
norm, ReLU, linear to 128; their temperature is 0.5; alpha is 1 for CIFAR-10 and ImageNet-30, 0.1 for
DIOR and WBC. Small norm = OOD: score it with the distance `norm` on the projection.

`form: self` needs no outlier data: quarter turns of the ID images that change what they show serve as
outliers, others as further ID items (the authors: 0 and 90 degrees ID, 180 and 270 degrees outliers).
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval
from torch import Tensor

from oodbench.api import Batch, Head, Natural, NonNegative, Positive, Shifts, State, Training
from oodbench.toolkit.losses import nt_xent

Turn = Annotated[int, Interval(ge=0, le=3)]


class OECL(Training):
    """OECL: contrastive training that shrinks the L2 norm of outliers; external or self-made outliers."""

    form: Literal["external", "self"] = "external"  # outliers are the study's, or turned ID images
    alpha: NonNegative = 1.0  # weight of the outliers' norm
    warmup: Natural = 50  # epochs with alpha = 0
    temperature: Positive = 0.5  # of the contrastive loss
    head: Head = "mlp_bn-128"  # form of the projection head
    id_turns: tuple[Turn, ...] = (0, 1)  # quarter turns, only for `form: self`
    outlier_turns: tuple[Turn, ...] = (2, 3)  # quarter turns that make outliers, only for `form: self`

    views = 2

    def __post_init__(self) -> None:
        if set(self.id_turns) & set(self.outlier_turns):
            raise ValueError(f"id_turns {self.id_turns} and outlier_turns {self.outlier_turns} share a turn")

    @property
    def least_epochs(self) -> int:
        return self.warmup + 1

    @property
    def outliers(self) -> bool:
        return self.form == "external"

    @property
    def shifts(self) -> Shifts:
        return Shifts(self.id_turns, self.outlier_turns) if self.form == "self" else Shifts()

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.outlier is not None
        loss = nt_xent(b.out["z"], self.temperature)
        if b.epoch < self.warmup:
            return loss, state
        return loss + self.alpha * b.outlier["z"].norm(dim=-1).mean(), state
