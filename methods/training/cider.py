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

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Features, Fraction, Head, NonNegative, Positive, State, Training
from oodbench.toolkit.vectors import centroids, unit


class CIDER(Training):
    """CIDER: unit-norm features compact around class prototypes, and prototypes dispersed."""

    momentum: Fraction = 0.95  # of prototypes, for each item
    weight: NonNegative = 2.0  # of the compactness term
    temperature: Positive = 0.1
    base_temperature: Positive = 0.07  # of the compactness term
    head: Head = "mlp-128"

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
        most = len(b.out["z"]) * int(np.bincount(b.y_host).max())
        prototype = moved(state["prototype"], z, y, self.momentum, most)
        kept = prototype.detach()
        compactness = F.cross_entropy(z @ kept.T / self.temperature, y) * self.temperature / self.base_temperature
        return self.weight * compactness + dispersion(prototype, self.temperature), {"prototype": kept}


def moved(prototype: Tensor, z: Tensor, y: Tensor, momentum: float, most: int) -> Tensor:
    """Return unit-norm prototypes (C, P) after each item of z (N, P), in its order, has moved that of its class y (N,).

    Classes do not touch each other, so that the n-th items of all classes move theirs together; no class has more than
    `most`. Each move depends on the length that the one before was brought to, so that there is no closed form.
    """
    classes = len(prototype)
    count = (y[:, None] == torch.arange(classes, device=y.device)).sum(0)  # bincount would make the host wait
    order = y.argsort(stable=True)
    place = torch.arange(len(y), device=y.device) - (count.cumsum(0) - count)[y[order]]  # of an item in its class
    items = z.new_zeros(most * classes, z.shape[1]).index_copy(0, place * classes + y[order], z[order])
    there = torch.arange(most, device=y.device)[:, None] < count
    for each, here in zip(items.view(most, classes, -1), there[..., None], strict=True):
        prototype = torch.where(here, unit(momentum * prototype + (1 - momentum) * each), prototype)
    return prototype


def dispersion(prototype: Tensor, temperature: float) -> Tensor:
    """Return the mean over prototypes (C, P) of the log of their mean exp(similarity / temperature) to the others."""
    itself = torch.eye(len(prototype), dtype=torch.bool, device=prototype.device)
    similarity = (prototype @ prototype.T / temperature).masked_fill(itself, -torch.inf)
    return similarity.logsumexp(1).mean() - math.log(len(prototype) - 1)
