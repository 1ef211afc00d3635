"""CSI, Tack et al. 2020, arXiv 2007.08176: contrastive training over shifted images, and a classifier of the shift.

Each image becomes four ID items, one for each quarter turn.

    unlabelled      L = NT-Xent of all views of all items + cross-entropy of a linear classifier of the turn
    `labels: true`  L = SupCon of them, positives share the class and the turn

Unlabelled, the turned copies of an image are instances of their own, and negatives of each other; the classifier tells
the turn from the penultimate features. The labelled loss has no such part: in the authors' code (alinlab/CSI,
training/sup/sup_simclr_CSI.py) it is the contrastive one alone, and sup_CSI_linear.py then fits linear classifiers of
the class, of the turn and of both to the frozen encoder. So `labels: true` has no head of the turn, and no layer
`shifted`. The linear probe here stands for the classifier of the class (their score of a single image is its MSP); the
one of both, with their ensemble over four turns, is not here.

Their Supervised_NT_xent also counts an anchor among its |P| positives, which scales the gradient of its term by
|P| / (|P| + 1); ours is SupCon's, which does not. Their temperatures are 0.5 and 0.07.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Head, Positive, Shifts, State, Training
from oodbench.toolkit.losses import contrastive, nt_xent

TURNS = (0, 1, 2, 3)


class CSI(Training):
    """CSI: contrastive training with quarter turns as negatives, and without labels as classes of a second head."""

    labels: bool = False  # True: positives share class and turn, and no classifier of the turn
    temperature: Positive | None = None  # null = 0.5, or 0.07 with labels
    head: Head = "mlp-128"  # form of the projection head

    views = 2
    shifts = Shifts(id=TURNS)

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head} | ({} if self.labels else {"shift": f"linear-{len(TURNS)}"})

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        if self.labels:
            assert b.y is not None
            return contrastive(b.out["z"], b.y * len(TURNS) + b.shift, self.temperature or 0.07), state
        told = F.cross_entropy(b.out["shift"].flatten(0, 1), b.shift.repeat(len(b.out["shift"])))
        return nt_xent(b.out["z"], self.temperature or 0.5) + told, state
