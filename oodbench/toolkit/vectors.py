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


def group_sums(x: Tensor, group: Tensor, k: int) -> Tensor:
    """Return the sum (K, D), float64, of the rows of x (N, D) of each group 0 to K - 1; noise (-1) counts nowhere.

    It is the same twice: on a CUDA device, where `index_add_` adds in any order, the sums are matrix products.
    """
    sums = torch.zeros(k, x.shape[1], dtype=torch.float64, device=x.device)
    add = _add if x.is_cpu else _add_by_products
    for rows, own in zip(x.split(chunk(x)), group.split(chunk(x)), strict=True):
        add(sums, rows.double(), own)
    return sums


def _add(sums: Tensor, rows: Tensor, group: Tensor) -> None:
    kept = group >= 0
    sums.index_add_(0, *((group, rows) if kept.all() else (group[kept], rows[kept])))


def _add_by_products(sums: Tensor, rows: Tensor, group: Tensor) -> None:
    belongs = group == torch.arange(len(sums), device=group.device)[:, None]  # (K, B)
    sums.addmm_(belongs.to(sums.dtype), rows)


def centroids(f: Tensor, assign: Tensor, k: int) -> Tensor:
    """Return the mean of each cluster (K, D), summed in float64, in the type of f; rows of noise (-1) count nowhere."""
    counts = torch.bincount(assign[assign >= 0], minlength=k).clamp_min(1)
    return (group_sums(f, assign, k) / counts[:, None]).to(f.dtype)
