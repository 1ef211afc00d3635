"""Every distance against the slowest loop of its definition, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from oodbench import geometry
from oodbench.api import Clusters, Scores
from oodbench.clusters import grouped
from oodbench.registry import Registry


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("distance", name)(**params)


@pytest.fixture(params=[0.0, 1000.0], ids=["centred", "mean 1000 times the spread"])
def features(request: pytest.FixtureRequest) -> tuple[Tensor, Clusters, Tensor]:
    """Training features with unequal clusters, one item of noise, and new items."""
    rng = torch.Generator().manual_seed(0)
    assign = torch.tensor([0] * 30 + [1] * 50 + [2] * 20)
    mixing = torch.randn(5, 5, generator=rng)
    f = 3 * torch.randn(3, 5, generator=rng)[assign] + torch.randn(100, 5, generator=rng) @ mixing
    x = 3 * torch.randn(40, 5, generator=rng)
    assign[7] = -1
    return f + request.param, grouped(f + request.param, assign), x + request.param


def members(f: Tensor, c: Clusters, k: int) -> np.ndarray:
    return f[c.assign == k].double().numpy()


def centers(f: Tensor, c: Clusters) -> list[np.ndarray]:
    return [members(f, c, k).mean(0) for k in range(len(c.centroid))]


def nearest(x: Tensor, measure: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array([[m(row) for m in measure] for row in x.double().numpy()])
    return table.min(1), table.argmin(1)


def agree(scores: Scores, expected: tuple[np.ndarray, np.ndarray], rtol: float = 2e-4) -> None:
    np.testing.assert_allclose(scores.score.numpy(), expected[0], rtol=rtol, atol=1e-6)
    assert (scores.cluster.numpy() == expected[1]).mean() > 0.97  # near ties may fall either way in float32


def test_euclidean(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    expected = nearest(x, [lambda r, m=m: math.sqrt(sum((r - m) ** 2)) for m in centers(f, c)])
    agree(plugin("euclidean").fit(f, c)(x), expected)


def test_cosine(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features

    def distance(row: np.ndarray, m: np.ndarray) -> float:
        return 1 - float(row @ m) / math.sqrt(float(row @ row)) / math.sqrt(float(m @ m))

    expected = nearest(x, [lambda r, m=m: distance(r, m) for m in centers(f, c)])
    scores = plugin("cosine").fit(f, c)(x)
    np.testing.assert_allclose(scores.score.numpy(), expected[0], atol=1e-6)


def slow_mahalanobis(inverse: np.ndarray, m: np.ndarray) -> Any:
    return lambda row: float((row - m) @ inverse @ (row - m))


def residual_covariance(f: Tensor, c: Clusters) -> np.ndarray:
    rows = [row - m for k, m in enumerate(centers(f, c)) for row in members(f, c, k)]
    return sum(np.outer(row, row) for row in rows) / len(rows)


def test_mahalanobis_shared(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    inverse = np.linalg.pinv(residual_covariance(f, c))
    expected = nearest(x, [slow_mahalanobis(inverse, m) for m in centers(f, c)])
    agree(plugin("mahalanobis").fit(f, c)(x), expected)


def test_mahalanobis_per_cluster(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    measure = []
    for k, m in enumerate(centers(f, c)):
        covariance = np.cov(members(f, c, k).T, bias=True)
        measure.append(slow_mahalanobis(np.linalg.inv(covariance), m))
    agree(plugin("mahalanobis", covariance="per_cluster").fit(f, c)(x), nearest(x, measure))


@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", 0.3])
def test_mahalanobis_shrunk(features: tuple[Tensor, Clusters, Tensor], shrinkage: str | float) -> None:
    f, c, x = features
    if shrinkage == "ledoit_wolf":
        rows = np.concatenate([members(f, c, k) - m for k, m in enumerate(centers(f, c))])
        covariance = ledoit_wolf(rows, assume_centered=True)[0]
    else:
        plain = residual_covariance(f, c)
        covariance = 0.7 * plain + 0.3 * np.trace(plain) / 5 * np.eye(5)
    expected = nearest(x, [slow_mahalanobis(np.linalg.inv(covariance), m) for m in centers(f, c)])
    agree(plugin("mahalanobis", singular="shrink", shrinkage=shrinkage).fit(f, c)(x), expected)


def test_mahalanobis_pca(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    values, vectors = np.linalg.eigh(residual_covariance(f, c))
    inverse = sum(np.outer(vectors[:, i], vectors[:, i]) / values[i] for i in (4, 3))
    expected = nearest(x, [slow_mahalanobis(inverse, m) for m in centers(f, c)])
    agree(plugin("mahalanobis", singular="pca", components=2).fit(f, c)(x), expected)


@pytest.mark.parametrize("covariance", ["shared", "per_cluster"])
def test_singular_covariance_is_pseudo_inverted(covariance: str) -> None:
    """Fewer items than dimensions, and one dimension that never varies: numpy's pseudo-inverse is the oracle."""
    rng = torch.Generator().manual_seed(1)
    f = torch.randn(14, 10, generator=rng)
    f[:, 3] = 2.0
    c = grouped(f, torch.tensor([0, 1]).repeat(7))
    x = torch.randn(9, 10, generator=rng)
    shared = residual_covariance(f, c)
    cov = [shared if covariance == "shared" else np.cov(members(f, c, k).T, bias=True) for k in range(2)]
    inverses = [np.linalg.pinv(each, rcond=1e-6) for each in cov]
    expected = nearest(x, [slow_mahalanobis(i, m) for i, m in zip(inverses, centers(f, c), strict=True)])
    with pytest.warns(UserWarning, match=rf"mahalanobis\({covariance}, pinv\): rank \d of 10, from (14|7) items"):
        scorer = plugin("mahalanobis", covariance=covariance).fit(f, c)
    agree(scorer(x), expected, rtol=1e-3)


def test_relative_mahalanobis(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    inverse = np.linalg.pinv(residual_covariance(f, c))
    all_ = f[c.assign >= 0].double().numpy()
    background = slow_mahalanobis(np.linalg.pinv(np.cov(all_.T, bias=True)), all_.mean(0))
    square, cluster = nearest(x, [slow_mahalanobis(inverse, m) for m in centers(f, c)])
    expected = square - np.array([background(row) for row in x.double().numpy()])
    found = plugin("relative_mahalanobis").fit(f, c)(x)
    np.testing.assert_allclose(found.score, expected, rtol=2e-4, atol=2e-4 * np.abs(square).max())
    assert (found.cluster.numpy() == cluster).mean() > 0.97


def test_relative_mahalanobis_ignores_what_never_varies() -> None:
    rng = torch.Generator().manual_seed(0)
    f, x = torch.randn(60, 4, generator=rng), torch.randn(9, 4, generator=rng)
    assign = torch.arange(60) % 2
    wide, seen = torch.cat([f, torch.ones(60, 1)], 1), torch.cat([x, 7 * torch.ones(9, 1)], 1)
    with pytest.warns(UserWarning, match="relative_mahalanobis: rank 4 of 5"):
        scorer = plugin("relative_mahalanobis").fit(wide, grouped(wide, assign))
    plain = plugin("relative_mahalanobis").fit(f, grouped(f, assign))(x)
    torch.testing.assert_close(scorer(seen).score, plain.score, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="no variance"):
        plugin("relative_mahalanobis").fit(torch.ones(6, 3), grouped(torch.ones(6, 3), assign[:6]))


def test_a_cluster_of_one_has_no_covariance() -> None:
    f = torch.randn(5, 3)
    c = grouped(f, torch.tensor([0, 0, 0, 0, 1]))
    with pytest.raises(ValueError, match=r"mahalanobis\(per_cluster, pinv\): a cluster of 1 item"):
        plugin("mahalanobis", covariance="per_cluster").fit(f, c)
    assert plugin("mahalanobis").fit(f, c)(f).score.isfinite().all()


def test_features_without_variance_are_refused() -> None:
    f = torch.ones(6, 3)
    with pytest.raises(ValueError, match="no variance"):
        plugin("mahalanobis").fit(f, grouped(f, torch.zeros(6, dtype=torch.int64)))


def test_the_policy_is_in_the_name() -> None:
    labels = [
        plugin("mahalanobis", **params).label
        for params in ({}, {"covariance": "per_cluster", "singular": "shrink"}, {"singular": "pca", "components": 9})
    ]
    assert labels == [
        "mahalanobis(shared, pinv)",
        "mahalanobis(per_cluster, shrink=ledoit_wolf)",
        "mahalanobis(shared, pca=9)",
    ]


@pytest.mark.parametrize("library", ["torch", "faiss"])
@pytest.mark.parametrize("k", [1, 5, 100])
def test_knn(features: tuple[Tensor, Clusters, Tensor], k: int, library: str) -> None:
    if library == "faiss":
        pytest.importorskip("faiss")
    f, c, x = features
    rows = f.double().numpy()
    expected = [sorted(math.sqrt(sum((row - other) ** 2)) for other in rows)[k - 1] for row in x.double().numpy()]
    scores = plugin("knn", k=k, library=library).fit(f, c)(x)
    np.testing.assert_allclose(scores.score.numpy(), expected, rtol=1e-6)
    assert not scores.cluster.any()


def test_knn_of_training_items_leaves_them_out(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, _ = features
    rows = f.double().numpy()
    for k in (1, 4):
        expected = [
            sorted(math.sqrt(sum((row - other) ** 2)) for j, other in enumerate(rows) if j != i)[k - 1]
            for i, row in enumerate(rows)
        ]
        np.testing.assert_allclose(plugin("knn", k=k).leave_one_out(f, c).score.numpy(), expected, rtol=1e-6)


def test_knn_among_duplicates() -> None:
    """Twenty equal items: each has nineteen neighbours at distance 0, whichever of them the search names first."""
    f = torch.cat([torch.zeros(20, 3), torch.ones(1, 3)])
    c = grouped(f, torch.zeros(21, dtype=torch.int64))
    assert plugin("knn", k=3).leave_one_out(f, c).score.tolist() == pytest.approx([0.0] * 20 + [math.sqrt(3)])


def test_knn_needs_enough_items() -> None:
    f = torch.randn(4, 2)
    c = grouped(f, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"knn\(k=5\) of 4 training items"):
        plugin("knn", k=5).fit(f, c)
    with pytest.raises(ValueError, match="of 3 other training items"):
        plugin("knn", k=4).leave_one_out(f, c)


def test_norm_of_the_mean_view_and_of_each() -> None:
    x = torch.randn(3, 6, 4)
    f, c = torch.randn(5, 4), grouped(torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))
    mean = x.mean(0)
    expected = [-math.sqrt(sum(v * v for v in row)) for row in mean.tolist()]
    assert plugin("norm").fit(f, c)(mean).score.tolist() == pytest.approx(expected)
    each = [-sum(sum(v * v for v in x[view, i].tolist()) for view in range(3)) / 3 for i in range(6)]
    assert plugin("norm", of="each").fit(f, c)(x).score.tolist() == pytest.approx(each)


def test_distances_have_no_rounding_noise_under_a_large_mean() -> None:
    """A mean of 1,000 times the spread: |x|^2 - 2 x.c + |c|^2 on raw float32 would lose most digits."""
    rng = torch.Generator().manual_seed(2)
    f = 1000 + torch.randn(2000, 16, generator=rng)
    x = 1000 + torch.randn(50, 16, generator=rng)
    c = grouped(f, torch.zeros(2000, dtype=torch.int64))
    exact = (x.double()[:, None] - f.double()[None]).norm(dim=2)
    np.testing.assert_allclose(plugin("knn", k=7).fit(f, c)(x).score, exact.sort(1).values[:, 6], rtol=1e-9)
    to_mean = (x.double() - f.double().mean(0)).norm(dim=1)
    np.testing.assert_allclose(plugin("euclidean").fit(f, c)(x).score, to_mean, rtol=1e-4)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    f, x = torch.randn(100, 6), torch.randn(50, 6)
    whole = geometry.moments(f), geometry.nearest(x, f[:9])
    monkeypatch.setattr(geometry, "CHUNK", 7)
    parts = geometry.moments(f), geometry.nearest(x, f[:9])
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(parts[0].covariance, np.cov(f.double().numpy().T, bias=True), atol=1e-6)


def test_principal_axes_have_a_definite_sign() -> None:
    covariance = np.cov(np.random.default_rng(0).normal(size=(40, 5)).T)
    axes = geometry.principal_axes(torch.from_numpy(covariance), 3)
    values, vectors = np.linalg.eigh(covariance)
    for i in range(3):
        v = vectors[:, -1 - i]
        np.testing.assert_allclose(axes[:, i], v * np.sign(v[np.abs(v).argmax()]), atol=1e-9)
    assert values[-1] > values[0]
