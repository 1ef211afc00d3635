"""VOS, Du et al. 2022, arXiv 2202.01197, section 3: outliers drawn where Gaussians of the features are least likely.

    L = cross-entropy + weight * L_u, the latter from epoch `start` on
    L_u = mean over items and outliers of the cross-entropy of phi(-E), items being 1 and outliers 0
    -E  = log sum_c relu(w_c) exp(f_c), f the logits; w, one of each class, and phi, affine to two logits, are learned

A queue of each class holds its last `size` penultimate features. Each class is a Gaussian with the mean of its queue
and the covariance that all queues share, plus 1e-4 on its diagonal. Of `drawn` samples of it the `kept` ones of least
likelihood are its outliers, and pass the head of the logits alone. They are the samples furthest from the mean before
the covariance colours them.

The defaults are those of the authors' code for CIFAR (100 epochs). There a queue begins empty, and there are no
outliers until all are full; here it begins with features of the untrained network, which are gone after `size` items of
a class. Score by the posthoc `energy`, as the paper does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oodbench.api import Batch, Features, Loss, Natural, NonNegative, Size, State, Training
from oodbench.toolkit.class_states import pushed

RIDGE = 1e-4  # on the diagonal of the covariance


class Uncertainty(nn.Module):
    """What tells items from outliers by their energies: w and phi."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(classes))
        self.phi = nn.Linear(1, 2)

    def energy(self, logits: Tensor) -> Tensor:
        """Return -E (n,) of logits (n, C); finite also where no w is positive."""
        top = logits.detach().amax(1, keepdim=True)
        total = (self.weight.relu() * (logits - top).exp()).sum(1)
        return top[:, 0] + total.clamp_min(torch.finfo(logits.dtype).tiny).log()

    def forward(self, known: Tensor, strange: Tensor) -> Tensor:
        """Return L_u of logits of items (n, C) and of outliers (m, C)."""
        energies = torch.cat([self.energy(known), self.energy(strange)])
        target = torch.cat([known.new_ones(len(known)), known.new_zeros(len(strange))]).long()
        return F.cross_entropy(self.phi(energies[:, None]), target)


class VOS(Training):
    """VOS: cross-entropy classifier, and energies that tell items from virtual outliers of its feature space."""

    weight: NonNegative = 0.1  # of the outliers' term
    start: Natural = 40  # epochs without it
    size: Size = 1000  # of a class's queue
    drawn: Size = 10_000  # samples of a class's Gaussian
    kept: Size = 1  # of them, the least likely

    labels = True

    def __post_init__(self) -> None:
        if self.kept > self.drawn:
            raise ValueError(f"kept ({self.kept}) is more than drawn ({self.drawn})")

    @property
    def least_epochs(self) -> int:
        return self.start + 1

    @property
    def heads(self) -> dict[str, str]:
        return {"logits": "linear"}

    def learned(self, dim: int, classes: int) -> nn.Module:
        return Uncertainty(classes)

    def init(self, f: Features, y: Tensor | None, seed: int) -> State:
        assert y is not None
        own = [f.h[y == c] for c in range(int(y.max()) + 1)]
        return {"queue": torch.stack([rows[torch.arange(self.size) % len(rows)] for rows in own])}

    def loss(self, b: Batch, state: State) -> tuple[Loss, State]:
        assert b.y is not None
        assert b.learned is not None
        logits = b.out["logits"].flatten(0, 1)  # (V*B, C)
        y = b.y.repeat(len(b.h))
        terms = {"cross_entropy": F.cross_entropy(logits, y)}
        queue = pushed(state["queue"], b.h.detach().flatten(0, 1), y)
        if b.epoch >= self.start:
            strange = b.heads["logits"](outliers(queue, self.drawn, self.kept))
            terms["uncertainty"] = self.weight * b.learned(logits, strange)
        return terms, {"queue": queue}


def outliers(queue: Tensor, drawn: int, kept: int) -> Tensor:
    """Return the least likely of samples of each class's Gaussian (C * kept, D), given the queues (C, S, D)."""
    mean = queue.mean(1)  # (C, D)
    centred = (queue - mean[:, None]).flatten(0, 1).double()
    covariance = centred.T @ centred / len(centred)
    covariance.diagonal().add_(RIDGE)
    root = torch.linalg.cholesky_ex(covariance).L.to(queue.dtype)
    found = []
    for own in mean:
        noise = torch.randn(drawn, len(own), device=queue.device, dtype=queue.dtype)
        furthest = noise.square().sum(1).topk(kept).indices
        found.append(own + noise[furthest] @ root.T)
    return torch.cat(found)
