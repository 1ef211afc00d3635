"""Gaussian mixture fitted by expectation-maximisation (Dempster et al. 1977), as scikit-learn fits it.

Diagonal covariances are scikit-learn's own; tied and full ones are `oodbench.mixture`'s, the same numbers with
less work. Each item belongs to its most probable component; a component that is nobody's is closed up, so
that there may be fewer than k. Weights and covariances of all that are left are kept for likelihoods.
"""

from __future__ import annotations

from typing import Literal

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from oodbench.api import Clustering, Clusters, Count, Positive, Size
from oodbench.toolkit.clusters import check_count, to_device
from oodbench.toolkit.mixtures import Mixture, fit_mixture


class GMM(Clustering):
    """GMM: Gaussian mixture with diagonal, tied or full covariance."""

    k: Count = "classes"  # components
    covariance: Literal["diag", "tied", "full"] = "diag"  # of each component; tied: one of all
    restarts: Size = 1  # the best of which is kept
    iterations: Size = 100  # at most
    floor: Positive = 1e-6  # added to the diagonal of each covariance, in units of the features' mean variance

    mixture = True

    @property
    def single(self) -> bool:
        return self.k == 1

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        assert isinstance(self.k, int)
        check_count(self.k, f)
        floor = self.floor * float(f.double().var(0, correction=0).mean()) or self.floor
        found, assign = self._fitted(f, self.k, floor, seed)
        used, dense = assign.unique(return_inverse=True)
        covariance = found.covariance if self.covariance == "tied" else found.covariance[used]
        return Clusters(
            centroid=found.mean[used].float(),
            assign=dense,
            weight=found.weight[used].float(),
            covariance=covariance.float(),
            covariance_type=self.covariance,
        )

    def _fitted(self, f: Tensor, k: int, floor: float, seed: int) -> tuple[Mixture, Tensor]:
        if self.covariance != "diag":
            return fit_mixture(f, k, self.covariance, floor, self.restarts, self.iterations, seed)
        theirs = GaussianMixture(
            k,
            covariance_type="diag",
            n_init=self.restarts,
            max_iter=self.iterations,
            reg_covar=floor,
            random_state=seed,
        )
        assign = to_device(theirs.fit_predict(f.double().cpu().numpy()), f)
        parts = (theirs.weights_, theirs.means_, theirs.covariances_)
        return Mixture(*(torch.as_tensor(part, device=f.device) for part in parts)), assign
