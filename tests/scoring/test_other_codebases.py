"""Each codebase's rule against a loop over its own steps, and how the rules relate under ties."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_ood.metrics import OODMetrics
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from oodbench.scoring import metrics, other_codebases
from oodbench.scoring.metrics import ranking
from oodbench.scoring.other_codebases import Grouped, all_rules

Scores = tuple[np.ndarray, np.ndarray]
OOD_POSITIVE = ("openood", "pytorch_ood", "oodeel")
ID_POSITIVE = ("openood_v1", "ssd", "cider", "knn_ood")


@cache
def drawn(kind: str) -> Scores:
    """Scores of 9,000 ID and 26,032 OOD items (CIFAR-10 and SVHN in OpenOOD), by how many are tied."""
    rng = np.random.default_rng(0)
    if kind == "smooth":
        return rng.normal(0, 1, 9000), rng.normal(1.5, 1.4, 26_032)
    if kind == "constant":
        return np.ones(9000), np.ones(26_032)
    if kind == "few":
        return rng.integers(0, 6, 40).astype(float), rng.integers(2, 8, 30).astype(float)
    logits = rng.normal(9, 6, 9000), rng.normal(4, 3.2, 26_032)  # of the likelier of two classes over the other
    dtype = np.dtype(kind)
    id_, ood = (-(1 / (1 + np.exp(-np.abs(each)))).astype(dtype).astype(np.float64) for each in logits)
    return id_, ood


KINDS = ("smooth", "float32", "float16", "constant", "few")


def fpr95(kind: str) -> dict[str, float]:
    found = all_rules(*drawn(kind))
    return {name: found[f"fpr95_{name}"] for name in (*OOD_POSITIVE, *ID_POSITIVE)}


def of_roc(positive: np.ndarray, negative: np.ndarray) -> float:
    y = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    fpr, tpr, _ = roc_curve(y, np.r_[positive, negative])
    return float(fpr[np.argmax(tpr >= 0.95)])


small = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=40).map(np.array)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(small, small)
def test_openood_is_scikit_learns_curve(id_: np.ndarray, ood: np.ndarray) -> None:
    assert other_codebases.openood(id_, ood) == pytest.approx(of_roc(ood, id_), abs=1e-12)
    assert other_codebases.openood_v1(id_, ood) == pytest.approx(of_roc(-id_, -ood), abs=1e-12)
    assert other_codebases.openood(id_, ood) >= other_codebases.pytorch_ood(id_, ood)  # a dropped point is a missed cut


@pytest.mark.parametrize("kind", ["smooth", "float32", "float16"])
def test_openood_is_scikit_learns_curve_on_many_items(kind: str) -> None:
    id_, ood = drawn(kind)
    assert fpr95(kind)["openood"] == pytest.approx(of_roc(ood, id_), abs=1e-12)
    assert fpr95(kind)["openood_v1"] == pytest.approx(of_roc(-id_, -ood), abs=1e-12)


def test_points_in_line_are_dropped() -> None:
    """100 scores, each of one ID and one OOD item: one line from (0, 0) to (1, 1), of which only ends are left."""
    groups = np.arange(100.0)
    found = all_rules(groups, groups)
    assert (found["fpr95_openood"], found["fpr95_pytorch_ood"]) == (1.0, 0.95)
    assert found["fpr95_openood"] == of_roc(groups, groups)


@pytest.mark.parametrize("kind", ["smooth", "float32", "float16", "few"])
def test_pytorch_ood_is_pytorch_ood(kind: str) -> None:
    id_, ood = drawn(kind)
    each = OODMetrics()
    each.update(torch.from_numpy(np.r_[id_, ood]), torch.from_numpy(np.r_[np.zeros(len(id_)), -np.ones(len(ood))]))
    theirs, found = each.compute(), all_rules(id_, ood)
    assert found["fpr95_pytorch_ood"] == pytest.approx(theirs["FPR95TPR"], abs=1e-12)
    assert found["aupr_in_openood"] == pytest.approx(theirs["AUPR-IN"], abs=1e-12)
    assert found["aupr_out_openood"] == pytest.approx(theirs["AUPR-OUT"], abs=1e-12)
    assert found["fpr95_pytorch_ood"] == ranking(id_, ood)["fpr95_ood"]


def ssd_by_hand(id_: np.ndarray, ood: np.ndarray) -> float:
    s, place = sorted(id_), 0.95 * (len(id_) - 1)
    low = int(place)
    cut = s[low] + (place - low) * (s[min(low + 1, len(s) - 1)] - s[low])
    return sum(o < cut for o in ood) / len(ood)


def cider_by_hand(id_: np.ndarray, ood: np.ndarray) -> float:
    """From the first cut of full recall down, the first whose recall is nearest to 0.95."""
    points = []  # recall, FPR
    for cut in sorted({*id_, *ood}):
        points.append((sum(i <= cut for i in id_) / len(id_), sum(o <= cut for o in ood) / len(ood)))
        if points[-1][0] == 1:
            break
    return min(reversed(points), key=lambda point: abs(point[0] - 0.95))[1]


def test_cider_takes_the_greatest_fpr_of_the_nearest_recall() -> None:
    """20 ID items, and OOD between the 19th (recall 0.95) and the 20th: its cut is the last before the 20th."""
    id_, ood = np.arange(1.0, 21.0), np.array([19.2, 19.4, 19.6, 30.0])
    assert other_codebases.cider(id_, ood) == 0.75
    assert other_codebases.openood_v1(id_, ood) == 0.0


def knn_ood_by_hand(id_: np.ndarray, ood: np.ndarray) -> float:
    cut = sorted(-i for i in id_)[round(0.05 * len(id_))]
    return sum(-o > cut for o in ood) / len(ood)


def oodeel_by_hand(id_: np.ndarray, ood: np.ndarray) -> float:
    cuts = sorted([*id_, *ood])
    for i in range(1, len(cuts), 4):
        if sum(o >= cuts[i] for o in ood) / len(ood) < 0.95:
            return sum(s >= cuts[i] for s in id_) / len(id_)
    return 0.0  # their curve ends at (0, 0)


BY_HAND = {"ssd": ssd_by_hand, "cider": cider_by_hand, "knn_ood": knn_ood_by_hand, "oodeel": oodeel_by_hand}


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND)
@settings(max_examples=100, deadline=None)
@given(small, small)
def test_rules_by_hand(name: str, id_: np.ndarray, ood: np.ndarray) -> None:
    assert getattr(other_codebases, name)(id_, ood) == pytest.approx(BY_HAND[name](id_, ood), abs=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_rules_by_hand_on_distinct_scores(name: str) -> None:
    rng = np.random.default_rng(1)
    id_, ood = rng.normal(size=110), rng.normal(1, 1.5, 90)
    assert getattr(other_codebases, name)(id_, ood) == pytest.approx(BY_HAND[name](id_, ood), abs=1e-12)


def test_smooth_scores_agree_within_a_positive_class() -> None:
    """Few items apart: of 9,000 ID with OOD positive, of 26,032 OOD with ID positive; the two classes far apart."""
    found, ours = fpr95("smooth"), ranking(*drawn("smooth"))
    assert found["openood"] == found["pytorch_ood"] == ours["fpr95_ood"]
    assert found["openood_v1"] == ours["fpr95_id"]
    assert found["oodeel"] == pytest.approx(found["openood"], abs=1e-3)
    assert [found[name] for name in ID_POSITIVE] == pytest.approx([found["openood_v1"]] * 4, abs=1e-3)
    assert found["openood"] - found["openood_v1"] > 0.1


def test_ties_of_float16_tear_the_rules_apart() -> None:
    """More than 5 % of OOD is tied with ID at the least score: to find 95 % of it is to reject all ID."""
    id_, ood = drawn("float16")
    found = fpr95("float16")
    assert (ood == min(id_)).mean() > 0.05
    assert found["openood"] == found["pytorch_ood"] == 1
    assert found["oodeel"] < 0.95
    assert found["ssd"] <= found["openood_v1"] < 0.95
    assert found["knn_ood"] <= found["cider"] <= found["openood_v1"]


def test_ties_of_float32_at_the_least_score_of_id_alone_do_no_harm() -> None:
    id_, ood = drawn("float32")
    found = fpr95("float32")
    assert 0.05 < (id_ == min(id_)).mean() < 0.5
    assert (ood == min(id_)).mean() < 0.01
    assert [found[name] for name in OOD_POSITIVE] == pytest.approx([found["openood"]] * 3, abs=1e-3)
    assert [found[name] for name in ID_POSITIVE] == pytest.approx([found["openood_v1"]] * 4, abs=1e-3)


def test_a_constant_score_gives_everything_or_nothing() -> None:
    found = fpr95("constant")
    assert {name for name, value in found.items() if value == 1} == {"openood", "openood_v1", "pytorch_ood", "cider"}
    assert {name for name, value in found.items() if value == 0} == {"ssd", "knn_ood", "oodeel"}
    rules = all_rules(*drawn("constant"))
    share = 9000 / 35_032
    assert rules["aupr_in_openood"] == pytest.approx((1 + share) / 2)
    assert rules["aupr_in_cider"] == pytest.approx(share)
    assert rules["aupr_in_knn_ood"] == pytest.approx(share / 2)


def aupr_from_zero_by_hand(positive: np.ndarray, negative: np.ndarray) -> float:
    points = [(0.0, 0.0)]
    for cut in sorted({*positive, *negative}, reverse=True):
        true, false = sum(p >= cut for p in positive), sum(n >= cut for n in negative)
        points.append((true / len(positive), true / (true + false)))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(small, small)
def test_areas_under_precision_and_recall(id_: np.ndarray, ood: np.ndarray) -> None:
    found = all_rules(id_, ood)
    y, s = np.r_[np.zeros(len(id_)), np.ones(len(ood))], np.r_[id_, ood]
    turned = precision_recall_curve(y, -s)
    expected = {
        "aupr_out_ssd": average_precision_score(y, s),
        "aupr_in_cider": average_precision_score(1 - y, -s),
        "aupr_in_knn_ood": aupr_from_zero_by_hand(-id_, -ood),
        "aupr_out_knn_ood": aupr_from_zero_by_hand(ood, id_),
        "aupr_out_detectors": auc(turned[1], turned[0]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


# ---- the truncated curve of the studied code ----


def distances(rng: np.random.Generator, scale: float, n: int) -> Grouped:
    """Distances to the own of 10 clusters that are normal in 64 dimensions."""
    return Grouped(scale * np.sqrt(rng.chisquare(64, n)), rng.integers(0, 10, n))


def truncated_by_hand(reference: Grouped, id_: Grouped, ood: Grouped) -> dict[str, float]:
    points = []
    for p in np.linspace(0, 1, 101):
        cuts = {k: np.percentile(reference.score[reference.cluster == k], int(p * 100)) for k in set(reference.cluster)}
        fp, tp = (sum(s >= cuts[k] for s, k in zip(*x, strict=True) if k in cuts) for x in (id_, ood))
        n_id, n_ood = (sum(k in cuts for k in x.cluster) for x in (id_, ood))
        if tp or fp:
            points.append((fp / n_id, tp / n_ood, tp / (tp + fp)))
    fpr, tpr, precision = map(np.array, zip(*points, strict=True))
    return {"auroc": auc(fpr, tpr), "aupr": auc(tpr, precision), "tnr95": 1 - min(fpr[tpr.round(2) >= 0.95])}


def test_truncated_by_hand() -> None:
    rng = np.random.default_rng(0)
    reference, id_, ood = (distances(rng, scale, n) for scale, n in ((1, 300), (1.05, 90), (1.3, 80)))
    id_.cluster[:5] = 99  # a cluster without a reference counts nowhere
    assert other_codebases.truncated(reference, id_, ood) == pytest.approx(
        truncated_by_hand(reference, id_, ood), abs=1e-12
    )


def by_quantile(reference: Grouped, test: Grouped) -> np.ndarray:
    """Return each distance as the share of its cluster's reference that it exceeds; beyond all of it, by how far."""
    found = np.empty(len(test.score))
    for k in range(10):
        known, own = np.sort(reference.score[reference.cluster == k]), test.cluster == k
        found[own] = np.searchsorted(known, test.score[own]) / len(known)
    return found


def test_the_ends_that_are_missing() -> None:
    """The further test distances are beyond the reference, the less of the curve is left; the order is the same."""
    rng = np.random.default_rng(0)
    reference = distances(rng, 1, 20_000)
    whole, cut, rank = [], [], []
    for scale in (1.0, 1.15, 1.4, 2.0):
        id_, ood = distances(rng, scale, 5000), distances(rng, 1.2 * scale, 5000)
        whole.append(ranking(by_quantile(reference, id_), by_quantile(reference, ood))["auroc"])
        cut.append(other_codebases.truncated(reference, id_, ood)["auroc"])
        rank.append(ranking(id_.score, ood.score)["auroc"])
    assert rank == pytest.approx([rank[0]] * 4, abs=0.01)
    assert cut[0] == pytest.approx(whole[0], abs=0.01)
    assert whole[0] > whole[1] > whole[2] > whole[3] == pytest.approx(0.5, abs=0.02)
    assert cut[0] > cut[1] > cut[2] > cut[3]
    assert cut[3] < 0.05


def test_truncated_to_nothing() -> None:
    reference, far = distances(np.random.default_rng(0), 1, 100), distances(np.random.default_rng(1), 100, 50)
    near = Grouped(np.zeros(50), far.cluster)
    found = other_codebases.truncated(reference, near, near)
    assert all(np.isnan(value) for value in found.values())
    assert other_codebases.truncated(reference, far, far)["auroc"] == 0  # all of it called OOD at every cut


def test_truncated_where_no_item_has_a_cut() -> None:
    """All OOD items in a cluster without a reference: NaN, and nothing is divided by 0 (a warning is an error here)."""
    reference, id_ = (distances(np.random.default_rng(seed), 1, 50) for seed in (0, 1))
    nowhere = Grouped(np.ones(3), np.full(3, 99))
    for test in ((id_, nowhere), (nowhere, id_)):
        assert all(np.isnan(value) for value in other_codebases.truncated(reference, *test).values())


def test_every_rule_is_a_share() -> None:
    for kind in KINDS:
        found = all_rules(*drawn(kind))
        assert all(0 <= value <= 1 for value in found.values()), kind
        assert found["aupr_out_ssd"] == metrics.ranking(*drawn(kind))["aupr_out_ap"]
