"""Gaussian mixture fitted by expectation-maximisation, scikit-learn's (Dempster et al. 1977).

Each item belongs to its most probable component; a component that is nobody's is closed up, so that
there may be fewer than k. Weights and covariances of all that are left are kept for likelihoods.
"""

from __future__ import annotations

from typing import Literal

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from oodbench.api import Clustering, Clusters, Count, Positive, Size
from oodbench.clusters import check_count, to_device


class GMM(Clustering):
    """GMM: Gaussian mixture with diagonal, tied or full covariance."""

    k: Count = "classes"
    covariance: Literal["diag", "tied", "full"] = "diag"
    restarts: Size = 1
    iterations: Size = 100
    floor: Positive = 1e-6  # added to the diagonal of each covariance, in units of the features' mean variance

    mixture = True

    @property
    def single(self) -> bool:
        return self.k == 1

    def fit(self, f: Tensor, y: Tensor | None, seed: int) -> Clusters:
        assert isinstance(self.k, int)
        check_count(self.k, f)
        x = f.double().cpu().numpy()
        floor = self.floor * float(x.var(0).mean()) or self.floor
        mixture = GaussianMixture(
            self.k,
            covariance_type=self.covariance,
            n_init=self.restarts,
            max_iter=self.iterations,
            reg_covar=floor,
            random_state=seed,
        )
        assign = to_device(mixture.fit_predict(x), f)
        used, dense = assign.unique(return_inverse=True)
        keep = used.cpu().numpy()
        covariance = mixture.covariances_ if self.covariance == "tied" else mixture.covariances_[keep]
        return Clusters(
            centroid=_on(mixture.means_[keep], f),
            assign=dense,
            weight=_on(mixture.weights_[keep], f),
            covariance=_on(covariance, f),
            covariance_type=self.covariance,
        )


def _on(values: object, f: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=f.device)
