"""How good clusters are: their separation, purity and agreement with the classes (Sinhamahapatra et al. 2022).

Global separation, cluster purity and local purity are those of "Is it all a cluster game?" (arXiv 2203.08549), as
the code of its authors defines them (rajatkoner08/oodformer, evaluate_cluster_metrics.py); the rest is what the
field calls by these names. All distances are Euclidean in the space of the features, over every pair of items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
)
from torch import Tensor

from oodbench.toolkit.linear_algebra import squared_distances_to

OF_THE_CLASSES = ("class_separation", "local_purity")  # of the features and classes, whatever the clusters are
OF_THE_CLUSTERS = (
    "global_separation",
    "cluster_purity",
    "silhouette",
    "nmi",  # with arithmetic averaging, which is the V-measure
    "ari",
    "davies_bouldin",
    "calinski_harabasz",
)
MEASURES = (*OF_THE_CLASSES, *OF_THE_CLUSTERS)
BLOCK = 2**24  # distances at a time
STEPS = 10  # of neighbourhood sizes in the authors' local purity, from 0 to the largest class


def measures(f: Tensor, y: Tensor, classes: int, groupings: Sequence[Tensor | None]) -> list[dict[str, float]]:
    """Return the measures of items f (N, D) of classes y (N,) under each grouping (N,), -1 = noise, left out.

    A grouping that is None makes no clusters. A measure that does not exist is absent: one of classes where there
    is one class, a separation of one cluster.
    """
    several = classes > 1
    found = _spreads(f, ([y] if several else []) + [each for each in groupings if each is not None])
    shared = {}
    if several:
        shared = _separated("class_separation", found.pop(0)) | {"local_purity": local_purity(f, y)}
    spreads = iter(found)
    return [
        shared | ({} if each is None else _clustered(f, y if several else None, each, next(spreads)))
        for each in groupings
    ]


def _clustered(f: Tensor, y: Tensor | None, assign: Tensor, spread: Spread) -> dict[str, float]:
    kept = assign >= 0
    x, clusters = f[kept].double().cpu().numpy(), assign[kept].cpu().numpy()
    found = _separated("global_separation", spread)
    if 1 < len(spread.between) < len(clusters):
        found["silhouette"] = spread.silhouette
        found["davies_bouldin"] = float(davies_bouldin_score(x, clusters))
        found["calinski_harabasz"] = float(calinski_harabasz_score(x, clusters))
    if y is not None:
        true = y[kept].cpu().numpy()
        found["cluster_purity"] = cluster_purity(assign[kept], y[kept])
        found["nmi"] = float(normalized_mutual_info_score(true, clusters))
        found["ari"] = float(adjusted_rand_score(true, clusters))
    return found


def _separated(name: str, spread: Spread) -> dict[str, float]:
    return {name: global_separation(spread.between)} if len(spread.between) > 1 else {}


# ---- over all pairs of items ---------------------------------------------------------------------------


class Spread(NamedTuple):
    """How far the items of clusters are from each other; clusters that have no item are not among them."""

    between: Tensor  # (K, K) float64, mean distance of the items of two clusters; its diagonal includes self-distances
    silhouette: float  # mean over items; NaN for one cluster


def _spreads(f: Tensor, groupings: Sequence[Tensor]) -> list[Spread]:
    """Return the spread of f (N, D) under each grouping (N,), -1 = noise, in one pass over all pairs."""
    members = [torch.eq(each[:, None], each[each >= 0].unique()).float() for each in groupings]  # (N, K)
    sums: list[list[Tensor]] = [[] for _ in groupings]
    for _, distance in _distances(f) if members else ():
        for each, member in zip(sums, members, strict=True):
            each.append((distance @ member).double())
    return [_spread(torch.cat(each), member.double()) for each, member in zip(sums, members, strict=True)]


def _spread(sums: Tensor, member: Tensor) -> Spread:
    """Return the spread, given each item's sum of distances to the members of each cluster (N, K)."""
    size = member.sum(0)
    between = member.T @ sums / (size[:, None] * size)
    if len(size) == 1:
        return Spread(between, math.nan)
    kept = member.any(1)
    sums, mine = sums[kept], member[kept].bool()
    others = size[mine.nonzero()[:, 1]] - 1
    within = sums[mine] / others.clamp_min(1)
    nearest = (sums / size).masked_fill(mine, math.inf).min(1).values
    silhouette = (nearest - within) / torch.maximum(nearest, within).clamp_min(torch.finfo(torch.float64).tiny)
    return Spread(between, float(silhouette.where(others > 0, 0.0).mean()))  # alone in a cluster: 0 (Rousseeuw 1987)


def global_separation(between: Tensor) -> float:
    """Return the mean over clusters of (nearest - own) / max(nearest, own), of mean distances between (K, K), K > 1.

    `own` is the mean distance of a cluster's items to each other, each to itself included, `nearest` the smallest
    mean distance to the items of another cluster. From -1 to 1; 0 for clusters that all lie in one point.
    """
    own = between.diagonal()
    nearest = between.clone().fill_diagonal_(math.inf).min(1).values
    larger = torch.maximum(nearest, own).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((nearest - own) / larger).mean())


def local_purity(f: Tensor, y: Tensor) -> float:
    """Return the mean share of the most frequent class among an item of f (N, D) and its k nearest neighbours.

    It is the mean over the authors' steps of k, evenly from 0 to the size of the largest class, but for k = 0, where
    it is 1 for any features.
    """
    steps = np.linspace(0, int(torch.bincount(y).max()), STEPS).astype(int)[1:]
    sizes = [min(int(k) + 1, len(f)) for k in steps]
    classes, total = int(y.max()) + 1, 0.0
    for rows, distance in _distances(f):
        distance.diagonal(rows.start).fill_(-1)  # an item comes before what lies in the same point
        near = y[distance.topk(sizes[-1], largest=False).indices]  # (rows, largest k)
        counts = torch.zeros(len(near), classes, dtype=torch.int64, device=f.device)
        for before, size in zip([0, *sizes], sizes, strict=False):
            step = near[:, before:size]
            counts.scatter_add_(1, step, torch.ones_like(step))
            total += float((counts.max(1).values.double() / size).sum())
    return total / len(f) / len(sizes)


def _distances(f: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield some rows and their distances (rows, N) to all of f (N, D), float32, an item's own exactly 0."""
    measure = squared_distances_to(f, among=True)
    step = max(1, BLOCK // len(f))
    for start in range(0, len(f), step):
        rows = slice(start, start + step)
        distance = measure(f[rows]).sqrt_()
        distance.diagonal(start).zero_()
        yield rows, distance


# ---- of clusters and classes ----------------------------------------------------------------------------


def cluster_purity(assign: Tensor, y: Tensor) -> float:
    """Return the mean over clusters, small and large alike, of the share of their most frequent class."""
    used, cluster = assign.unique(return_inverse=True)
    count = torch.bincount(cluster * (int(y.max()) + 1) + y, minlength=len(used) * (int(y.max()) + 1))
    count = count.view(len(used), -1)  # (K, C)
    return float((count.max(1).values.double() / count.sum(1)).mean())
