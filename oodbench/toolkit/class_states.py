"""What trainings keep of each class: prototypes that items move, and queues of features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable


def pushed(queue: Tensor, rows: Tensor, y: Tensor) -> Tensor:
    """Return queues (C, S, D), the oldest first, after each row (n, D) has pushed the oldest of its class out."""
    classes, size, _ = queue.shape
    count = (y[:, None] == torch.arange(classes, device=y.device)).sum(0)[:, None]  # of each class's rows
    place = torch.arange(size, device=y.device) + count  # (C, S) in a queue with the rows of its class behind it
    row = (count.cumsum(0) - count + place - size).clamp(0, len(y) - 1)  # of those places, among the rows by class
    kept = queue.gather(1, place.clamp(max=size - 1)[..., None].expand_as(queue))
    return torch.where((place < size)[..., None], kept, rows[y.argsort(stable=True)[row]])


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
