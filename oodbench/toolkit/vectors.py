"""Unit vectors, means of groups of vectors, blocks of rows: what trainings and detectors both need."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Return x divided by its L2 norm along the last dimension; a zero vector stays zero, with a finite gradient."""
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length.where(length >= torch.finfo(x.dtype).tiny, 1)


def chunk(x: Tensor) -> int:
    """Return how many rows of x (..., D) to take at a time where an intermediate grows with them: 32 MB in float64."""
    return max(256, 2**22 // x.shape[-1])


def centroids(f: Tensor, assign: Tensor, k: int) -> Tensor:
    """Return the mean of each cluster (K, D), summed in float64, in the type of f; rows of noise (-1) count nowhere."""
    sums = torch.zeros(k, f.shape[1], dtype=torch.float64, device=f.device)
    for rows, own in zip(f.split(chunk(f)), assign.split(chunk(f)), strict=True):
        kept = own >= 0
        sums.index_add_(0, own[kept], rows[kept].double())
    counts = torch.bincount(assign[assign >= 0], minlength=k).clamp_min(1)
    return (sums / counts[:, None]).to(f.dtype)
