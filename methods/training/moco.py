"""MoCo v2, He et al. 2020, arXiv 1911.05722, eq. 1, and Chen et al. 2020, arXiv 2003.04297: contrast with a queue.

L = mean over queries q of -log(exp(q . k+ / t) / (exp(q . k+ / t) + sum over the queue of exp(q . k / t)))

A query is the first view of an item in the network, its key k+ the second one in a copy that moves slowly: after each
step each parameter of the copy is momentum * its own + (1 - momentum) * the network's (eq. 2). All have unit norm.
After the loss a batch's keys enter the queue, and the oldest leave it. It begins with random keys, as in the authors'
code. Version 2 is the MLP head, the temperature and the augmentation (a blur, which is the recipe's).

Both views pass the network, and both the copy, in one batch, and batch norm is that of the whole batch: the authors'
shuffling of it between devices, so that batch norm tells no query its key, is not here. Theirs are 65,536 keys for
ImageNet; their CIFAR notebook has 4096, momentum 0.99, temperature 0.1 and, as an option, `symmetric`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Features, Fraction, Head, Positive, Size, State, Training
from oodbench.toolkit.seeds import generator
from oodbench.toolkit.vectors import unit


class MoCo(Training):
    """MoCo v2: self-supervised contrastive training against a queue of keys of a slow copy of the network."""

    keys: Size = 4096  # in the queue
    momentum: Fraction = 0.999  # of the slow copy
    temperature: Positive = 0.2  # by which cosines are divided
    head: Head = "mlp-128"  # form of the projection head
    symmetric: bool = False  # True: each view is a query whose key is the other one

    views = 2

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head}

    def slowness(self, done: float) -> float:
        return self.momentum

    def init(self, f: Features, y: Tensor | None, seed: int) -> State:
        z = f.out["z"]
        return {
            "queue": unit(torch.randn(self.keys, z.shape[1], generator=generator(seed), dtype=z.dtype)).to(z.device)
        }

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.slow is not None
        z, slow = unit(b.out["z"]), unit(b.slow["z"])  # (2, B, P)
        queries, keys = (z.flatten(0, 1), slow.flip(0).flatten(0, 1)) if self.symmetric else (z[0], slow[1])
        own = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([own, queries @ state["queue"].T], 1) / self.temperature  # (n, 1 + keys)
        first = torch.zeros(len(logits), dtype=torch.int64, device=z.device)
        return F.cross_entropy(logits, first), {"queue": torch.cat([keys, state["queue"]])[: self.keys]}
