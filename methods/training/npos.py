"""NPOS, Tao et al. 2023, arXiv 2303.02966: outliers around the features that are furthest from their neighbours.

    L = L_closed + weight * L_open, the latter from epoch `start` on
    L_closed = L_comp + dispersion * L_dis, those of CIDER (arXiv 2203.04450), on unit-norm head outputs z:
        L_comp = temperature / base_temperature * mean over items of -log softmax over c of (z . mu_c / t) at y
        L_dis  = mean over classes c of log(1/(C - 1) sum_{d != c} exp(mu_c . mu_d / t))
    L_open = mean over items and outliers of the binary cross-entropy of phi, items being 1 and outliers 0;
        phi, the head `inside`, is an MLP of penultimate features h

Each item in turn moves the prototype of its class, mu <- unit(momentum * mu + (1 - momentum) * z); L_dis is
differentiated through that, L_comp is not. A queue of each class holds its last `size` h. By the distance to the k-th
nearest neighbour among the unit-norm h of its class's queue, an item itself counting as its first neighbour:

    the `boundary` items of greatest distance are the boundary of a class, of which `picked` are drawn;
    around each, `drawn` candidates are h + sigma * Gaussian noise, the same noise for all; of these the `kept` ones of
    greatest distance are outliers, all others are rejected.

The defaults are those of OpenOOD's npos_trainer.py for CIFAR (100 epochs), which follows the authors' KNN.py. Theirs
numbers the candidates in one order and reads them in another, so that it keeps some by the distances of others; it
gives phi a tenth of the learning rate, and waits until empty queues are full, where these begin with features of the
untrained network. Score by the distance `knn` on unit-norm penultimate features, as the paper does.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Features, Fraction, Head, Loss, Natural, NonNegative, Positive, Size, State, Training
from oodbench.toolkit.class_states import dispersion, moved, pushed
from oodbench.toolkit.vectors import centroids, unit


class NPOS(Training):
    """NPOS: compact classes with prototypes, and a classifier that tells items from outliers around their boundary."""

    weight: NonNegative = 0.1  # of the outliers' term
    start: Natural = 40  # epochs without it
    size: Size = 1000  # of a class's queue
    k: Size = 300  # neighbours, the last of which tells the distance
    boundary: Size = 200  # items of a class, those of greatest distance
    picked: Size = 2  # of them, at random
    drawn: Size = 600  # candidates around each
    kept: Size = 200  # of them, those of greatest distance
    sigma: Positive = 0.1  # of the candidates' noise
    momentum: Fraction = 0.95  # of prototypes, for each item
    dispersion: NonNegative = 0.5  # weight of the dispersion of prototypes
    temperature: Positive = 0.1  # of compactness and dispersion
    base_temperature: Positive = 0.07  # of the compactness
    head: Head = "mlp-128"  # form of the projection head
    inside: Head = "mlp-128-1"  # form of phi, with one output

    views = 2
    labels = True
    ordered = True

    def __post_init__(self) -> None:
        for less, more in (("k", "size"), ("boundary", "size"), ("picked", "boundary"), ("kept", "drawn")):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(f"{less} ({getattr(self, less)}) is more than {more} ({getattr(self, more)})")
        if not self.inside.endswith("-1"):
            raise ValueError(f"inside is {self.inside!r}, a head of one output is wanted, such as mlp-128-1")

    @property
    def least_epochs(self) -> int:
        return self.start + 1

    @property
    def heads(self) -> dict[str, str]:
        return {"z": self.head, "inside": self.inside}

    def init(self, f: Features, y: Tensor | None, seed: int) -> State:
        assert y is not None
        own = [f.h[y == c] for c in range(int(y.max()) + 1)]
        queue = torch.stack([rows[torch.arange(self.size) % len(rows)] for rows in own])
        return {"queue": queue, "prototype": unit(centroids(unit(f.out["z"]), y, len(own)))}

    def loss(self, b: Batch, state: State) -> tuple[Loss, State]:
        assert b.y is not None
        assert b.y_host is not None
        y, counts = b.y.repeat(len(b.h)), len(b.h) * np.bincount(b.y_host, minlength=len(state["prototype"]))
        z = unit(b.out["z"].flatten(0, 1))  # (V*B, P)
        prototype = moved(state["prototype"], z, y, counts, self.momentum)
        terms = self._closed(z, y, prototype)
        queue = pushed(state["queue"], b.h.detach().flatten(0, 1), y)
        if b.epoch >= self.start:
            inside = b.out["inside"].flatten()  # (V*B,)
            outside = b.heads["inside"](self.synthesised(queue)).flatten()
            target = torch.cat([torch.ones_like(inside), torch.zeros_like(outside)])
            terms["open"] = self.weight * F.binary_cross_entropy_with_logits(torch.cat([inside, outside]), target)
        return terms, {"queue": queue, "prototype": prototype.detach()}

    def _closed(self, z: Tensor, y: Tensor, prototype: Tensor) -> dict[str, Tensor]:
        """Return the terms of L_closed of unit-norm z (n, P), of classes y (n,), and prototypes (C, P) that moved."""
        scores = z @ prototype.detach().T / self.temperature
        compactness = F.cross_entropy(scores, y) * self.temperature / self.base_temperature
        return {"compactness": compactness, "dispersion": self.dispersion * dispersion(prototype, self.temperature)}

    def synthesised(self, queue: Tensor) -> Tensor:
        """Return outliers (C * picked * kept, D) of the queues (C, S, D) of all classes."""
        dim, where = queue.shape[2], queue.device
        noise = self.sigma * torch.randn(self.drawn, dim, device=where, dtype=queue.dtype)
        found = []
        for own in queue:  # (S, D)
            edge = neighbour_distance(own, own, self.k).topk(self.boundary).indices
            points = own[edge[torch.randperm(self.boundary, device=where)[: self.picked]]]
            candidates = points[:, None] + noise  # (picked, drawn, D)
            distance = neighbour_distance(candidates.flatten(0, 1), own, self.k).view(len(points), -1)
            furthest = distance.topk(self.kept).indices  # (picked, kept)
            found.append(candidates.gather(1, furthest[..., None].expand(-1, -1, dim)).flatten(0, 1))
        return torch.cat(found)


def neighbour_distance(x: Tensor, f: Tensor, k: int) -> Tensor:
    """Return the distance (n,) of each row of x (n, D) to its k-th nearest among f (S, D), all at unit length."""
    return torch.cdist(unit(x), unit(f)).topk(k, largest=False, sorted=False).values.amax(1)
