"""The linear algebra that distances and spaces share.

Distances of rows (N x D) are float32, covariances (D x D) float64. Features are centred before squared
distances are expanded, so that a large common mean costs no digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 8192  # rows at a time where an intermediate grows with the rows


def squared_distances_to(points: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function from x (M, D) to its squared Euclidean distances (M, K) to points (K, D), float32.

    Both are centred on the mean of the points before |x|^2 - 2 x.p + |p|^2 is formed. The mean is rounded to
    float32, for any point near it does: a subtraction of near float32 numbers is exact.
    """
    middle = points.mean(0).float()
    p = (points - middle).float()
    p_squared = p.square().sum(1)

    def measure(x: Tensor) -> Tensor:
        x = (x - middle).float()
        squares = torch.addmm(p_squared, x, p.T, alpha=-2)  # (M, K), without |x|^2
        return squares.add_(x.square().sum(1, keepdim=True)).clamp_min_(0)

    return measure


def nearest(x: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distance (M,) float32 of x (M, D) to the nearest of points (K, D), and which it is."""
    measure = squared_distances_to(points)
    found = [measure(rows).min(1) for rows in x.split(CHUNK)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


class Moments(NamedTuple):
    """Mean (D,) and covariance (D, D) of rows, float64, divided by their number."""

    mean: Tensor
    covariance: Tensor


def moments(x: Tensor) -> Moments:
    """Return the mean and the maximum-likelihood covariance of x (N, D)."""
    mean = x.double().mean(0)
    return Moments(mean, scatter(x, mean) / len(x))


def scatter(x: Tensor, center: Tensor) -> Tensor:
    """Return the sum of outer products of x (N, D) about a center (D,) or one for each row (N, D), float64.

    Residuals are formed before they are multiplied, and multiplied in float64: the smallest eigenvalues decide
    Mahalanobis distances, and float32 would bury them under its rounding.
    """
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for start in range(0, len(x), CHUNK):
        rows = slice(start, start + CHUNK)
        residual = x[rows].double() - (center if center.ndim == 1 else center[rows])
        total.addmm_(residual.T, residual)
    return total


def principal_axes(covariance: Tensor, k: int) -> Tensor:
    """Return the k eigenvectors (D, k) of the largest eigenvalues, each with its largest entry positive."""
    vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :k]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(vectors.dtype)
    return torch.mul(vectors, sign)
