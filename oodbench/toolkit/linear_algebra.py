"""The linear algebra that distances and spaces share.

Distances of rows (N x D) are float32, covariances (D x D) float64. Features are centred before squared
distances are expanded, so that a large common mean costs no digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from oodbench.toolkit.vectors import group_sums

BLOCK = 2048  # rows at a time where several passes over them should find them in the CPU's cache
DIGITS = 2.0**-16  # of squared lengths; of smaller squared distances float32 leaves fewer than three digits
BLOCKS = 8  # of the columns of a triangular matrix: 9/16 of the products that a full one takes


def squared_distances_to(points: Tensor, among: bool = False) -> Callable[[Tensor], Tensor]:
    """Return a function from x (M, D) to its squared Euclidean distances (M, K) to points (K, D), float32.

    Both are centred on the mean of the points before |x|^2 - 2 x.p + |p|^2 is formed. The mean is rounded to
    float32, for any point near it does: a subtraction of near float32 numbers is exact. Rows with a point so near
    that float32 leaves few digits are formed in float64; `among` says that x are points themselves, each of which
    does not count as near itself.
    """
    count = min(1 + among, len(points))
    middle = points.mean(0).float()
    p = (points - middle).float()
    p_squared = p.square().sum(1)

    def expanded(x: Tensor, p: Tensor, p_squared: Tensor) -> tuple[Tensor, Tensor]:
        lengths = x.square().sum(1, keepdim=True)
        return torch.addmm(p_squared, x, p.T, alpha=-2).add_(lengths).clamp_min_(0), lengths[:, 0]  # (M, K), (M,)

    def measure(x: Tensor) -> Tensor:
        squares, lengths = expanded((x - middle).float(), p, p_squared)
        least = squares.topk(count, largest=False)
        near = least.values[:, -1] < DIGITS * (lengths + p_squared[least.indices[:, -1]])
        if near.any():
            wide = points.double() - middle
            exact, _ = expanded(x[near].double() - middle, wide, wide.square().sum(1))
            squares[near] = exact.float()
        return squares

    return measure


def nearest_to(points: Tensor, w: Tensor | None = None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function from x (M, D) to the squared distance (M,), float64, of the nearest point, and which it is.

    Distances to points (K, D) are Euclidean, or those of x W and points W: W is (D, R) as `lower` makes it, or
    (D,) for a diagonal one. The nearest is found by expanded squares about the mean of the points; the distance is
    that of the difference, which keeps the digits that expanded squares lose where clusters are farther apart than
    they are wide. Where float32 would leave few, both are in float64.
    """
    dtype = points.dtype if w is None else w.dtype
    middle = points.double().mean(0).to(dtype)
    at = points.double() - middle
    if w is not None:
        at = at * w if w.ndim == 1 else at @ w.double()
    at = at.to(dtype)
    half = at.square().sum(1) / 2
    carry = _carry(at, w)

    def exactly(rows: Tensor) -> tuple[Tensor, Tensor]:
        return nearest_to(points.double(), None if w is None else w.double())(rows)

    def measure(x: Tensor) -> tuple[Tensor, Tensor]:
        squares, places = [], []
        for rows in x.split(BLOCK):
            products, seen = carry(rows - middle)
            place = (half - products).argmin(1)
            square = torch.linalg.vector_norm(at.index_select(0, place).sub_(seen), dim=1).double().square_()
            if dtype != torch.float64:
                near = square < DIGITS * (seen.square().sum(1) + 2 * half[place])
                if near.any():
                    square[near], place[near] = exactly(rows[near].double())
            squares.append(square)
            places.append(place)
        return torch.cat(squares), torch.cat(places)

    return measure


def _carry(at: Tensor, w: Tensor | None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function from rows (B, D) to their products (B, K) with points `at` (K, R), and the rows times W (B, R).

    The zeros of a lower W are not multiplied, but for those within BLOCKS blocks on its diagonal.
    """
    if w is None:
        return lambda rows: (rows @ at.T, rows)
    if w.ndim == 1:
        return lambda rows: ((scaled := rows * w) @ at.T, scaled)
    k, rank = len(at), w.shape[1]
    both = torch.cat([w @ at.T, w], 1)  # (D, K + R)
    starts = sorted({rank * i // BLOCKS for i in range(BLOCKS)})  # column j of W is zero above row j
    ends = [k + start for start in (*starts[1:], rank)]
    pieces = [
        (start, slice(k + start if start else 0, end), both[start:, k + start if start else 0 : end].contiguous())
        for start, end in zip(starts, ends, strict=True)
    ]

    def carry(rows: Tensor) -> tuple[Tensor, Tensor]:
        out = rows.new_empty(len(rows), k + rank)
        for start, columns, piece in pieces:
            torch.mm(rows[:, start:], piece, out=out[:, columns])
        return out[:, :k], out[:, k:]

    return carry


def squared_distances(x: Tensor, points: Tensor) -> Tensor:
    """Return the squared Euclidean distances (M, K), float32, of x (M, D) to points (K, D)."""
    measure = squared_distances_to(points)
    return torch.cat([measure(rows) for rows in x.split(BLOCK)])


def squares_between(x: Tensor, points: Tensor) -> Tensor:
    """Return the squared distance (M,), float64, of each of x (M, D) to a point of its own (M, D).

    It is that of their difference: expanded in float32 it would lose the digits by which clusters are farther
    apart than they are wide.
    """
    pairs = zip(x.split(BLOCK), points.split(BLOCK), strict=True)
    return torch.cat([(rows.double() - own).square().sum(1) for rows, own in pairs])


def mean(x: Tensor) -> Tensor:
    """Return the mean (D,) of x (N, D), float64."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for rows in x.split(BLOCK):
        total += rows.double().sum(0)
    return total / len(x)


def means(x: Tensor, assign: Tensor) -> Tensor:
    """Return the mean (K, D), float64, of the rows of x (N, D) that have each number 0 to K - 1.

    A covariance is about these. About centroids that are rounded to float32, or soft, a cluster of no more items than
    dimensions would vary a little where its items do not, and a pseudo-inverse makes much of it.
    """
    counts = torch.bincount(assign)
    return group_sums(x, assign, len(counts)) / counts.clamp_min(1)[:, None]


class Moments(NamedTuple):
    """Mean (D,) and covariance (D, D) of rows, float64, divided by their number."""

    mean: Tensor
    covariance: Tensor


def moments(x: Tensor) -> Moments:
    """Return the mean and the maximum-likelihood covariance of x (N, D)."""
    middle = mean(x)
    return Moments(middle, scatter(x, middle) / len(x))


def members(f: Tensor, assign: Tensor) -> tuple[Tensor, Tensor]:
    """Return the items (M, D) that belong to a cluster, and their clusters (M,); f itself where none is noise."""
    member = assign >= 0
    return (f, assign) if member.all() else (f[member], assign[member])


def residuals(x: Tensor, center: Tensor, assign: Tensor | None = None) -> Iterator[Tensor]:
    """Yield x (N, D) about a center (D,), or under an assignment (N,) about centers (K, D), float64, in blocks."""
    blocks = x.split(BLOCK)
    if assign is None:
        yield from (rows.double() - center for rows in blocks)
    else:
        pairs = zip(blocks, assign.split(BLOCK), strict=True)
        yield from (rows.double() - center.index_select(0, own) for rows, own in pairs)


def scatter(x: Tensor, center: Tensor, assign: Tensor | None = None) -> Tensor:
    """Return the sum of outer products (D, D), float64, of x about its centers as `residuals` has them.

    Residuals are formed before they are multiplied, and multiplied in float64: the smallest eigenvalues decide
    Mahalanobis distances, and float32 would bury them under its rounding.
    """
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for residual in residuals(x, center, assign):
        total.addmm_(residual.T, residual)
    return total


def squares(x: Tensor, center: Tensor, assign: Tensor | None = None) -> Tensor:
    """Return the sum of squares of each dimension (D,), float64: the diagonal of `scatter`."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for residual in residuals(x, center, assign):
        total += residual.square_().sum(0)
    return total


EPS32, EPS64 = (torch.finfo(each).eps for each in (torch.float32, torch.float64))


def rounding(x: Tensor) -> float:
    """Return the variance that rounding to float32 gives x (N, D) in any one direction, at most."""
    return EPS32**2 * float(squares(x, torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)).sum() / len(x))


def smallest(covariance: Tensor) -> float:
    """Return the smallest variance that is not rounding of a covariance (D, D): D times float64's of the largest."""
    return len(covariance) * EPS64 * float(torch.linalg.eigvalsh(covariance)[-1])


def whitening(
    covariance: Tensor, n: int, label: str, components: int | None = None, least: float = 0.0, eps: float = EPS64
) -> Tensor:
    """Return W (D, R), float64, with W W^T the pseudo-inverse of a covariance (D, D) made of n items.

    Directions of no variance are ignored and warned of under a label: those of `least` at most, or D times `eps` of the
    largest variance, where scikit-learn's pinvh cuts; `components` keeps only so many directions of largest variance,
    and then nothing is warned of. Raises ValueError where there is no variance at all, as there is none of one item.
    """
    if n < 2:
        raise ValueError(f"{label}: a cluster of {n} item has no covariance")
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)  # largest first
    dim = len(values)
    rank = int((values > max(least, float(values[0]) * dim * eps)).sum())
    if rank == 0:
        raise ValueError(f"{label}: the features have no variance")
    if components is None and rank < dim:
        warnings.warn(f"{label}: rank {rank} of {dim}, from {n} items", stacklevel=2)
    kept = rank if components is None else min(rank, components)
    return torch.div(vectors[:, :kept], values[:kept].sqrt())


def lower(w: Tensor) -> Tensor:
    """Return the lower trapezoidal L (D, R) with L L^T = W W^T for W (D, R): the same distances, fewer products."""
    triangle: Tensor = torch.linalg.qr(w.T).R
    return triangle.T.contiguous()


def whitened_squares(x: Tensor, centers: Tensor, whitenings: Sequence[Tensor]) -> Tensor:
    """Return the squared lengths (M, K) of (x - center) W for each of K centers (K, D) and its own W.

    W is (D, R), or (D,) for a diagonal one. Items x (M, D) are centred in float64 and multiplied in W's precision.
    """

    def lengths(rows: Tensor, center: Tensor, w: Tensor) -> Tensor:
        residual = (rows.double() - center).to(w.dtype)
        return (residual * w if w.ndim == 1 else residual @ w).square().sum(1)

    pairs = list(zip(centers.double(), whitenings, strict=True))
    return torch.cat([torch.stack([lengths(rows, *pair) for pair in pairs], 1) for rows in x.split(BLOCK)])


def standardizer(train: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that z-scores features (..., D) in float64 by the mean and deviation of train (N, D).

    A dimension that is constant in training is only centred.
    """
    middle = mean(train)
    std = (squares(train, middle) / len(train)).sqrt()
    constant = torch.stack([(rows == train[0]).all(0) for rows in train.split(BLOCK)]).all(0)
    scale = torch.where(constant, 1.0, std)  # the mean of equal values may be rounded
    return lambda f: (f.double() - middle) / scale


def principal_axes(covariance: Tensor, k: int) -> Tensor:
    """Return the k eigenvectors (D, k) of the largest eigenvalues, each with its largest entry positive."""
    vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :k]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(vectors.dtype)
    return torch.mul(vectors, sign)
