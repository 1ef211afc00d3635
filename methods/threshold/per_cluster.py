"""A cut in each cluster, at a quantile of the ID reference scores of that cluster.

Sinhamahapatra et al. 2022, arXiv 2203.08549: clusters have different radii, so each gets its own cut. A cut
at a percentile in each cluster is one cut on the share of the cluster's reference below a score: that share
is the calibrated score, and ordinary curves do the rest.

All scores above a cluster's largest reference score share the calibrated score 1. `tail: extend` goes on
beyond it: 1 + (score - largest) / (largest - median of the cluster's reference), our choice; where a
cluster's reference has no spread, that of the whole reference is taken.
An item whose cluster has no reference item is ranked among the whole reference.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from oodbench.api import Rule, Scores, Threshold


class PerCluster(Threshold):
    """Per cluster: each cluster has its own cut, at a quantile of its own reference scores."""

    tail: Literal["saturate", "extend"] = "saturate"  # of scores above a cluster's largest reference score

    clusters = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        pooled = ref.score.sort().values
        by_cluster = {int(k): ref.score[ref.cluster == k].sort().values for k in ref.cluster.unique()}

        def calibrate(s: Scores) -> Tensor:
            shares = torch.empty_like(s.score)
            for k in s.cluster.unique():
                item = s.cluster == k
                shares[item] = self._share(s.score[item], by_cluster.get(int(k), pooled), pooled)
            return shares

        return Rule(calibrate, math.nextafter(self.level, 0.0))  # a share of `level` or more is OOD

    def _share(self, score: Tensor, reference: Tensor, pooled: Tensor) -> Tensor:
        share = torch.searchsorted(reference, score).double() / len(reference)  # of reference scores below
        if self.tail == "saturate":
            return share
        beyond = (score - reference[-1]) / (_spread(reference) or _spread(pooled) or 1.0)
        return torch.where(beyond > 0, 1 + beyond, share)


def _spread(reference: Tensor) -> float:
    return float(reference[-1] - reference.median())
