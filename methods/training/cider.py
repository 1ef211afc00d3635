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
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from oodbench.api import Batch, Features, Fraction, Head, NonNegative, Positive, State, Training
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


def moved(prototype: Tensor, z: Tensor, y: Tensor, counts: NDArray[np.int64], momentum: float) -> Tensor:
    """Return unit-norm prototypes (C, P) after each item of z (N, P), in its order, has moved that of its class y (N,).

    Classes do not touch each other, so that the n-th items of all classes, which have so many (C,), move theirs
    together. Each move depends on the length that the one before was brought to, so that there is no closed form.
    """
    classes, most = len(prototype), int(counts.max())
    count = (y[:, None] == torch.arange(classes, device=y.device)).sum(0)  # on the device; bincount makes the host wait
    falling = count.argsort(descending=True, stable=True)
    rank = falling.argsort()
    order = y.argsort(stable=True)
    place = torch.arange(len(y), device=y.device) - (count.cumsum(0) - count)[y[order]]  # of an item in its class
    items = z.new_zeros(most * classes, z.shape[1]).index_copy(0, place * classes + rank[y[order]], z[order])
    having = [int((counts > n).sum()) for n in range(most)]  # classes, the first ones, that have an n-th item
    found: Tensor = _Moves.apply(prototype[falling], items.view(most, classes, -1), having, momentum)
    return found[rank]


class _Moves(torch.autograd.Function):
    """Moves of prototypes one after the other, with the few operations that each needs: on a device all else waits.

    mu_n = v / |v| for v = m mu_{n-1} + (1 - m) z_n has the gradient dv = (g - (g . mu_n) mu_n) / |v| of g at mu_n.
    """

    @staticmethod
    def forward(ctx: Any, prototype: Tensor, items: Tensor, having: list[int], momentum: float) -> Tensor:
        """Return prototypes (C, P) that have moved by items (N, C, P), of which the first `having` count (N,)."""
        found, moves, lengths = prototype.clone(), (1 - momentum) * items, items.new_ones(*items.shape[:2], 1)
        for n, c in enumerate(having):
            v = moves[n, :c].add_(found[:c], alpha=momentum)
            length = torch.linalg.vector_norm(v, dim=1, keepdim=True, out=lengths[n, :c])
            torch.div(v, length.masked_fill_(length < torch.finfo(v.dtype).tiny, 1), out=found[:c])
            v.copy_(found[:c])
        ctx.save_for_backward(moves, lengths)
        ctx.having, ctx.momentum = having, momentum
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        moves, lengths = ctx.saved_tensors
        g, found = gradient.clone(), torch.zeros_like(moves)
        for n, c in reversed(list(enumerate(ctx.having))):
            mu = moves[n, :c]
            along = (g[:c] * mu).sum(1, keepdim=True)
            dv = torch.addcmul(g[:c], along, mu, value=-1, out=found[n, :c]).div_(lengths[n, :c])
            torch.mul(dv, ctx.momentum, out=g[:c])
        return g, (1 - ctx.momentum) * found, None, None


def dispersion(prototype: Tensor, temperature: float) -> Tensor:
    """Return the mean over prototypes (C, P) of the log of their mean exp(similarity / temperature) to the others."""
    itself = torch.eye(len(prototype), dtype=torch.bool, device=prototype.device)
    similarity = (prototype @ prototype.T / temperature).masked_fill(itself, -torch.inf)
    return similarity.logsumexp(1).mean() - math.log(len(prototype) - 1)
