"""Unit vectors and means of groups of vectors: what trainings and detectors both need."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Return x divided by its L2 norm along the last dimension; a zero vector stays zero."""
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length.clamp_min(torch.finfo(x.dtype).tiny)


def centroids(f: Tensor, assign: Tensor, k: int) -> Tensor:
    """Return the mean of each cluster (K, D) in float32; rows of noise (-1) count nowhere."""
    kept = assign >= 0
    sums = torch.zeros(k, f.shape[1], dtype=torch.float64, device=f.device)
    sums.index_add_(0, assign[kept], f[kept].double())
    counts = torch.bincount(assign[kept], minlength=k).clamp_min(1)
    return (sums / counts[:, None]).float()
