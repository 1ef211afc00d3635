"""What holds of every clustering."""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Clustering, Clusters
from oodbench.conformance.toys import CLASSES, expect, groups


def _fitted(clustering: Clustering) -> tuple[Clusters, Tensor, Tensor]:
    """Return the clusters of separated groups, their features and the groups."""
    f, y = groups()
    return clustering.fit(f, y if clustering.labels else None, 0), f, y


def is_well_formed(clustering: Clustering) -> None:
    """Its clusters are well formed."""
    c, f, _ = _fitted(clustering)
    k, dim = len(c.centroid), f.shape[1]
    expect(c.assign.shape == (len(f),) and c.assign.dtype == torch.int64, "assign is int64 (N,)")
    expect(c.assign.min() >= -1 and c.assign.max() < k, "assign is between -1 and K - 1")
    expect(len(c.assign[c.assign >= 0].unique()) == k, "every cluster has an item")
    expect(c.centroid.shape == (k, dim) and c.centroid.dtype == torch.float32, "centroid is float32 (K, D)")
    expect(c.centroid.isfinite().all(), "centroids are finite")
    shapes = {None: None, "diag": (k, dim), "tied": (dim, dim), "full": (k, dim, dim)}
    shape = None if c.covariance is None else tuple(c.covariance.shape)
    expect(shape == shapes[c.covariance_type], f"covariance of type {c.covariance_type} has shape {shape}")
    expect(c.weight is None or c.weight.shape == (k,), "weight is (K,)")
    whole = c.weight is not None and c.covariance is not None
    expect(clustering.mixture == whole, "it says `mixture` where it gives weights and covariances, and only there")


def repeats(clustering: Clustering) -> None:
    """The same seed gives the same clusters."""
    first, second = (_fitted(clustering)[0] for _ in range(2))
    same = torch.equal(first.assign, second.assign) and torch.equal(first.centroid, second.centroid)
    expect(same, "the same seed gives the same clusters")


def separates(clustering: Clustering) -> None:
    """Groups far apart stay apart."""
    c, _, y = _fitted(clustering)
    if clustering.single or len(c.centroid) < CLASSES:
        return
    mixed = [k for k in range(len(c.centroid)) if len(y[c.assign == k].unique()) > 1]
    expect(not mixed, f"groups far apart stay apart, but clusters {mixed} mix them")


def keeps_input(clustering: Clustering) -> None:
    """It leaves its input as it is."""
    expect(torch.equal(_fitted(clustering)[1], groups()[0]), "it leaves the features it is given as they are")


CHECKS = (is_well_formed, repeats, separates, keeps_input)
