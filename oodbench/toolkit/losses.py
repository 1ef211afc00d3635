"""Losses that several trainings share. They are of the type of what they take: float32, or float64."""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.toolkit.vectors import unit


def contrastive(z: Tensor, group: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of z (V, B, P), where the positives of an item are its own views and its group.

    For each anchor i with positives P(i): -1/|P(i)| sum_{p in P(i)} log(exp(z_i.z_p/t) / sum_{a != i} exp(z_i.z_a/t)),
    the sum over positives outside the logarithm (Khosla et al. 2020, arXiv 2004.11362, eq. 2), averaged
    over the anchors that have a positive. With one item per group this is NT-Xent (Chen et al. 2020,
    arXiv 2002.05709, eq. 1). `group` is (B,) int64; z need not be normalised.
    """
    anchors = unit(z.flatten(0, 1))  # (V*B, P)
    groups = group.repeat(len(z))
    itself = torch.eye(len(anchors), dtype=torch.bool, device=z.device)
    positive = (groups[:, None] == groups) & ~itself
    similarity = (anchors @ anchors.T / temperature).masked_fill(itself, -torch.inf)
    log_p = (similarity - similarity.logsumexp(1, keepdim=True)).masked_fill(itself, 0)
    count = positive.sum(1)
    per_anchor = -(log_p * positive).sum(1) / count.clamp_min(1)
    return per_anchor.sum() / (count > 0).sum().clamp_min(1)


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent of z (V, B, P): the positives of a view are the other views of its item."""
    return contrastive(z, torch.arange(z.shape[1], device=z.device), temperature)
