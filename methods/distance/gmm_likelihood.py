"""Minus the log-likelihood under the clustering's Gaussian mixture, in nats.

-log sum_k w_k N(x; mu_k, S_k) with the weights, means and covariances that the clustering fitted: diagonal, tied or
full. Weights are scaled to sum to one over the components that are left. The cluster of an item is its most
probable component, the largest w_k N(x; mu_k, S_k).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.linear_algebra import whitened_squares


class GMMLikelihood(Distance):
    """GMM likelihood: minus the log density of the mixture that the clustering fitted."""

    mixture = True

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        if c.weight is None or c.covariance is None:
            raise ValueError(f"{self.label} needs clusters with weights and covariances")
        weight = c.weight.double()
        squares, log_volume = self._tied(c) if c.covariance_type == "tied" else self._each(c)
        constant = (weight / weight.sum()).log() - log_volume - f.shape[1] / 2 * math.log(2 * math.pi)  # (K,)

        def score(x: Tensor) -> Scores:
            joint = constant - squares(x).double() / 2  # (M, K) log w_k N(x; mu_k, S_k)
            return Scores(-joint.logsumexp(1), joint.argmax(1))

        return score

    def _each(self, c: Clusters) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Return what measures squared Mahalanobis distances (M, K), and log |S_k|^(1/2) (K,)."""
        assert c.covariance is not None
        if c.covariance_type == "diag":
            scale = c.covariance.double().sqrt()  # (K, D)
            whiten = (1 / scale).float()
            return lambda x: whitened_squares(x, c.centroid, list(whiten)), scale.log().sum(1)
        pairs = [self._whitening(covariance) for covariance in c.covariance]
        whitenings = [whitening.float() for whitening, _ in pairs]
        return lambda x: whitened_squares(x, c.centroid, whitenings), torch.stack([volume for _, volume in pairs])

    def _tied(self, c: Clusters) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Return the same, whitening once for all components."""
        assert c.covariance is not None
        middle = c.centroid.double().mean(0)
        whiten, log_volume = self._whitening(c.covariance)

        def white(x: Tensor) -> Tensor:
            return (x.double() - middle).float() @ whiten.float()

        places, exact = white(c.centroid), "donot_use_mm_for_euclid_dist"  # no digits lost to far components
        return lambda x: torch.cdist(white(x), places, compute_mode=exact).square(), log_volume

    def _whitening(self, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return W (D, D), float64, with W W^T the inverse of a covariance, and log |covariance|^(1/2)."""
        factor, failed = torch.linalg.cholesky_ex(covariance.double())
        if failed:
            raise ValueError(f"{self.label}: a covariance is not positive definite; give the clustering a larger floor")
        eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        return inverse.T, factor.diagonal().log().sum()
