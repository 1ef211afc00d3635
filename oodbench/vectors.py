"""Unit vectors and means of groups of vectors: what trainings and detectors both need."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 4096  # at a time where float64 copies are made


def unit(x: Tensor) -> Tensor:
    """Return x divided by its L2 norm along the last dimension; a zero vector stays zero."""
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length.clamp_min(torch.finfo(x.dtype).tiny)


def centroids(f: Tensor, assign: Tensor, k: int) -> Tensor:
    """Return the mean of each cluster (K, D) in float32; rows of noise (-1) count nowhere.

    Rows are summed in float64, block by block: f may be a mapped file.
    """
    sums = torch.zeros(k + 1, f.shape[1], dtype=torch.float64, device=f.device)  # the last is noise's
    place = torch.where(assign >= 0, assign, k)
    for rows, group in zip(f.split(ROWS), place.split(ROWS), strict=True):
        sums.index_add_(0, group, rows.double())
    counts = torch.bincount(place, minlength=k + 1).clamp_min(1)
    return (sums / counts[:, None])[:k].float()
