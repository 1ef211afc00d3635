"""Clusterings against scikit-learn and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import Tensor

from oodbench.study.registry import Registry
from oodbench.toolkit import mixtures
from oodbench.toolkit.clusters import grouped
from oodbench.toolkit.mixtures import Full, Tied, fit_mixture


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
def test_kmeans_is_as_good_as_scikit_learns(features: tuple[Tensor, Tensor], library: str, device: str) -> None:
    if library == "faiss":
        pytest.importorskip("faiss")
    f, _ = features
    c = plugin("kmeans", k=4, library=library).fit(f.to(device), None, 0)
    theirs = KMeans(4, n_init=10, random_state=0).fit(f.numpy())
    assert c.centroid.device.type == device
    assert inertia(f.to(device), c) == pytest.approx(theirs.inertia_, rel=1e-4)
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


def collapsed(dtype: torch.dtype) -> Tensor:
    """Return items whose classes lie far apart, 1,000 from 0, in three of nine directions within each."""
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(4, (400,), generator=rng)
    within = torch.randn(400, 3, generator=rng) @ torch.randn(3, 9, generator=rng)
    return (1000 + 30 * torch.randn(4, 9, generator=rng)[y] + within).to(dtype)


@pytest.mark.parametrize("covariance", ["tied", "full"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
@pytest.mark.parametrize("hard", [False, True], ids=["well-conditioned", "collapsed"])
def test_mixtures_are_as_likely_as_scikit_learns(
    features: tuple[Tensor, Tensor], covariance: str, dtype: torch.dtype, rtol: float, hard: bool
) -> None:
    """The same restarts, and as likely under a density by the definition, in float64.

    scikit-learn gets centred items: its own sum of outer products, not centred, would be the less exact one.
    """
    f = collapsed(dtype) if hard else features[0].to(dtype)
    x = f.double().numpy()
    centred = x - x.mean(0)
    floor = 1e-6 * float(f.double().var(0, correction=0).mean())
    found, assign = fit_mixture(f, 4, covariance, floor, 3, 100, 5)  # type: ignore[arg-type]
    theirs = GaussianMixture(4, covariance_type=covariance, n_init=3, reg_covar=floor, random_state=5)
    theirs.fit(centred)
    covariances = found.covariance.expand(4, -1, -1) if covariance == "tied" else found.covariance
    logs = [
        float(w.log()) + multivariate_normal(m.numpy(), c.numpy()).logpdf(x)
        for w, m, c in zip(found.weight, found.mean, covariances, strict=True)
    ]
    assert logsumexp(logs, 0).mean() == pytest.approx(theirs.score(centred), rel=rtol)
    assert adjusted_rand_score(assign.numpy(), theirs.predict(centred)) == 1


@pytest.mark.parametrize("kind", [Tied, Full])
def test_one_iteration_is_the_definition(features: tuple[Tensor, Tensor], kind: Any, monkeypatch: Any) -> None:
    """Items in blocks; responsibilities, means and covariances item by item in float64."""
    monkeypatch.setattr(mixtures, "ROWS", 70)
    noise = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    x = (features[0] / 3 + noise).double()
    em = kind(x, 1e-3)
    start = em.start(features[1], 4)
    after, likelihood = em.step(start)
    covariances = start.covariance.expand(4, -1, -1) if kind is Tied else start.covariance
    parts = zip(start.weight, start.mean, covariances, strict=True)
    logs = np.array([float(w.log()) + multivariate_normal(m.numpy(), c.numpy()).logpdf(x) for w, m, c in parts])
    share = np.exp(logs - logsumexp(logs, 0))  # (K, N)
    assert likelihood == pytest.approx(logsumexp(logs, 0).mean(), rel=1e-12)
    assert share.max(0).min() < 0.9  # some item belongs to several
    means = [sum(r * row for r, row in zip(share[k], x.numpy(), strict=True)) / share[k].sum() for k in range(4)]
    outer = [
        sum(r * np.outer(row - means[k], row - means[k]) for r, row in zip(share[k], x.numpy(), strict=True))
        for k in range(4)
    ]
    expected = sum(outer) / 300 if kind is Tied else np.stack([outer[k] / share[k].sum() for k in range(4)])
    np.testing.assert_allclose(after.weight, share.sum(1) / 300, rtol=1e-10)
    np.testing.assert_allclose(after.mean, means, atol=1e-10)
    np.testing.assert_allclose(after.covariance, expected + 1e-3 * np.eye(6), atol=1e-8)


def test_a_mixture_that_still_moves_is_warned_of() -> None:
    f = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    with pytest.warns(ConvergenceWarning, match="still moved after 1 iterations"):
        plugin("gmm", k=3, covariance="tied", iterations=1).fit(f, None, 0)


def test_a_component_without_variance_is_an_error_without_a_floor() -> None:
    f = torch.zeros(20, 2)
    f[:10] = 5
    with pytest.raises(ValueError, match="singular"):
        fit_mixture(f, 2, "full", 0.0, 1, 10, 0)


def test_gmm_closes_up_components_that_nobody_has() -> None:
    """Three places, six components: what is left is what somebody has, numbered without gaps."""
    rng = torch.Generator().manual_seed(0)
    f = torch.tensor([0.0, 10.0, 20.0]).repeat_interleave(20)[:, None] + 0.01 * torch.randn(60, 1, generator=rng)
    c = plugin("gmm", k=6).fit(f, None, 0)
    assert sorted(c.assign.unique().tolist()) == list(range(len(c.centroid)))
    assert len(c.weight) == len(c.centroid) == len(c.covariance)


@pytest.mark.parametrize("linkage", ["ward", "average", "complete"])
def test_agglomerative_is_scikit_learns(features: tuple[Tensor, Tensor], linkage: Any) -> None:
    f, _ = features
    c = plugin("agglomerative", k=4, linkage=linkage).fit(f, None, 0)
    theirs = AgglomerativeClustering(4, linkage=linkage).fit(f.numpy())
    assert adjusted_rand_score(theirs.labels_, c.assign.numpy()) == 1


def test_agglomerative_on_a_sample_gives_the_rest_to_the_nearest_mean(features: tuple[Tensor, Tensor]) -> None:
    f, _ = features
    c = plugin("agglomerative", k=7, sample=100).fit(f, None, 5)
    chosen = f[torch.randperm(300, generator=torch.Generator().manual_seed(5))[:100]]
    labels = AgglomerativeClustering(7).fit(chosen.numpy()).labels_
    means = [chosen[torch.from_numpy(labels == k)].mean(0) for k in range(7)]
    nearest = [min(range(7), key=lambda k, x=x: float((x - means[k]).square().sum())) for x in f]  # type: ignore[misc]
    assert adjusted_rand_score(nearest, c.assign.numpy()) == 1
    assert adjusted_rand_score(AgglomerativeClustering(7).fit(f.numpy()).labels_, nearest) < 1


@pytest.mark.parametrize(("params", "pca"), [({}, None), ({"min_samples": 3, "pca": None}, None), ({"pca": 2}, 2)])
def test_hdbscan_is_scikit_learns(features: tuple[Tensor, Tensor], params: dict[str, Any], pca: int | None) -> None:
    """With no more dimensions than `pca`, none are reduced; noise is the same items, and counts in no centroid."""
    f = features[0].clone()
    f[::10] *= 4  # some stray items
    c = plugin("hdbscan", min_cluster_size=8, **params).fit(f, None, 0)
    x = f.double().numpy() if pca is None else PCA(pca, svd_solver="full").fit_transform(f.double().numpy())
    labels = HDBSCAN(min_cluster_size=8, min_samples=params.get("min_samples"), copy=True).fit(x).labels_
    assert (labels == -1).any()
    np.testing.assert_array_equal(c.assign, labels)
    for k in range(labels.max() + 1):
        np.testing.assert_allclose(c.centroid[k], f[torch.from_numpy(labels == k)].mean(0), rtol=1e-4, atol=1e-5)


def test_hdbscan_on_a_sample_keeps_its_noise_and_gives_the_rest_to_the_nearest_mean(
    features: tuple[Tensor, Tensor],
) -> None:
    f, _ = features
    c = plugin("hdbscan", min_cluster_size=8, sample=150).fit(f, None, 5)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    chosen, rest = order[:150], order[150:]
    labels = HDBSCAN(min_cluster_size=8, copy=True).fit(f[chosen].double().numpy()).labels_
    assert (labels == -1).any()
    np.testing.assert_array_equal(c.assign[chosen], labels)
    means = [f[chosen][torch.from_numpy(labels == k)].mean(0) for k in range(labels.max() + 1)]
    for i in rest.tolist():
        away = [float((f[i] - mean).square().sum()) for mean in means]
        assert int(c.assign[i]) == away.index(min(away))
    again = plugin("hdbscan", min_cluster_size=8, sample=150)
    assert torch.equal(again.fit(f, None, 5).assign, c.assign)
    assert not torch.equal(again.fit(f, None, 6).assign, c.assign)


def test_hdbscan_of_nothing_but_noise_is_an_error() -> None:
    f = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="every item is noise"):
        plugin("hdbscan", min_cluster_size=25).fit(f, None, 0)


def test_classwise_kmeans_is_kmeans_of_each_class(features: tuple[Tensor, Tensor]) -> None:
    f, y = features
    c = plugin("classwise_kmeans", k=3).fit(f, y, 0)
    assert len(c.centroid) == 12
    for label in range(4):
        inside = c.assign[y == label]
        assert len(inside.unique()) == 3
        assert set(inside.tolist()).isdisjoint(c.assign[y != label].tolist())
        mine = float((f[y == label].double() - c.centroid.double()[inside]).square().sum())
        assert mine == pytest.approx(KMeans(3, n_init=10, random_state=0).fit(f[y == label].numpy()).inertia_, rel=1e-4)
    with pytest.raises(ValueError, match=r"400 clusters of the \d+ training items of class 0"):
        plugin("classwise_kmeans", k=400).fit(f, y, 0)


def cosines(f: Tensor, assign: Any) -> float:
    """Return the sum of cosines of items to the mean direction of their cluster, by the definition."""
    x = f.double().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return float(sum(np.linalg.norm(x[np.asarray(assign) == k].sum(0)) for k in np.unique(assign)))


@pytest.mark.parametrize("k", [2, 4, 9])
def test_spherical_kmeans_is_at_rest_and_no_worse_than_kmeans_on_the_sphere(
    features: tuple[Tensor, Tensor], k: int
) -> None:
    f, _ = features
    f = f * torch.arange(1, 301)[:, None]  # lengths must not count
    c = plugin("spherical_kmeans", k=k).fit(f, None, 0)
    x = f.double() / f.double().norm(dim=1, keepdim=True)
    directions = torch.stack([x[c.assign == j].sum(0) for j in range(k)])
    directions /= directions.norm(dim=1, keepdim=True)
    assert torch.equal((x @ directions.T).argmax(1), c.assign)
    theirs = KMeans(k, n_init=10, random_state=0).fit(x.numpy())
    assert cosines(f, c.assign) >= cosines(f, theirs.labels_) * (1 - 1e-3)  # either may rest in a local optimum


def test_spherical_kmeans_keeps_every_cluster() -> None:
    f = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    c = plugin("spherical_kmeans", k=3).fit(f, None, 0)
    assert sorted(c.assign.bincount().tolist()) == [1, 1, 2]


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


@pytest.mark.parametrize("name", ["kmeans", "gmm", "spherical_kmeans", "agglomerative"])
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
