"""Cluster quality: measures against slow loops and scikit-learn, the survey of a study, correlations by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    davies_bouldin_score,
    pairwise_distances,
    silhouette_score,
    v_measure_score,
)
from test_cli import call, plain  # noqa: F401 - the fixture
from torch import Tensor

from oodbench import quality
from oodbench.quality import MEASURES, OF_THE_CLASSES, measures


def drawn(n: int = 90, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, classes and clusters that have something to do with each other, of unequal sizes."""
    rng = np.random.default_rng(0)
    y = rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    f = rng.normal(size=(classes, 5))[y] * 2 + rng.normal(size=(n, 5)) + 50
    assign = np.where(rng.random(n) < 0.6, y, rng.integers(0, classes + 1, n))
    return torch.from_numpy(f).float(), torch.from_numpy(y), torch.from_numpy(assign)


def one(f: Tensor, y: Tensor, assign: Tensor, classes: int = 4) -> dict[str, float]:
    (found,) = measures(f, y, classes, [assign])
    return found


# ---- loops, as slow and as plain as the authors' words -------------------------------------------------


def slow_separation(f: Tensor, groups: Tensor) -> float:
    distance = pairwise_distances(f.double().numpy())
    names = sorted(set(groups.tolist()) - {-1})

    def between(a: int, b: int) -> float:
        pairs = [(i, j) for i in range(len(f)) if groups[i] == a for j in range(len(f)) if groups[j] == b]
        return sum(distance[i, j] for i, j in pairs) / len(pairs)

    found = []
    for c in names:
        own, nearest = between(c, c), min(between(c, other) for other in names if other != c)
        found.append((nearest - own) / max(nearest, own))
    return sum(found) / len(found)


def slow_cluster_purity(assign: Tensor, y: Tensor) -> float:
    shares = []
    for c in set(assign.tolist()) - {-1}:
        inside = [label for label, cluster in zip(y.tolist(), assign.tolist(), strict=True) if cluster == c]
        shares.append(max(inside.count(label) for label in inside) / len(inside))
    return sum(shares) / len(shares)


def slow_local_purity(f: Tensor, y: Tensor) -> float:
    distance = pairwise_distances(f.double().numpy())
    largest = max(y.tolist().count(c) for c in y.tolist())
    curve = []
    for k in [int(each) for each in np.linspace(0, largest, 10)][1:]:
        shares = []
        for i in range(len(f)):
            others = sorted((j for j in range(len(f)) if j != i), key=lambda j: distance[i, j])
            near = [int(y[j]) for j in [i, *others[:k]]]
            shares.append(max(near.count(label) for label in near) / len(near))
        curve.append(sum(shares) / len(shares))
    return sum(curve) / len(curve)


@pytest.mark.parametrize("block", [quality.BLOCK, 1000])
def test_measures_are_those_of_loops_and_scikit_learn(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "BLOCK", block)  # 1000: eleven rows at a time
    f, y, assign = drawn()
    found = one(f, y, assign)
    x = f.double().numpy()
    assert tuple(sorted(found)) == tuple(sorted(MEASURES))
    assert found["global_separation"] == pytest.approx(slow_separation(f, assign), abs=1e-5)
    assert found["class_separation"] == pytest.approx(slow_separation(f, y), abs=1e-5)
    assert found["cluster_purity"] == pytest.approx(slow_cluster_purity(assign, y), abs=1e-12)
    assert found["local_purity"] == pytest.approx(slow_local_purity(f, y), abs=1e-12)
    assert found["silhouette"] == pytest.approx(silhouette_score(x, assign), abs=1e-5)
    assert found["davies_bouldin"] == pytest.approx(davies_bouldin_score(x, assign), abs=1e-9)
    assert found["nmi"] == pytest.approx(v_measure_score(y, assign), abs=1e-12)
    assert found["class_separation"] > found["global_separation"] + 0.1  # so that one is not the other


def test_ari_counts_pairs() -> None:
    _, y, assign = drawn(40)
    pairs = [(y[i] == y[j], assign[i] == assign[j]) for i in range(40) for j in range(i)]
    both = sum(bool(a and b) for a, b in pairs)
    same_y, same_c = sum(bool(a) for a, _ in pairs), sum(bool(b) for _, b in pairs)
    expected = same_y * same_c / len(pairs)
    wanted = (both - expected) / ((same_y + same_c) / 2 - expected)
    assert one(torch.randn(40, 3), y, assign)["ari"] == pytest.approx(wanted, abs=1e-12)


def test_calinski_harabasz_is_a_ratio_of_scatters() -> None:
    f, y, assign = drawn()
    parts = [f[assign == c].double() for c in assign.unique()]
    between = sum(len(p) * (p.mean(0) - f.double().mean(0)).square().sum() for p in parts) / (len(parts) - 1)
    within = sum((p - p.mean(0)).square().sum() for p in parts) / (len(f) - len(parts))
    assert one(f, y, assign)["calinski_harabasz"] == pytest.approx(float(between / within), rel=1e-9)


def test_an_item_alone_in_its_cluster() -> None:
    f, y, assign = drawn()
    assign[0] = 7
    found = one(f, y, assign)
    assert found["silhouette"] == pytest.approx(silhouette_score(f.double().numpy(), assign), abs=1e-5)
    assert found["global_separation"] == pytest.approx(slow_separation(f, assign), abs=1e-5)


def test_noise_is_left_out_of_what_is_of_clusters() -> None:
    f, y, assign = drawn()
    assign[::4] = -1
    kept = assign >= 0
    found, without = one(f, y, assign), one(f[kept], y[kept], assign[kept])
    for name in quality.OF_THE_CLUSTERS:
        assert found[name] == pytest.approx(without[name], abs=1e-5), name
    whole = one(f, y, drawn()[2])
    for name in OF_THE_CLASSES:
        assert found[name] == whole[name], name
        assert found[name] != without[name], name


def test_perfect_clusters() -> None:
    y = torch.arange(4).repeat_interleave(25)
    f = torch.eye(4)[y] * 1000 + torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) * 1e-3
    found = one(f, y, 3 - y)  # whatever their numbers
    for name in ("class_separation", "global_separation", "cluster_purity", "silhouette", "nmi", "ari"):
        assert found[name] == pytest.approx(1, abs=1e-4), name
    # 25 other items at most, of which 24 are of the item's own class: the last of nine steps has one that is not
    assert found["local_purity"] == pytest.approx((8 + 25 / 26) / 9)
    assert found["davies_bouldin"] == pytest.approx(0, abs=1e-4)


def test_random_labels() -> None:
    rng = torch.Generator().manual_seed(0)
    f, y = torch.randn(2000, 3, generator=rng), torch.randint(0, 2, (2000,), generator=rng)
    found = one(f, y, torch.randint(0, 2, (2000,), generator=rng), 2)
    for name in ("class_separation", "global_separation", "silhouette", "nmi", "ari"):
        assert found[name] == pytest.approx(0, abs=0.01), name
    assert found["cluster_purity"] == pytest.approx(0.5, abs=0.05)
    assert found["local_purity"] == pytest.approx(0.5, abs=0.1)


def test_what_does_not_exist_is_absent() -> None:
    f, y, assign = drawn()
    single = one(f, y, torch.zeros_like(assign))
    assert set(single) == {*OF_THE_CLASSES, "cluster_purity", "nmi", "ari"}
    assert single["cluster_purity"] == pytest.approx(int(y.bincount().max()) / len(y))
    assert (single["nmi"], single["ari"]) == (0, 0)
    of_one_class = one(f, torch.zeros_like(y), assign, classes=1)
    assert set(of_one_class) == {"global_separation", "silhouette", "davies_bouldin", "calinski_harabasz"}
    assert measures(f, y, 4, [None]) == [{name: single[name] for name in OF_THE_CLASSES}]
    assert measures(f, torch.zeros_like(y), 1, [None]) == [{}]
    each_alone = one(f[:5], y[:5], torch.arange(5))
    assert set(each_alone) == {*OF_THE_CLASSES, "global_separation", "cluster_purity", "nmi", "ari"}
    assert each_alone["global_separation"] == 1


def test_items_in_one_point() -> None:
    y = torch.tensor([0, 0, 1, 1])
    found = one(torch.ones(4, 2), y, y, 2)
    assert (found["global_separation"], found["silhouette"]) == (0, 0)
    assert not any(math.isnan(value) for value in found.values())


def test_groupings_do_not_see_each_other() -> None:
    f, y, assign = drawn()
    together = measures(f, y, 4, [y, None, assign])
    assert together == [one(f, y, y), measures(f, y, 4, [None])[0], one(f, y, assign)]
