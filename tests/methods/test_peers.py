"""Distances against pytorch-ood's detectors of the same name, on the same features and classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_ood import detector
from scipy.stats import spearmanr
from torch import Tensor

from oodbench.study.registry import Registry
from oodbench.toolkit.clusters import grouped

N = 400


@pytest.fixture(scope="module")
def features() -> tuple[Tensor, Tensor, Tensor]:
    """Training features (N, 12) of four classes with a common covariance that is no multiple of the identity."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(4).repeat_interleave(N // 4)
    mixing = torch.randn(12, 12, generator=rng)
    f = 2 * torch.randn(4, 12, generator=rng)[y] + torch.randn(N, 12, generator=rng) @ mixing
    return f, y, 3 * torch.randn(200, 12, generator=rng)


def ours(name: str, f: Tensor, y: Tensor, x: Tensor, **params: Any) -> Tensor:
    score: Tensor = Registry().load("distance", name)(**params).fit(f, grouped(f, y))(x).score
    return score


def agree(mine: Tensor, theirs: Tensor, size: Tensor) -> None:
    """Expect equality to 1e-4 of a score's size, and the same ranking."""
    assert ((mine - theirs.double()).abs() <= 1e-4 * size).all()
    assert spearmanr(mine, theirs).statistic > 1 - 1e-6


def test_mahalanobis(features: tuple[Tensor, Tensor, Tensor]) -> None:
    """Theirs is half the squared distance, under a scatter that is not divided by N: a factor of 2 N."""
    f, y, x = features
    theirs = detector.Mahalanobis(None).fit_features(f, y).predict_features(x)
    mine = ours("mahalanobis", f, y, x)
    agree(mine, 2 * N * theirs, mine)


def test_relative_mahalanobis(features: tuple[Tensor, Tensor, Tensor]) -> None:
    """Theirs is squared and not halved, under scatters that are not divided by N: a factor of N."""
    f, y, x = features
    theirs = detector.RMD(None).fit_features(f, y).predict_features(x)
    agree(ours("relative_mahalanobis", f, y, x), N * theirs, ours("mahalanobis", f, y, x))


def test_mahalanobis_of_each_class(features: tuple[Tensor, Tensor, Tensor]) -> None:
    """A class at a time, theirs has one class, whose least distance over classes is ours: a factor of 2 n each."""
    f, y, x = features
    n = N // 4
    each = [f[y == k] for k in range(4)]
    theirs = [detector.Mahalanobis(None).fit_features(z, torch.zeros(n, dtype=torch.int64)) for z in each]
    mine = ours("mahalanobis", f, y, x, covariance="per_cluster")
    agree(mine, torch.stack([2 * n * one.predict_features(x) for one in theirs]).min(0).values, mine)


def test_gmm_likelihood(features: tuple[Tensor, Tensor, Tensor]) -> None:
    """Theirs has a component for each class, with the class's share and full covariance: the same nats."""
    f, y, x = features
    theirs = detector.GMM(None, reg=1e-6).fit_features(f, y).predict_features(x)
    covariance = torch.stack([torch.cov(f[y == k].T, correction=0) for k in range(4)])
    c = grouped(f, y)._replace(weight=torch.full((4,), 0.25), covariance=covariance, covariance_type="full")
    mine = Registry().load("distance", "gmm_likelihood")().fit(f, c)(x).score  # type: ignore[attr-defined]
    agree(mine, theirs, mine)


@pytest.mark.parametrize("k", [1, 50])
@pytest.mark.parametrize("unit", [True, False])
def test_knn(features: tuple[Tensor, Tensor, Tensor], k: int, unit: bool) -> None:
    """Theirs scales to unit length itself, as a unit space does; the distance is the same, not squared."""
    f, y, x = features
    theirs = detector.KNN(None, k=k, normalize=unit).fit_features(f, y).predict_features(x)
    if unit:
        f, x = (each / each.norm(dim=1, keepdim=True) for each in (f, x))
    mine = ours("knn", f, y, x, k=k)
    agree(mine, theirs, mine)
