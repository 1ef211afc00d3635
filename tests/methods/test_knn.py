"""kNN against the slowest loop, whatever its blocks, its groups, its sample, and where the features lie."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from oodbench.study.registry import Registry
from oodbench.toolkit.clusters import grouped

KNN: Any = Registry().load("distance", "knn")
module: Any = sys.modules[KNN.__module__]


def fit(f: Tensor, *ks: int, **params: Any) -> Callable[[Tensor], list[Any]]:
    clusters = grouped(f, torch.zeros(len(f), dtype=torch.int64, device=f.device))
    scorer: Callable[[Tensor], list[Any]] = KNN.fit_together([KNN(k=k, **params) for k in ks], f, clusters)
    return scorer


def slow(f: Tensor, x: Tensor) -> np.ndarray:
    """Return sorted distances (M, N) from differences in float64."""
    pairs = [[np.sqrt(((row - other) ** 2).sum()) for other in f.double().numpy()] for row in x.double().numpy()]
    return np.sort(np.array(pairs), 1)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize(("queries", "bank", "group"), [(1024, 65536, 16), (7, 256, 16), (5, 132, 4), (64, 40, 16)])
def test_blocks_and_groups_change_nothing(
    monkeypatch: pytest.MonkeyPatch, mean: float, queries: int, bank: int, group: int
) -> None:
    """Banks of 500 that fit no block, a k larger than a block, and features 1,000 times their spread from 0."""
    for name, value in (("QUERIES", queries), ("BANK", bank), ("GROUP", group)):
        monkeypatch.setattr(module, name, value)
    rng = torch.Generator().manual_seed(0)
    f, x = mean + torch.randn(501, 6, generator=rng), mean + torch.randn(23, 6, generator=rng)
    ks = (50, 1, 14, 501)
    expected = slow(f, x)
    for k, found in zip(ks, fit(f, *ks)(x), strict=True):
        np.testing.assert_allclose(found.score, expected[:, k - 1], rtol=1e-6)


@pytest.mark.parametrize("apart", [30.0, 1000.0])
def test_neighbours_in_clusters_that_are_far_apart_are_the_nearest(apart: float) -> None:
    """Squares about the common mean hold too few digits to tell the items of a cluster from each other."""
    rng = torch.Generator().manual_seed(0)
    places = apart * torch.eye(4, 32)[torch.arange(800) % 4]
    f, x = places + torch.randn(800, 32, generator=rng), places[:40] + torch.randn(40, 32, generator=rng)
    exact = torch.cdist(x.double(), f.double()).sort(1).values
    for k, found in zip((1, 5, 20), fit(f, 1, 5, 20)(x), strict=True):
        np.testing.assert_allclose(found.score, exact[:, k - 1], rtol=1e-4)


@pytest.mark.parametrize("library", ["torch", "faiss"])
def test_settings_together_score_as_each_alone(library: str, device: str) -> None:
    if library == "faiss":
        pytest.importorskip("faiss")
    f, x = torch.randn(300, 5).to(device), torch.randn(40, 5).to(device)
    ks = (3, 100, 1)
    for k, found in zip(ks, fit(f, *ks, library=library)(x), strict=True):
        torch.testing.assert_close(found, fit(f, k, library=library)(x)[0])


class Products(TorchFunctionMode):
    """Counts matrix products."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.mm
        return func(*args, **(kwargs or {}))


def test_five_values_of_k_share_one_product_and_another_sample_has_its_own() -> None:
    f, x = torch.randn(300, 5), torch.randn(40, 5)
    clusters = grouped(f, torch.zeros(300, dtype=torch.int64))
    for settings, products in (
        ([KNN(k=k) for k in (1, 2, 3, 4, 5)], 1),
        ([KNN(k=1), KNN(k=1, sample=30), KNN(k=2, sample=30)], 2),
    ):
        score = KNN.fit_together(settings, f, clusters)
        with Products() as counted:
            score(x)
        assert counted.count == products


def test_a_sample_is_searched_alone() -> None:
    """Its distances are those to 60 of the 300 items, the same ones each time."""
    rng = torch.Generator().manual_seed(0)
    f, x = torch.randn(300, 5, generator=rng), torch.randn(20, 5, generator=rng)
    chosen = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:60]
    expected = slow(f[chosen], x)
    one, four = fit(f, 1, 4, sample=60)(x)
    np.testing.assert_allclose(one.score, expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(four.score, expected[:, 3], rtol=1e-6)
    torch.testing.assert_close(fit(f, 4, sample=60)(x)[0], four, rtol=0, atol=0)
    torch.testing.assert_close(fit(f, 4, sample=300)(x)[0], fit(f, 4)(x)[0])
    assert KNN(k=4, sample=60).label == "knn(k=4, sample=60)"
    with pytest.raises(ValueError, match=r"knn\(k=61\) of 60 training items"):
        fit(f, 61, sample=60)


def test_items_of_a_sample_are_left_out_of_their_own_score() -> None:
    f = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    chosen = set(torch.randperm(50, generator=torch.Generator().manual_seed(0))[:20].tolist())
    found = KNN(k=3, sample=20).leave_one_out(f, grouped(f, torch.zeros(50, dtype=torch.int64))).score
    for i in range(50):
        others = [j for j in sorted(chosen) if j != i]
        assert found[i] == pytest.approx(slow(f[others], f[i : i + 1])[0, 2], rel=1e-6)


def test_duplicates_are_as_near_as_they_are() -> None:
    """Ties within and across groups: the k-th distance is the same whichever of them is named."""
    f = torch.tensor([0.0, 1.0, 2.0]).repeat(400)[:, None] * torch.ones(1, 4)
    for k, expected in ((1, 0.0), (400, 0.0), (401, 2.0), (800, 2.0), (801, 4.0)):
        assert fit(f, k)(torch.zeros(2, 4))[0].score.tolist() == [expected, expected]


def test_a_mapped_file_is_searched_as_if_it_were_in_memory(tmp_path: Path) -> None:
    f, x = torch.randn(400, 8), torch.randn(10, 8)
    np.save(tmp_path / "f.npy", f.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "f.npy", mmap_mode="c"))
    torch.testing.assert_close(fit(mapped, 5)(x)[0], fit(f, 5)(x)[0], rtol=0, atol=0)
