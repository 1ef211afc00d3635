"""Clusterings against scikit-learn and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import Tensor

from oodbench.clusters import grouped
from oodbench.registry import Registry


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("clustering", name)(**params)


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (300,), generator=rng)
    return 3 * torch.randn(4, 6, generator=rng)[y] + torch.randn(300, 6, generator=rng), y


def inertia(f: Tensor, c: Any) -> float:
    return float((f.double() - c.centroid.double()[c.assign]).square().sum())


@pytest.mark.parametrize("library", ["sklearn", "faiss"])
def test_kmeans_is_as_good_as_scikit_learns(features: tuple[Tensor, Tensor], library: str) -> None:
    if library == "faiss":
        pytest.importorskip("faiss")
    f, _ = features
    c = plugin("kmeans", k=4, library=library).fit(f, None, 0)
    theirs = KMeans(4, n_init=10, random_state=0).fit(f.numpy())
    assert inertia(f, c) == pytest.approx(theirs.inertia_, rel=1e-4)
    assert c.centroid.shape == (4, 6)


def test_kmeans_centroids_are_the_means_of_their_items(features: tuple[Tensor, Tensor]) -> None:
    f, _ = features
    c = plugin("kmeans", k=5).fit(f, None, 3)
    for k in range(5):
        torch.testing.assert_close(c.centroid[k], f[c.assign == k].mean(0))


@pytest.mark.parametrize("covariance", ["diag", "tied", "full"])
def test_gmm_is_scikit_learns(features: tuple[Tensor, Tensor], covariance: str) -> None:
    f, _ = features
    c = plugin("gmm", k=4, covariance=covariance).fit(f, None, 0)
    floor = 1e-6 * float(f.double().var(0, correction=0).mean())
    theirs = GaussianMixture(4, covariance_type=covariance, random_state=0, reg_covar=floor).fit(f.double().numpy())
    np.testing.assert_allclose(c.centroid, theirs.means_, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(c.weight, theirs.weights_, rtol=1e-5)
    np.testing.assert_allclose(c.covariance, theirs.covariances_, rtol=1e-4, atol=1e-5)
    assert (c.assign.numpy() == theirs.predict(f.double().numpy())).all()
    assert c.covariance_type == covariance


def test_gmm_closes_up_components_that_nobody_has() -> None:
    """Three places, six components: what is left is what somebody has, numbered without gaps."""
    rng = torch.Generator().manual_seed(0)
    f = torch.tensor([0.0, 10.0, 20.0]).repeat_interleave(20)[:, None] + 0.01 * torch.randn(60, 1, generator=rng)
    c = plugin("gmm", k=6).fit(f, None, 0)
    assert sorted(c.assign.unique().tolist()) == list(range(len(c.centroid)))
    assert len(c.weight) == len(c.centroid) == len(c.covariance)


def test_labels(features: tuple[Tensor, Tensor]) -> None:
    f, y = features
    c = plugin("labels").fit(f, y, 0)
    assert torch.equal(c.assign, y)
    torch.testing.assert_close(c.centroid, torch.stack([f[y == k].mean(0) for k in range(4)]))


def test_one(features: tuple[Tensor, Tensor]) -> None:
    f, _ = features
    c = plugin("one").fit(f, None, 0)
    assert not c.assign.any()
    torch.testing.assert_close(c.centroid, f.mean(0, keepdim=True))


@pytest.mark.parametrize("name", ["kmeans", "gmm"])
def test_more_clusters_than_items_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="5 clusters of 3 training items"):
        plugin(name, k=5).fit(torch.randn(3, 2), None, 0)


def test_noise_counts_nowhere_and_gaps_are_closed() -> None:
    f = torch.tensor([[0.0], [2.0], [100.0], [10.0], [12.0]])
    c = grouped(f, torch.tensor([2, 2, -1, 7, 7]))
    assert c.assign.tolist() == [0, 0, -1, 1, 1]
    assert c.centroid.tolist() == [[1.0], [11.0]]


def test_nothing_but_noise_is_an_error() -> None:
    with pytest.raises(ValueError, match="every item is noise"):
        grouped(torch.randn(3, 2), torch.full((3,), -1))
