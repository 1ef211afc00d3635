"""Thresholds: the share they accept, the rank they calibrate to, and what per-cluster cuts are for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi
from torch import Tensor

from oodbench import metrics
from oodbench.api import Scores
from oodbench.registry import Registry


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("threshold", name)(**params)


def scores(values: Any, clusters: Any = None) -> Scores:
    score = torch.as_tensor(values, dtype=torch.float64)
    return Scores(score, torch.zeros(len(score), dtype=torch.int64) if clusters is None else torch.as_tensor(clusters))


def accepted(rule: Any, s: Scores) -> Tensor:
    return rule.calibrate(s) <= rule.cut


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_pooled_is_the_smallest_reference_score_that_accepts_the_level(values: list[int], level: float) -> None:
    rule = plugin("pooled", level=level).fit(scores(values))
    shares = {cut: sum(v <= cut for v in values) / len(values) for cut in values}
    assert rule.cut == min(cut for cut, share in shares.items() if share >= level)


@pytest.mark.parametrize(("n", "level"), [(19, 0.95), (50, 0.9), (200, 0.95), (7, 0.5)])
def test_conformal_keeps_its_level_over_the_draw_of_the_reference(n: int, level: float) -> None:
    """The share of uniform scores below the cut is a beta variable with mean ceil((n + 1) level) / (n + 1)."""
    rng = np.random.default_rng(0)
    conformal, pooled = plugin("conformal", level=level), plugin("pooled", level=level)
    draws = [scores(rng.random(n)) for _ in range(3000)]
    mean, mean_pooled = (np.mean([each.fit(draw).cut for draw in draws]) for each in (conformal, pooled))
    expected = math.ceil((n + 1) * level) / (n + 1)
    assert expected >= level
    deviation = math.sqrt(expected * (1 - expected) / (n + 2) / 3000)
    assert mean == pytest.approx(expected, abs=4 * deviation)
    assert mean_pooled == pytest.approx(math.ceil(n * level) / (n + 1), abs=4 * deviation)


def test_conformal_accepts_everything_where_the_reference_is_too_small() -> None:
    with pytest.warns(UserWarning, match="18 reference items are too few for conformal: everything is accepted"):
        rule = plugin("conformal").fit(scores(range(18)))
    assert accepted(rule, scores([1e300])).all()
    assert plugin("conformal").fit(scores(range(19))).cut == 18


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_per_cluster_is_a_pooled_cut_in_each_cluster(items: list[tuple[int, int]], level: float) -> None:
    """One cut on the rank in a cluster decides as a cut at the quantile of each cluster does."""
    values, clusters = (list(each) for each in zip(*items, strict=True))
    rule = plugin("per_cluster", level=level).fit(scores(values, clusters))
    for k in set(clusters):
        own = [v for v, c in items if c == k]
        cut = sorted(own)[math.ceil(level * len(own)) - 1]
        tried = [-1, *range(10)]
        found = accepted(rule, scores(tried, [k] * len(tried)))
        assert found.tolist() == [v <= cut for v in tried]


@pytest.mark.parametrize("tail", ["saturate", "extend"])
def test_the_calibrated_score_is_the_share_of_the_reference_below(tail: str) -> None:
    ref = scores([1.0, 2.0, 2.0, 4.0, 10.0], [0, 0, 0, 0, 1])
    rule = plugin("per_cluster", tail=tail).fit(ref)
    found = rule.calibrate(scores([0.0, 1.0, 1.5, 2.0, 3.0, 4.0], [0] * 6))
    assert found.tolist() == [0, 0, 0.25, 0.25, 0.75, 0.75]


def test_beyond_the_largest_reference_ranks_saturate_or_go_on() -> None:
    ref = scores([1.0, 2.0, 3.0, 4.0, 8.0], [0, 0, 0, 0, 1])
    far = scores([5.0, 8.0], [0, 0])
    assert plugin("per_cluster").fit(ref).calibrate(far).tolist() == [1, 1]
    extended = plugin("per_cluster", tail="extend").fit(ref).calibrate(far)
    assert extended.tolist() == [1 + 1 / 2, 1 + 4 / 2]  # largest 4, median 2


def test_tail_of_a_cluster_without_spread_takes_that_of_the_whole_reference() -> None:
    rule = plugin("per_cluster", tail="extend").fit(scores([1.0, 3.0, 5.0, 7.0], [0, 0, 0, 1]))
    assert rule.calibrate(scores([11.0], [1])).tolist() == [1 + 4 / 4]  # whole reference: largest 7, median 3
    lone = plugin("per_cluster", tail="extend").fit(scores([2.0, 2.0], [0, 1]))
    assert lone.calibrate(scores([5.0], [0])).tolist() == [4.0]


def test_a_cluster_without_reference_is_ranked_among_all() -> None:
    rule = plugin("per_cluster").fit(scores([1.0, 2.0, 3.0, 4.0], [0, 0, 2, 2]))
    assert rule.calibrate(scores([2.5, 9.0], [1, 1])).tolist() == [0.5, 1.0]


def test_clusters_of_different_radius() -> None:
    """Closed form: radii 1 and 4, chi-distributed distances. Per cluster, each keeps 95 % of its ID and the ranking
    is as good as in one cluster alone; a pooled cut rejects ID of the wide cluster only."""
    rng = np.random.default_rng(0)
    n, d, stretch = 20_000, 8, 1.5
    cluster = rng.integers(2, size=3 * n)
    radius = np.array([1.0, 4.0])[cluster]
    distance = radius * chi.rvs(d, size=3 * n, random_state=rng)
    distance[2 * n :] *= stretch  # OOD
    parts = [scores(distance[i * n : (i + 1) * n], cluster[i * n : (i + 1) * n]) for i in range(3)]
    ref, id_, ood = parts
    own, pooled = plugin("per_cluster").fit(ref), plugin("pooled").fit(ref)
    expected = 1 - chi.cdf(chi.ppf(0.95, d) / stretch, d)
    for k in range(2):
        inside = id_.cluster == k
        assert float(accepted(own, id_)[inside].double().mean()) == pytest.approx(0.95, abs=0.01)
        missed = float(accepted(own, ood)[ood.cluster == k].double().mean())
        assert 1 - missed == pytest.approx(expected, abs=0.015)
    rejected = [float((~accepted(pooled, id_))[id_.cluster == k].double().mean()) for k in range(2)]
    assert rejected == pytest.approx([0.0, 0.1], abs=0.01)

    def auroc(rule: Any) -> float:
        return metrics.auroc(metrics.curve(rule.calibrate(id_).numpy(), rule.calibrate(ood).numpy()))

    one = metrics.auroc(
        metrics.curve(distance[n : 2 * n][cluster[n : 2 * n] == 0], distance[2 * n :][cluster[2 * n :] == 0])
    )
    assert auroc(own) == pytest.approx(one, abs=0.015)
    assert auroc(pooled) < one - 0.1


def test_realised_recall_of_a_held_out_reference() -> None:
    """A cut at the 95 % quantile of n reference items keeps 95 % of new ID on average, with the known spread."""
    rng = np.random.default_rng(1)
    n, kept = 100, []
    for _ in range(400):
        rule = plugin("pooled").fit(scores(rng.normal(size=n)))
        kept.append(float(accepted(rule, scores(rng.normal(size=2000))).double().mean()))
    assert np.mean(kept) == pytest.approx(95 / 101, abs=0.004)  # the 95th of 100 order statistics
    assert np.std(kept) == pytest.approx(0.0235, abs=0.004)
