"""CSI, Tack et al. 2020, arXiv 2007.08176: contrastive training over shifted images, and a classifier of the shift.

Each image becomes four ID items, one for each quarter turn. L = contrastive loss of all views of all of them + cross-
entropy of a linear classifier that tells the turn from the penultimate features, 1 : 1.

Unlabelled, the contrastive loss is NT-Xent: the turned copies of an image are instances of their own, and negatives
of each other. With `labels: true` it is SupCon, whose positives share the class and the turn; the authors then fit a
joint classifier on the frozen encoder, which is not done here. Their temperatures are 0.5 and 0.07.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Head, Positive, Shifts, State, Training
from oodbench.losses import contrastive, nt_xent

TURNS = (0, 1, 2, 3)


class CSI(Training):
    """CSI: contrastive training with quarter turns as negatives, and as classes of a second head."""

    labels: bool = False  # True: positives share class and turn
    temperature: Positive | None = None  # null = 0.5, or 0.07 with labels
    head: Head = "mlp-128"

    views = 2
    shifts = Shifts(id=TURNS)

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head, "shift": f"linear-{len(TURNS)}"}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        told = F.cross_entropy(b.out["shift"].float().flatten(0, 1), b.shift.repeat(len(b.out["shift"])))
        return self._contrast(b) + told, state

    def _contrast(self, b: Batch) -> Tensor:
        if not self.labels:
            return nt_xent(b.out["z"], self.temperature or 0.5)
        assert b.y is not None
        return contrastive(b.out["z"], b.y * len(TURNS) + b.shift, self.temperature or 0.07)
