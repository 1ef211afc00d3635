"""CIDER, Ming et al. 2023, arXiv 2203.04450: unit-norm features near the prototype of their class, prototypes apart.

    L = weight * L_comp + L_dis, z unit-norm head outputs, mu_c unit-norm prototypes of C classes
    L_comp = temperature / base_temperature * mean over items i of -log softmax over c of (z_i . mu_c / t) at y_i
    L_dis  = mean over classes c of log(1/(C - 1) sum_{d != c} exp(mu_c . mu_d / t))

Prototypes begin as the means of the classes under the untrained network. Before the loss of a batch each of its
items, in the order of the batch and one view after the other, moves the prototype of its class:
mu <- unit(momentum * mu + (1 - momentum) * z). Gradients are those of the authors' code: L_dis is differentiated
through the prototypes as this batch has moved them, which is the only way it reaches the network; L_comp takes the
same prototypes as constants. No gradient reaches earlier batches.

The factor temperature / base_temperature is the authors' code's too: the paper's formula has none, and is had by
`base_temperature` equal to `temperature`. For CIFAR-10 theirs are momentum 0.95 and weight 2, for CIFAR-100 0.5 and 1.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Features, Fraction, Head, NonNegative, Positive, State, Training
from oodbench.toolkit.class_states import dispersion, moved
from oodbench.toolkit.vectors import centroids, unit


class CIDER(Training):
    """CIDER: unit-norm features compact around class prototypes, and prototypes dispersed."""

    momentum: Fraction = 0.95  # of prototypes, for each item
    weight: NonNegative = 2.0  # of the compactness term
    temperature: Positive = 0.1  # of both losses
    base_temperature: Positive = 0.07  # of the compactness term
    head: Head = "mlp-128"  # form of the projection head

    views = 2
    labels = True
    ordered = True

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head}

    def init(self, f: Features, y: Tensor | None, seed: int) -> State:
        assert y is not None
        return {"prototype": unit(centroids(unit(f.out["z"]), y, int(y.max()) + 1))}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.y is not None
        assert b.y_host is not None
        z = unit(b.out["z"].flatten(0, 1))  # (V*B, P)
        y = b.y.repeat(len(b.out["z"]))
        counts = len(b.out["z"]) * np.bincount(b.y_host, minlength=len(state["prototype"]))
        prototype = moved(state["prototype"], z, y, counts, self.momentum)
        kept = prototype.detach()
        compactness = F.cross_entropy(z @ kept.T / self.temperature, y) * self.temperature / self.base_temperature
        return self.weight * compactness + dispersion(prototype, self.temperature), {"prototype": kept}
