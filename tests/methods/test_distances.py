"""Every distance against the slowest loop of its definition, in float64."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture
from torch import Tensor

from oodbench.api import Clusters, Scores
from oodbench.scoring import spaces
from oodbench.study.registry import Registry
from oodbench.study.settings import Space
from oodbench.toolkit import linear_algebra
from oodbench.toolkit.clusters import grouped


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


def test_mahalanobis_diagonal(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    rows = [row - m for k, m in enumerate(centers(f, c)) for row in members(f, c, k)]
    variance = [sum(float(row[d]) ** 2 for row in rows) / len(rows) for d in range(5)]
    measure = [lambda r, m=m: sum((r[d] - m[d]) ** 2 / variance[d] for d in range(5)) for m in centers(f, c)]
    agree(plugin("mahalanobis", covariance="diagonal").fit(f, c)(x), nearest(x, measure))


def test_mahalanobis_diagonal_ignores_a_dimension_of_no_variance() -> None:
    rng = torch.Generator().manual_seed(4)
    f, x = torch.randn(40, 3, generator=rng), torch.randn(9, 3, generator=rng)
    assign = torch.arange(40) % 2
    wide, seen = torch.cat([f, torch.ones(40, 1)], 1), torch.cat([x, 7 * torch.ones(9, 1)], 1)
    diagonal = plugin("mahalanobis", covariance="diagonal")
    with pytest.warns(UserWarning, match=r"mahalanobis\(diagonal, pinv\): rank 3 of 4, from 40 items"):
        scorer = diagonal.fit(wide, grouped(wide, assign))
    torch.testing.assert_close(scorer(seen).score, diagonal.fit(f, grouped(f, assign))(x).score, rtol=1e-6, atol=0)


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


@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("covariance", ["shared", "per_cluster"])
def test_singular_covariance_is_pseudo_inverted(covariance: str, mean: float) -> None:
    """Fewer items than dimensions, and one dimension that never varies: numpy's pseudo-inverse is the oracle.

    About centroids in float32 each cluster would seem to vary a little in one direction more, and that is inverted.
    """
    rng = torch.Generator().manual_seed(1)
    f = mean + torch.randn(14, 10, generator=rng)
    f[:, 3] = 2.0
    c = grouped(f, torch.tensor([0, 1]).repeat(7))
    x = mean + torch.randn(9, 10, generator=rng)
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


def test_relative_mahalanobis_of_fewer_items_than_dimensions() -> None:
    rng = torch.Generator().manual_seed(1)
    f, x = 30 + torch.randn(14, 20, generator=rng), 30 + torch.randn(9, 20, generator=rng)
    c = grouped(f, torch.tensor([0, 1]).repeat(7))
    all_ = f.double().numpy()
    inverse, background = (
        np.linalg.pinv(each, rcond=1e-6) for each in (residual_covariance(f, c), np.cov(all_.T, bias=True))
    )
    square, _ = nearest(x, [slow_mahalanobis(inverse, m) for m in centers(f, c)])
    expected = square - np.array([slow_mahalanobis(background, all_.mean(0))(row) for row in x.double().numpy()])
    with pytest.warns(UserWarning, match=r"rank 1[23] of 20, from 14 items"):
        found = plugin("relative_mahalanobis").fit(f, c)(x)
    np.testing.assert_allclose(found.score, expected, rtol=1e-3, atol=1e-3 * np.abs(square).max())


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
        for params in (
            {},
            {"covariance": "diagonal"},
            {"covariance": "per_cluster", "singular": "shrink"},
            {"singular": "pca", "components": 9},
        )
    ]
    assert labels == [
        "mahalanobis(shared, pinv)",
        "mahalanobis(diagonal, pinv)",
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


def slow_ssd(f: Tensor, c: Clusters, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Unit norm, z-score, and the least squared Mahalanobis distance, a row at a time."""

    def unit(row: np.ndarray) -> np.ndarray:
        return row / math.sqrt(float(row @ row))

    train = np.array([unit(row) for row in f.double().numpy()])
    mean, std = train.mean(0), train.std(0)
    measure = []
    for k in range(len(c.centroid)):
        rows = np.array([(row - mean) / std for row, a in zip(train, c.assign, strict=True) if a == k])
        measure.append(slow_mahalanobis(np.linalg.inv(np.cov(rows.T, bias=True)), rows.mean(0)))
    seen = np.array([(unit(row) - mean) / std for row in x.double().numpy()])
    return nearest(torch.from_numpy(seen), measure)


def test_ssd(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    agree(plugin("ssd").fit(f, c)(x), slow_ssd(f, c, x), rtol=1e-5)


def test_ssd_is_mahalanobis_in_its_space() -> None:
    rng = torch.Generator().manual_seed(0)
    f, x = torch.randn(200, 6, generator=rng), torch.randn(40, 6, generator=rng)
    assign = torch.randint(3, (200,), generator=rng)
    carry, _ = spaces.fit(Space(unit=True, zscore=True), f)
    z = carry(f)
    theirs = plugin("mahalanobis", covariance="per_cluster").fit(z, grouped(z, assign))(carry(x))
    ours = plugin("ssd").fit(f, grouped(f, assign))(x)
    torch.testing.assert_close(ours.score, theirs.score, rtol=1e-4, atol=0)
    assert torch.equal(ours.cluster, theirs.cluster)


def test_ssd_warns_of_a_singular_covariance() -> None:
    f = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    c = grouped(f, torch.arange(30) % 2)
    with pytest.warns(UserWarning, match="ssd: rank 14 of 20, from 15 items"):
        assert plugin("ssd").fit(f, c)(f).score.isfinite().all()


def slow_local(row: np.ndarray, groups: list[np.ndarray], k: int) -> tuple[float, int]:
    """Return the distance to the k-th nearest row of the group of the nearest mean, and which group that is."""
    means = [math.sqrt(sum((row - group.mean(0)) ** 2)) if len(group) else math.inf for group in groups]
    best = min(range(len(groups)), key=lambda j: means[j])
    distances = sorted(math.sqrt(sum((row - other) ** 2)) for other in groups[best])
    return distances[min(k, len(distances)) - 1], best


@pytest.mark.parametrize("k", [1, 6, 20])
def test_local(features: tuple[Tensor, Clusters, Tensor], k: int) -> None:
    f, c, x = features
    groups = [members(f, c, j) for j in range(3)]
    expected = np.array([slow_local(row, groups, k) for row in x.double().numpy()])
    scores = plugin("local", k=k).fit(f, c)(x)
    np.testing.assert_array_equal(scores.cluster, expected[:, 1])
    np.testing.assert_allclose(scores.score, expected[:, 0], rtol=1e-6)


def test_local_leaves_the_item_out(features: tuple[Tensor, Clusters, Tensor]) -> None:
    """The item leaves the members and the mean of its cluster; an item of noise has nothing to leave."""
    f, c, _ = features
    scores = plugin("local", k=4).leave_one_out(f, c)
    rows, assign = f.double().numpy(), c.assign.numpy()
    for i, row in enumerate(rows):
        others = np.arange(len(rows)) != i
        expected, cluster = slow_local(row, [rows[(assign == j) & others] for j in range(3)], 4)
        assert scores.cluster[i] == cluster
        assert float(scores.score[i]) == pytest.approx(expected, rel=1e-6)


def test_local_in_small_clusters_takes_the_farthest_and_says_so() -> None:
    f = torch.tensor([[0.0], [1.0], [3.0], [20.0], [21.0], [23.0], [27.0], [40.0]])
    c = grouped(f, torch.tensor([0, 0, 0, 1, 1, 1, 1, 2]))
    local = plugin("local", k=4)
    said = "too few members for k=4: the farthest one counts"
    with pytest.warns(UserWarning, match=rf"local\(k=4\): 2 of 3 clusters have {said}") as heard:
        scores = local.fit(f, c)(torch.tensor([[-1.0], [22.0], [39.0]]))
    assert len(heard) == 1
    assert scores.score.tolist() == [4.0, 5.0, 1.0]
    with pytest.warns(UserWarning, match=f"3 of 3 clusters have {said}") as heard:
        left = local.leave_one_out(f, c)
    assert len(heard) == 1
    assert left.cluster.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]  # the last one's cluster is gone without it
    assert left.score.tolist() == [3.0, 2.0, 3.0, 7.0, 6.0, 4.0, 7.0, 20.0]
    with pytest.raises(ValueError, match="of no other training item"), pytest.warns(UserWarning, match=said):
        local.leave_one_out(f[:1], grouped(f[:1], torch.tensor([0])))


def test_density(features: tuple[Tensor, Clusters, Tensor]) -> None:
    f, c, x = features
    measure = []
    for k, m in enumerate(centers(f, c)):
        spread = math.sqrt(sum(float((row - m) @ (row - m)) for row in members(f, c, k)) / len(members(f, c, k)))
        measure.append(lambda r, m=m, spread=spread: math.sqrt(sum((r - m) ** 2)) / spread)
    agree(plugin("density").fit(f, c)(x), nearest(x, measure), rtol=1e-4)


def test_density_scores_nothing_against_a_cluster_without_spread() -> None:
    f = torch.tensor([[0.0], [2.0], [5.0], [5.0], [9.0]])
    c = grouped(f, torch.tensor([0, 0, 1, 1, 2]))
    with pytest.warns(UserWarning, match="density: 2 of 3 clusters have no spread"):
        scores = plugin("density").fit(f, c)(torch.tensor([[5.0], [1.5]]))
    assert scores.score.tolist() == [4.0, 0.5]
    assert scores.cluster.tolist() == [0, 0]
    with pytest.raises(ValueError, match="density: no cluster has any spread"):
        plugin("density").fit(f[2:4], grouped(f[2:4], torch.tensor([0, 0])))


def mixture(f: Tensor, covariance: str, components: int = 3) -> tuple[GaussianMixture, Clusters]:
    theirs = GaussianMixture(components, covariance_type=covariance, random_state=0).fit(f.double().numpy())
    means, weights, covariances = (
        torch.as_tensor(each, dtype=torch.float32) for each in (theirs.means_, theirs.weights_, theirs.covariances_)
    )
    assign = torch.as_tensor(theirs.predict(f.double().numpy()))
    return theirs, Clusters(means, assign, weights, covariances, covariance)  # type: ignore[arg-type]


@pytest.mark.parametrize("covariance", ["diag", "tied", "full"])
def test_gmm_likelihood_is_scikit_learns(features: tuple[Tensor, Clusters, Tensor], covariance: str) -> None:
    f, _, x = features
    theirs, c = mixture(f, covariance)
    scores = plugin("gmm_likelihood").fit(f, c)(x)
    np.testing.assert_allclose(scores.score, -theirs.score_samples(x.double().numpy()), rtol=1e-4)
    np.testing.assert_array_equal(scores.cluster, theirs.predict(x.double().numpy()))


@pytest.mark.parametrize("covariance", ["diag", "tied", "full"])
def test_gmm_likelihood_by_the_density_of_each_component(covariance: str) -> None:
    """Two of three components are left, so that their weights have to be scaled: 0.2 and 0.3 to 0.4 and 0.6."""
    means, x = torch.tensor([[0.0, 1.0], [3.0, -1.0]]), torch.tensor([[0.5, 0.5], [2.0, 2.0], [-9.0, 4.0]])
    full = torch.tensor([[[2.0, 0.5], [0.5, 1.0]], [[0.7, -0.2], [-0.2, 3.0]]])
    given = {"full": full, "tied": full[0], "diag": full.diagonal(dim1=1, dim2=2)}[covariance]
    c = Clusters(means, torch.tensor([0, 1]), torch.tensor([0.2, 0.3]), given, covariance)  # type: ignore[arg-type]
    matrices = {"full": full, "tied": full[[0, 0]], "diag": torch.diag_embed(given) if covariance == "diag" else full}
    scores = plugin("gmm_likelihood").fit(x, c)(x)
    for row, score, cluster in zip(x.double().numpy(), scores.score, scores.cluster, strict=True):
        density = []
        for weight, m, s in zip((0.4, 0.6), means.double().numpy(), matrices[covariance].double().numpy(), strict=True):
            power = float((row - m) @ np.linalg.inv(s) @ (row - m))
            density.append(weight * math.exp(-power / 2) / (2 * math.pi * math.sqrt(np.linalg.det(s))))
        assert float(score) == pytest.approx(-math.log(sum(density)), rel=1e-5)
        assert cluster == np.argmax(density)


def test_gmm_likelihood_needs_a_mixture_with_proper_covariances() -> None:
    f = torch.randn(6, 2)
    c = grouped(f, torch.zeros(6, dtype=torch.int64))
    with pytest.raises(ValueError, match="needs clusters with weights and covariances"):
        plugin("gmm_likelihood").fit(f, c)
    flat = c._replace(weight=torch.ones(1), covariance=torch.ones(1, 2, 2), covariance_type="full")
    with pytest.raises(ValueError, match="not positive definite"):
        plugin("gmm_likelihood").fit(f, flat)


def slow_norm_cosine(row: list[float], train: list[list[float]]) -> float:
    length = math.sqrt(sum(v * v for v in row))
    cosines = [
        sum(a * b for a, b in zip(row, other, strict=True)) / length / math.sqrt(sum(b * b for b in other))
        for other in train
    ]
    return -max(cosines) * length


def test_norm_cosine_of_the_mean_view_and_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(3)
    f, x = torch.randn(30, 4, generator=rng), 5 * torch.randn(3, 8, 4, generator=rng)
    c = grouped(f, torch.zeros(30, dtype=torch.int64))
    plain = plugin("norm_cosine")
    monkeypatch.setattr(__import__(type(plain).__module__, fromlist=["x"]), "BLOCK", 7)  # several, the last one short
    train = f.tolist()
    expected = [slow_norm_cosine(row, train) for row in x.mean(0).tolist()]
    assert plain.fit(f, c)(x.mean(0)).score.tolist() == pytest.approx(expected, rel=1e-5)
    each = plugin("norm_cosine", of="each")
    expected = [sum(slow_norm_cosine(x[v, i].tolist(), train) for v in range(3)) / 3 for i in range(8)]
    assert each.views
    assert each.fit(f, c)(x).score.tolist() == pytest.approx(expected, rel=1e-5)
    expected = [slow_norm_cosine(row, train[:i] + train[i + 1 :]) for i, row in enumerate(train)]
    assert plain.leave_one_out(f, c).score.tolist() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="of no other training item"):
        plain.leave_one_out(f[:1], grouped(f[:1], torch.tensor([0])))


def slow_csi(row: list[float], train: list[list[float]], dim: int) -> float:
    """Tack et al. 2020, turn by turn: a row holds, for each of four turns, dim projections and four logits."""
    width, s = dim + 4, 0.0
    for t in range(4):
        z, logit = row[t * width : t * width + dim], row[t * width + dim + t]
        others = [each[t * width : t * width + dim] for each in train]
        con = len(train) / sum(math.sqrt(sum(v * v for v in other)) for other in others)
        cls = len(train) / sum(each[t * width + dim + t] for each in train)
        s += con * -slow_norm_cosine(z, others) + cls * logit
    return -s / 4


def test_csi(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of other turns than the one an image is in say nothing: they are drawn, and large."""
    rng = torch.Generator().manual_seed(3)
    f, x = 2 * torch.randn(30, 4, 7, generator=rng), 5 * torch.randn(8, 4, 7, generator=rng)
    f[..., 3:] += 4 * torch.eye(4)
    f, x = f.flatten(1), x.flatten(1)
    csi = plugin("csi")
    monkeypatch.setattr(__import__(type(csi).__module__, fromlist=["x"]), "BLOCK", 3)  # several, the last one short
    expected = [slow_csi(row, f.tolist(), 3) for row in x.tolist()]
    assert csi.fit(f, grouped(f, torch.zeros(30, dtype=torch.int64)))(x).score.tolist() == pytest.approx(expected)


def test_csi_without_a_mean_logit_to_weigh_by_is_an_error() -> None:
    f = torch.ones(5, 28)
    f[:, 2 * 7 + 3 + 2] = -1  # of the third turn
    with pytest.raises(ValueError, match=r"must be positive: lengths .* logits \[1.0, 1.0, -1.0, 1.0\]"):
        plugin("csi").fit(f, grouped(f, torch.zeros(5, dtype=torch.int64)))


FAR_FROM_ZERO: list[tuple[str, dict[str, str]]] = [
    ("euclidean", {}),
    ("mahalanobis", {"covariance": "shared"}),
    ("mahalanobis", {"covariance": "diagonal"}),
    ("mahalanobis", {"covariance": "per_cluster"}),
    ("local", {}),
    ("density", {}),
]


@pytest.mark.parametrize(("name", "params"), FAR_FROM_ZERO)
def test_a_common_mean_of_1000_times_the_spread_moves_no_distance(name: str, params: dict[str, str]) -> None:
    near, far = two_means()
    scores = [plugin(name, **params).fit(f, c)(x).score for f, c, x in (near, far)]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=0)


def test_a_common_mean_of_1000_times_the_spread_moves_no_relative_distance() -> None:
    """The score is a difference that may be 0, so that the measure is the larger of the two distances."""
    near, far = (plugin("relative_mahalanobis").fit(f, c)(x).score for f, c, x in two_means())
    f, c, x = two_means()[0]
    distance = plugin("mahalanobis").fit(f, c)(x).score
    assert ((far - near).abs() <= 1e-4 * torch.maximum(distance, distance - near)).all()


@pytest.mark.parametrize("covariance", ["diag", "tied", "full"])
def test_a_common_mean_of_1000_times_the_spread_moves_no_likelihood(covariance: str) -> None:
    near, far = two_means()
    scores = [plugin("gmm_likelihood").fit(f, mixture(f, covariance, 2)[1])(x).score for f, _, x in (near, far)]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=0)


def test_ssd_under_a_common_mean_of_1000_times_the_spread() -> None:
    """Unit norm is no shift, so the loop in float64 is the oracle."""
    f, c, x = two_means()[1]
    np.testing.assert_allclose(plugin("ssd").fit(f, c)(x).score, slow_ssd(f, c, x)[0], rtol=1e-4)


@pytest.mark.parametrize("name", ["euclidean", "mahalanobis", "density"])
def test_clusters_300_times_as_far_apart_as_they_are_wide_cost_no_digits(name: str) -> None:
    """|x|^2 - 2 x.c + |c|^2 in float32 is wrong by up to one part in a hundred here."""
    rng = torch.Generator().manual_seed(2)
    assign = torch.arange(300) % 3
    places = 300 * torch.eye(3, 6)
    f, x = (places[assign] + torch.randn(300, 6, generator=rng) for _ in range(2))
    c = grouped(f, assign)
    inverse = np.linalg.inv(residual_covariance(f, c))
    measure: dict[str, list[Any]] = {"euclidean": [], "mahalanobis": [], "density": []}
    for k, m in enumerate(centers(f, c)):
        spread = math.sqrt(float(((members(f, c, k) - m) ** 2).sum(1).mean()))
        measure["euclidean"].append(lambda r, m=m: math.sqrt(sum((r - m) ** 2)))
        measure["mahalanobis"].append(slow_mahalanobis(inverse, m))
        measure["density"].append(lambda r, m=m, spread=spread: math.sqrt(sum((r - m) ** 2)) / spread)
    scores = plugin(name).fit(f, c)(x)
    np.testing.assert_allclose(scores.score, nearest(x, measure[name])[0], rtol=2e-4)
    assert torch.equal(scores.cluster, assign)


def two_means() -> list[tuple[Tensor, Clusters, Tensor]]:
    """Return the same features about a mean of 0, and about one of 1,000 in which float32 holds them exactly."""
    rng = torch.Generator().manual_seed(2)
    f, x = torch.randn(600, 8, generator=rng), torch.randn(50, 8, generator=rng)
    assign = torch.arange(600) % 2
    f[:, 0] += 6.0 * assign
    f, x = ((each * 2**13).round() / 2**13 for each in (f, x))  # the grid of float32 between 512 and 1,024 is 2^-14
    return [(f + mean, grouped(f + mean, assign), x + mean) for mean in (0.0, 1000.0)]


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
    whole = linear_algebra.moments(f), linear_algebra.nearest_to(f[:9])(x)
    monkeypatch.setattr(linear_algebra, "BLOCK", 7)
    parts = linear_algebra.moments(f), linear_algebra.nearest_to(f[:9])(x)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(parts[0].covariance, np.cov(f.double().numpy().T, bias=True), atol=1e-6)


def test_principal_axes_have_a_definite_sign() -> None:
    covariance = np.cov(np.random.default_rng(0).normal(size=(40, 5)).T)
    axes = linear_algebra.principal_axes(torch.from_numpy(covariance), 3)
    values, vectors = np.linalg.eigh(covariance)
    for i in range(3):
        v = vectors[:, -1 - i]
        np.testing.assert_allclose(axes[:, i], v * np.sign(v[np.abs(v).argmax()]), atol=1e-9)
    assert values[-1] > values[0]


# ---- what has no direction, and what is rounding ---------------------------------------------------------


@pytest.mark.parametrize("space", [Space(zscore=True), Space(pca=3), Space(unit=True, zscore=True)])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_cosine_to_the_origin_of_a_centred_space_is_refused(space: Space, shift: float) -> None:
    raw = torch.rand(200, 6, generator=torch.Generator().manual_seed(0)) + shift
    _, f = spaces.fit(space, raw)
    everything = torch.zeros(len(f), dtype=torch.int64)
    one = Clusters(f.mean(0, keepdim=True), everything)
    with pytest.raises(ValueError, match="the centroid of cluster 0 is the origin but for rounding"):
        plugin("cosine").fit(f, one)
    halves = (torch.arange(len(f)) < 100).long()
    two = Clusters(torch.stack([f[halves == k].mean(0) for k in (0, 1)]), halves)
    plugin("cosine").fit(f, two)(f)


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_the_rank_of_float32_features_is_not_that_of_their_rounding(name: str, offset: float) -> None:
    """Features of rank 3 in 8 dimensions, rounded to float32 about a mean: the rest is noise."""
    rng = torch.Generator().manual_seed(0)
    f = (torch.randn(500, 3, generator=rng).double() @ torch.randn(3, 8, generator=rng).double() + offset).float()
    with pytest.warns(UserWarning, match="rank 3 of 8"):
        plugin(name).fit(f, grouped(f, torch.arange(500) % 2))


@pytest.mark.parametrize("apart", [0.0, 10.0, 1e4, 1e6])
def test_the_part_within_clusters_has_no_higher_rank_than_the_whole(apart: float) -> None:
    rng = torch.Generator().manual_seed(0)
    f = torch.randn(400, 6, generator=rng) @ torch.diag(torch.logspace(0, -9, 6))
    f = f + apart * (torch.arange(400) % 2)[:, None]
    with pytest.warns(UserWarning, match="rank") as heard:
        plugin("relative_mahalanobis").fit(f, grouped(f, torch.arange(400) % 2))
    within, whole = (int(str(each.message).split("rank ")[1].split()[0]) for each in heard)
    assert within <= whole < 6


def test_a_covariance_of_float32_is_cut_where_openood_cuts_it() -> None:
    f = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-2, 1e-4])
    c = grouped(f, torch.zeros(200, dtype=torch.int64))
    covariance = np.cov(f.double().numpy().T, bias=True)
    for singular, share in (("pinv", 1e-14), ("pinv32", 3 * float(np.finfo(np.float32).eps))):
        measure = [slow_mahalanobis(np.linalg.pinv(covariance, rcond=share), f.double().numpy().mean(0))]
        with warnings.catch_warnings(action="ignore"):
            agree(plugin("mahalanobis", singular=singular).fit(f, c)(f), nearest(f, measure), rtol=1e-3)
    with pytest.warns(UserWarning, match="rank 2 of 3"):
        plugin("mahalanobis", singular="pinv32").fit(f, c)
    assert plugin("mahalanobis", singular="pinv32").label == "mahalanobis(shared, pinv32)"
