"""Every metric against scikit-learn, a loop over all cuts, or a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_ood.metrics import OODMetrics
from pytorch_ood.metrics.functional import oscr_score
from scipy.stats import norm
from sklearn.metrics import (
    auc,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from oodbench.scoring import metrics
from oodbench.scoring.metrics import Ranked, Rankings, curve, ranking
from oodbench.store.columns import HIGHER_IS_BETTER, LOWER_IS_BETTER, METRICS, RECALLS

Scores = tuple[np.ndarray, np.ndarray]


def drawn(kind: str) -> Scores:
    rng = np.random.default_rng(0)
    id_, ood = rng.normal(size=300), rng.normal(1, 1.5, size=500)
    return {
        "smooth": (id_, ood),
        "ties": (id_.round(1), ood.round(1)),
        "few values": (id_.round(0), ood.round(0)),
        "separated": (id_, ood + 100),
        "reversed": (id_ + 100, ood),
        "one each": (id_[:1], ood[:1]),
        "large": (id_ * 1e6 + 1e9, ood * 1e6 + 1e9),
    }[kind]


KINDS = ("smooth", "ties", "few values", "separated", "reversed", "one each", "large")


def at_every_cut(id_: np.ndarray, ood: np.ndarray) -> list[tuple[float, float]]:
    """Return (share of ID called OOD, share of OOD called OOD) for each cut, from calling nothing OOD on."""
    cuts = [np.inf, *sorted({*id_, *ood}, reverse=True)]
    return [(sum(s >= t for s in id_) / len(id_), sum(s >= t for s in ood) / len(ood)) for t in cuts]


@pytest.mark.parametrize("kind", KINDS)
def test_against_scikit_learn(kind: str) -> None:
    id_, ood = drawn(kind)
    y, s = np.r_[np.zeros(len(id_)), np.ones(len(ood))], np.r_[id_, ood]
    found = ranking(id_, ood)
    out_curve, in_curve = precision_recall_curve(y, s), precision_recall_curve(1 - y, -s)
    expected = {
        "auroc": roc_auc_score(y, s),
        "aupr_out": auc(out_curve[1], out_curve[0]),
        "aupr_in": auc(in_curve[1], in_curve[0]),
        "aupr_out_ap": average_precision_score(y, s),
        "aupr_in_ap": average_precision_score(1 - y, -s),
        "prevalence": y.mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_against_a_loop(kind: str) -> None:
    id_, ood = drawn(kind)
    points = at_every_cut(id_, ood)
    for level in (0.0, 0.07, 0.29, 0.5, 0.9, 0.95, 0.99, 1.0):
        accepted = [1 - tpr for fpr, tpr in points if round((1 - fpr) * len(id_)) / len(id_) >= level]
        rejected = [fpr for fpr, tpr in points if tpr >= level]
        assert metrics.fpr_at_id_recall(curve(id_, ood), level) == pytest.approx(min(accepted), abs=1e-12)
        assert metrics.fpr_at_ood_recall(curve(id_, ood), level) == pytest.approx(min(rejected), abs=1e-12)
    least = min((fpr + 1 - tpr) / 2 for fpr, tpr in points)
    assert ranking(id_, ood)["detection_error"] == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("n", [7, 100, 300])
def test_a_level_is_reached_by_its_own_count(n: int) -> None:
    """Between any two OOD items is one of ID, so each further item found costs one; k / n is found by k, no more."""
    c = curve(np.arange(n) + 0.5, np.arange(float(n)))
    for k in range(n):
        assert metrics.fpr_at_ood_recall(c, k / n) == k / n
        assert metrics.fpr_at_ood_recall(c, np.nextafter(k / n, 1)) == (k + 1) / n


def test_auroc_is_a_share_of_pairs() -> None:
    id_, ood = drawn("ties")
    pairs = [(o > i) + (o == i) / 2 for i in id_ for o in ood]
    assert ranking(id_, ood)["auroc"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 3.0])
def test_closed_form_of_two_normals(shift: float) -> None:
    """ID N(0, 1), OOD N(d, 1): AUROC = Phi(d / sqrt 2), both FPR95 = Phi(1.645 - d), detection error = Phi(-d / 2)."""
    n = 200_000
    places = norm.ppf((np.arange(n) + 0.5) / n)
    found = ranking(places, places + shift)
    assert found["auroc"] == pytest.approx(norm.cdf(shift / np.sqrt(2)), abs=1e-4)
    assert found["fpr95_id"] == pytest.approx(norm.cdf(norm.ppf(0.95) - shift), abs=1e-4)
    assert found["fpr95_ood"] == pytest.approx(norm.cdf(norm.ppf(0.95) - shift), abs=1e-4)
    assert found["detection_error"] == pytest.approx(norm.cdf(-shift / 2), abs=1e-4)


def test_the_two_fpr95_differ_where_spreads_differ() -> None:
    n = 20_000
    places = norm.ppf((np.arange(n) + 0.5) / n)
    found = ranking(places, 1 + 3 * places)
    assert found["fpr95_id"] == pytest.approx(norm.cdf((norm.ppf(0.95) - 1) / 3), abs=1e-3)
    assert found["fpr95_ood"] == pytest.approx(norm.cdf(3 * norm.ppf(0.95) - 1), abs=1e-3)


def test_a_constant_score_is_worth_nothing() -> None:
    found = ranking(np.ones(30), np.ones(70))
    assert (found["auroc"], found["fpr95_id"], found["fpr95_ood"], found["detection_error"]) == (0.5, 1, 1, 0.5)
    assert (found["aupr_out_ap"], found["aupr_in_ap"], found["ties"]) == (0.7, 0.3, 1.0)


def test_ties_are_one_group() -> None:
    """A hand-made case: half of each side is tied; every order of the tied items gives the same numbers."""
    id_, ood = np.array([0.0, 1.0, 1.0, 0.0]), np.array([1.0, 2.0, 2.0, 1.0])
    found = ranking(id_, ood)
    assert found["auroc"] == pytest.approx((16 - 4 + 2) / 16)
    assert found["fpr95_ood"] == 0.5
    assert found["fpr95_id"] == 0.5
    assert found["ties"] == 1.0
    assert ranking(id_[::-1], ood[::-1]) == found
    assert ranking(np.array([0.0, 1.0]), np.array([1.0, 2.0]))["ties"] == 0.5


scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30).map(np.array)


@settings(max_examples=100, deadline=None)
@given(scores, scores)
def test_order_is_all_that_counts(id_: np.ndarray, ood: np.ndarray) -> None:
    found = ranking(id_, ood)
    bent = ranking(np.exp(id_ / 3), np.exp(ood / 3))
    assert {name: bent[name] for name in found if name != "autc"} == {n: v for n, v in found.items() if n != "autc"}
    turned = ranking(-ood, -id_)  # what was OOD is now ID and scores the other way round
    assert turned["auroc"] == pytest.approx(found["auroc"], abs=1e-12)
    assert turned["aupr_in"] == pytest.approx(found["aupr_out"], abs=1e-12)
    assert turned["fpr95_id"] == pytest.approx(found["fpr95_ood"], abs=1e-12)
    assert turned["autc"] == pytest.approx(found["autc"], abs=1e-12)
    assert ranking(3 * id_ - 7, 3 * ood - 7)["autc"] == pytest.approx(found["autc"], abs=1e-12)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(scores, scores)
def test_any_ties_against_scikit_learn(id_: np.ndarray, ood: np.ndarray) -> None:
    y, s = np.r_[np.zeros(len(id_)), np.ones(len(ood))], np.r_[id_, ood]
    found = ranking(id_, ood)
    assert found["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert found["aupr_out_ap"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert found["aupr_in_ap"] == pytest.approx(average_precision_score(1 - y, -s), abs=1e-12)
    for name, positive, score in (("aupr_out", y, s), ("aupr_in", 1 - y, -s)):
        precision, recall, _ = precision_recall_curve(positive, score)
        assert found[name] == pytest.approx(auc(recall, precision), abs=1e-12)


def theirs(id_: np.ndarray, ood: np.ndarray) -> dict[str, float]:
    each = OODMetrics()
    each.update(torch.from_numpy(np.r_[id_, ood]), torch.from_numpy(np.r_[np.zeros(len(id_)), -np.ones(len(ood))]))
    return each.compute()


@pytest.mark.parametrize("kind", KINDS)
def test_against_pytorch_ood(kind: str) -> None:
    found, expected = ranking(*drawn(kind)), theirs(*drawn(kind))
    names = {
        "auroc": "AUROC",
        "autc": "AUTC",
        "aupr_in": "AUPR-IN",
        "aupr_out": "AUPR-OUT",
        "fpr95_ood": "FPR95TPR",
    }
    assert {name: found[name] for name in names} == pytest.approx(
        {name: expected[key] for name, key in names.items()}, abs=1e-12
    )


def test_autc_is_the_mean_error_over_all_cuts() -> None:
    id_, ood = drawn("ties")
    low, high = min(*id_, *ood), max(*id_, *ood)
    cuts = low + (high - low) * (np.arange(20_000) + 0.5) / 20_000
    errors = [((id_ > cut).mean() + (ood <= cut).mean()) / 2 for cut in cuts]
    assert ranking(id_, ood)["autc"] == pytest.approx(np.mean(errors), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_oscr(kind: str) -> None:
    """A share of pairs, ties half; what pytorch-ood has; AUROC where all is classified right, 0 where nothing is."""
    id_, ood = drawn(kind)
    right = np.random.default_rng(1).random(len(id_)) < 0.8
    found = ranking(id_, ood, correct=right)["oscr"]
    pairs = [r * ((o > i) + (o == i) / 2) for i, r in zip(id_, right, strict=True) for o in ood]
    assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    labels = np.r_[np.zeros(len(id_)), -np.ones(len(ood))]
    predicted = np.r_[np.where(right, 0, 1), np.zeros(len(ood))]
    expected = oscr_score(*(torch.from_numpy(each) for each in (np.r_[id_, ood], predicted, labels)))
    assert found == pytest.approx(expected, abs=1e-12)
    every = ranking(id_, ood, correct=np.ones(len(id_), dtype=bool))
    assert every["oscr"] == pytest.approx(every["auroc"], abs=1e-12)
    assert ranking(id_, ood, correct=np.zeros(len(id_), dtype=bool))["oscr"] == 0


def test_oscr_needs_to_know_what_is_right() -> None:
    id_, ood = drawn("smooth")
    assert "oscr" not in ranking(id_, ood)
    with pytest.raises(ValueError, match="needs to know"):
        metrics.oscr(curve(id_, ood))
    with pytest.raises(ValueError, match=r"shape \(3,\), for 300 ID scores"):
        ranking(id_, ood, correct=np.ones(3))


def test_levels_are_named_in_per_cent() -> None:
    id_, ood = drawn("smooth")
    found = ranking(id_, ood, levels=(0.29, 0.975))
    assert {name for name in found if name.startswith("fpr")} == {"fpr29_id", "fpr29_ood", "fpr97.5_id", "fpr97.5_ood"}
    assert found["fpr97.5_id"] == metrics.fpr_at_id_recall(curve(id_, ood), 0.975)
    with pytest.raises(ValueError, match="95 is not within 0 and 1"):
        ranking(id_, ood, levels=(95,))


@pytest.mark.parametrize("kind", KINDS)
def test_sharing_changes_nothing(kind: str) -> None:
    """ID sorted once, against sets of other sizes; the same pair again; arrays changed after they were given."""
    id_, ood = drawn(kind)
    right = np.arange(len(id_)) % 3 > 0
    known, rankings = Ranked(id_, right), Rankings(right)
    for first, second in ((id_, ood), (id_, ood[::2]), (id_, ood), (-id_, ood)):
        expected = ranking(first, second, correct=right)
        if first is id_:
            assert known.ranking(second) == expected
        given = first.copy(), second.copy()
        assert rankings(*given) == expected
        given[0][:], given[1][:] = 0, 0


def test_a_pair_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    id_, ood = drawn("smooth")
    sorts, merges = [], []
    init, against = Ranked.__init__, Ranked.against
    monkeypatch.setattr(Ranked, "__init__", lambda self, *a: (sorts.append(1), init(self, *a))[1])
    monkeypatch.setattr(Ranked, "against", lambda self, *a: (merges.append(1), against(self, *a))[1])
    rankings = Rankings()
    for first, second in ((id_, ood), (id_, ood[1:]), (id_.copy(), ood.copy()), (id_ + 1, ood)):
        rankings(first, second)["auroc"] = -1.0  # a row that is changed changes no other
    assert rankings(id_, ood) == ranking(id_, ood)
    assert (len(sorts), len(merges)) == (3, 4)  # the last of each is of `ranking`


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="1 of 3 OOD scores are NaN or infinite"):
        curve(np.zeros(3), np.array([0.0, bad, 1.0]))
    with pytest.raises(ValueError, match="1 of 2 ID scores"):
        curve(np.array([bad, 1.0]), np.zeros(3))


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no OOD scores"):
        curve(np.zeros(3), np.zeros(0))


def test_float32_ties_do_not_appear_by_rounding() -> None:
    """Scores that differ in float64 only stay apart."""
    id_, ood = np.array([1.0]), np.array([1.0 + 1e-12])
    assert ranking(id_, ood)["auroc"] == 1.0


def test_float32_scores_are_counted_as_float64() -> None:
    id_, ood = (each.astype(np.float32) for each in drawn("large"))
    assert ranking(id_, ood) == ranking(id_.astype(np.float64), ood.astype(np.float64))


def test_recalls() -> None:
    found = metrics.recalls(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]), cut=1.0)
    assert found == pytest.approx({"id_recall": 1 / 2, "ood_recall": 2 / 3, "balanced_accuracy": 7 / 12, "f1": 4 / 7})
    assert tuple(found) == RECALLS


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(scores, scores, st.integers(-6, 6))
def test_recalls_against_scikit_learn(id_: np.ndarray, ood: np.ndarray, cut: int) -> None:
    y, called = np.r_[np.zeros(len(id_)), np.ones(len(ood))], np.r_[id_, ood] > cut
    found = metrics.recalls(id_, ood, cut)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, called), abs=1e-12)
    assert found["f1"] == pytest.approx(f1_score(y, called, zero_division=0), abs=1e-12)


@pytest.mark.parametrize(("cut", "balanced", "f1"), [(9.0, 0.5, 0.0), (-9.0, 0.5, 2 / 3)])
def test_nothing_or_everything_called_ood(cut: float, balanced: float, f1: float) -> None:
    found = metrics.recalls(np.zeros(4), np.zeros(4), cut)
    assert (found["balanced_accuracy"], found["f1"]) == pytest.approx((balanced, f1))


def test_columns_hold_every_ranking_metric() -> None:
    found = ranking(*drawn("one each"), correct=[True])
    assert tuple(found) == METRICS
    directed = {*LOWER_IS_BETTER, *HIGHER_IS_BETTER}
    assert set(METRICS) - directed == {"prevalence", "ties"}


def test_warnings_name_the_distance_and_the_set() -> None:
    def warned(id_: list[float], ood: list[float]) -> list[str]:
        return metrics.warnings(ranking(np.array(id_), np.array(ood)), "norm on noise")

    assert warned([0.0, 1.0], [2.0, 3.0]) == []
    assert warned([2.0, 3.0], [0.0, 1.0]) == ["AUROC below 50: norm on noise takes OOD for ID"]
    assert warned([1.0, 1.0], [1.0, 1.0]) == ["constant score: norm on noise"]
    turned = ["AUROC below 50: norm on noise takes OOD for ID", "100 % of scores tied: norm on noise"]
    assert warned([1.0, 1.0], [0.0, 0.0]) == turned
    assert warned([0.0, 1.0], [1.0, 2.0]) == ["50 % of scores tied: norm on noise"]


@pytest.mark.parametrize("power", [1020, 1000, 0, -900])
def test_autc_of_scores_as_large_as_there_are(power: int) -> None:
    id_, ood = drawn("smooth")
    assert metrics.autc(np.ldexp(id_, power), np.ldexp(ood, power)) == metrics.autc(id_, ood)
    assert metrics.autc(np.array([-1.7e308, 0.0]), np.array([1.7e308])) == pytest.approx((1 + 0.25 - 1) / 2)
