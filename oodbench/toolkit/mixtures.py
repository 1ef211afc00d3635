"""Gaussian mixtures by expectation-maximisation (Dempster et al. 1977), scikit-learn's algorithm with less work.

Seeds, stopping rule and restarts are scikit-learn's `GaussianMixture`, and so are the numbers. What is saved:

    tied  x'Px is the same for every component, so responsibilities need x'Pm alone, one product of all items
          with K vectors; the sum of outer products never changes, and is formed once
    full  an item whose responsibility vanishes is left out of a component's covariance

Products of items with matrices are in the precision of the items; sums over items, and what is decomposed, are
float64: float32 would bury the smallest variances where components lie far apart. Full covariances are formed
of residuals about the previous mean.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from oodbench.toolkit.linear_algebra import scatter
from oodbench.toolkit.vectors import group_sums

ROWS = 4096  # items at a time
TOLERANCE = 1e-3  # of the mean log-likelihood between two iterations, scikit-learn's
VANISHED = 1e-10  # a responsibility that adds nothing to a covariance
SMALLEST = 10 * torch.finfo(torch.float64).eps  # items of a component that has none, scikit-learn's


class Mixture(NamedTuple):
    """Parameters in float64."""

    weight: Tensor  # (K,)
    mean: Tensor  # (K, D)
    covariance: Tensor  # tied (D, D), full (K, D, D)


class EM(ABC):
    """Expectation-maximisation on items x (N, D), whose mean is best near 0; `floor` is added to all variances."""

    def __init__(self, x: Tensor, floor: float) -> None:
        self.x = x
        self.floor = floor * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)

    @abstractmethod
    def start(self, assign: Tensor, k: int) -> Mixture:
        """Return the mixture whose responsibilities are given clusters (N,)."""

    @abstractmethod
    def step(self, m: Mixture) -> tuple[Mixture, float]:
        """Return the mixture after one iteration, and the mean log-likelihood of x under the one before."""

    @abstractmethod
    def log_densities(self, m: Mixture) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield blocks of x (B, D), and the log of weight x density (B, K), up to a number that all share."""

    def assign(self, m: Mixture) -> Tensor:
        """Return the most probable component (N,)."""
        return torch.cat([logs.argmax(1) for _, logs in self.log_densities(m)])

    def _means(self, assign: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the number of items (K,) of each cluster and their sums (K, D)."""
        return torch.bincount(assign, minlength=k).double() + SMALLEST, group_sums(self.x, assign, k)


class Tied(EM):
    """One covariance for all components."""

    def __init__(self, x: Tensor, floor: float) -> None:
        super().__init__(x, floor)
        self._total = scatter(x, x.new_zeros(x.shape[1], dtype=torch.float64)) / len(x)

    def start(self, assign: Tensor, k: int) -> Mixture:
        return self._of(*self._means(assign, k))

    def step(self, m: Mixture) -> tuple[Mixture, float]:
        sums, counts, logs = torch.zeros_like(m.mean), torch.zeros_like(m.weight), 0.0
        for rows, densities in self.log_densities(m):
            share, log = _responsibilities(densities)
            sums.addmm_(share.T, rows.double())
            counts += share.sum(0)
            logs += float(log.sum())
        return self._of(counts + SMALLEST, sums), logs / len(self.x) + self._shared(m)

    def _of(self, counts: Tensor, sums: Tensor) -> Mixture:
        mean = sums / counts[:, None]
        covariance = self._total - (mean.T * counts) @ mean / len(self.x) + self.floor
        return Mixture(counts / counts.sum(), mean, covariance)

    def _shared(self, m: Mixture) -> float:
        """Return the mean over items of what `log_densities` leaves out: -(x'Px + log det + D log 2 pi) / 2."""
        lower = _cholesky(m.covariance)
        squares = (torch.cholesky_inverse(lower) * self._total).sum()
        return float(-(squares + len(lower) * math.log(2 * math.pi)) / 2 - lower.diagonal().log().sum())

    def log_densities(self, m: Mixture) -> Iterator[tuple[Tensor, Tensor]]:
        direction = torch.cholesky_solve(m.mean.T, _cholesky(m.covariance))  # (D, K) P m
        offset = (m.weight.log() - (m.mean.T * direction).sum(0) / 2).to(self.x.dtype)
        direction = direction.to(self.x.dtype)
        for rows in self.x.split(ROWS):
            yield rows, torch.addmm(offset, rows, direction)


class Full(EM):
    """Each component has its own covariance."""

    def start(self, assign: Tensor, k: int) -> Mixture:
        counts, sums = self._means(assign, k)
        hard = (torch.nn.functional.one_hot(each, k).double() for each in assign.split(ROWS))
        return self._of(zip(self.x.split(ROWS), hard, strict=True), sums / counts[:, None])

    def step(self, m: Mixture) -> tuple[Mixture, float]:
        logs = []

        def shares() -> Iterator[tuple[Tensor, Tensor]]:
            for rows, densities in self.log_densities(m):
                share, log = _responsibilities(densities)
                logs.append(float(log.sum()))
                yield rows, share

        return self._of(shares(), m.mean), sum(logs) / len(self.x)

    def _of(self, shares: Iterator[tuple[Tensor, Tensor]], near: Tensor) -> Mixture:
        """Return the mixture of blocks (B, D) and responsibilities (B, K), float64, summed about means near it."""
        k, dim = near.shape
        near = near.to(self.x.dtype)
        counts = torch.full((k,), SMALLEST, dtype=torch.float64, device=near.device)
        sums, squares = counts.new_zeros(k, dim), counts.new_zeros(k, dim, dim)
        for rows, share in shares:
            counts += share.sum(0)
            for j in range(k):
                some = (share[:, j] > VANISHED).nonzero()[:, 0]
                residual = (rows[some] - near[j]).double()
                weighted = residual * share[some, j, None]
                sums[j] += weighted.sum(0)
                squares[j].addmm_(weighted.T, residual)
        moved = sums / counts[:, None]
        covariance = squares / counts[:, None, None] - moved[:, :, None] * moved[:, None] + self.floor
        return Mixture(counts / counts.sum(), near + moved, covariance)

    def log_densities(self, m: Mixture) -> Iterator[tuple[Tensor, Tensor]]:
        k, dim = m.mean.shape
        lower = _cholesky(m.covariance)
        eye = torch.eye(dim, dtype=torch.float64, device=lower.device).expand_as(lower)
        whitening = torch.linalg.solve_triangular(lower, eye, upper=False).mT.to(self.x.dtype).contiguous()
        offset = m.weight.log() - lower.diagonal(dim1=1, dim2=2).log().sum(1) - dim / 2 * math.log(2 * math.pi)
        near = m.mean.to(self.x.dtype)
        for rows in self.x.split(ROWS):
            squares = torch.stack([((rows - near[j]) @ whitening[j]).square_().sum(1) for j in range(k)], 1)
            yield rows, offset - squares.double() / 2


def fit_mixture(
    x: Tensor, k: int, kind: Literal["tied", "full"], floor: float, restarts: int, iterations: int, seed: int
) -> tuple[Mixture, Tensor]:
    """Return the most likely mixture of several restarts, each from k-means, and the component (N,) of each item.

    Warns where the best of them had not come to rest after so many iterations.
    """
    middle = x.mean(0)
    em = Tied(x - middle, floor) if kind == "tied" else Full(x - middle, floor)
    rng = np.random.RandomState(seed)  # as scikit-learn does: the restarts draw from one stream
    tries = [_once(em, k, iterations, rng) for _ in range(restarts)]
    mixture, _, rests = max(tries, key=lambda each: each[1])
    if not rests:
        warnings.warn(f"the mixture still moved after {iterations} iterations", ConvergenceWarning, stacklevel=2)
    return mixture._replace(mean=mixture.mean + middle), em.assign(mixture)


def _once(em: EM, k: int, iterations: int, rng: np.random.RandomState) -> tuple[Mixture, float, bool]:
    """Return a mixture, its mean log-likelihood before the last iteration, and whether it came to rest."""
    labels = KMeans(k, n_init=1, random_state=rng).fit(em.x.cpu().numpy()).labels_
    mixture = em.start(torch.as_tensor(labels, dtype=torch.int64, device=em.x.device), k)
    likelihood = -math.inf
    for _ in range(iterations):
        before = likelihood
        mixture, likelihood = em.step(mixture)
        if abs(likelihood - before) < TOLERANCE:
            return mixture, likelihood, True
    return mixture, likelihood, False


def _responsibilities(densities: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's shares (B, K), which sum to 1 in float64, and the log of the row's sum (B,)."""
    top = densities.amax(1, keepdim=True)
    parts = (densities - top).exp_().double()
    total = parts.sum(1, keepdim=True)
    return parts.div_(total), top[:, 0].double() + total[:, 0].log()


def _cholesky(covariance: Tensor) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise ValueError("a component's covariance is singular: fewer components or a larger floor would do")
    return torch.as_tensor(lower)
