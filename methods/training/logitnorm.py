"""LogitNorm, Wei et al. 2022, arXiv 2205.09310: cross-entropy of logits of one length, 1 / temperature.

L = cross-entropy of f / (temperature * (||f||_2 + 1e-7)), f the logits; the small number, which keeps a zero vector
and its gradient finite, is the authors' code's. The temperature is 0.04 for CIFAR. Only the loss sees normalised
logits: detectors meet the raw ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from oodbench.api import Batch, Positive, State, Training

LEAST = 1e-7  # added to a length


class LogitNorm(Training):
    """LogitNorm: cross-entropy classifier on logits of constant norm."""

    temperature: Positive = 0.04  # by which the unit-length logits are divided

    labels = True

    @property
    def heads(self) -> dict[str, str]:
        return {"logits": "linear"}

    def loss(self, b: Batch, state: State) -> tuple[Tensor, State]:
        assert b.y is not None
        logits = b.out["logits"]  # (V, B, C)
        normalized = logits / (self.temperature * (logits.norm(dim=-1, keepdim=True) + LEAST))
        return F.cross_entropy(normalized.flatten(0, 1), b.y.repeat(len(logits))), state
