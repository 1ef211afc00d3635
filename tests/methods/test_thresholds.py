"""Thresholds: the share they accept, the rank they calibrate to, and what per-cluster cuts are for."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi, norm
from scipy.stats import gamma as gamma_distribution
from sklearn.metrics import f1_score, roc_curve
from torch import Tensor

from oodbench.api import Rule, Scores, Threshold
from oodbench.conformance import threshold as conformance
from oodbench.scoring import metrics
from oodbench.study.registry import Registry


@cache
def kind(name: str) -> Any:
    return Registry().load("threshold", name)


def plugin(name: str, **params: Any) -> Any:
    return kind(name)(**params)


def scores(values: Any, clusters: Any = None) -> Scores:
    score = torch.as_tensor(values, dtype=torch.float64)
    return Scores(score, torch.zeros(len(score), dtype=torch.int64) if clusters is None else torch.as_tensor(clusters))


def accepted(rule: Any, s: Scores) -> Tensor:
    return rule.calibrate(s) <= rule.cut


@pytest.mark.parametrize("level", [each / 100 for each in range(1, 100)])
def test_a_level_of_so_many_hundredths_is_the_same_number_of_a_hundred(level: float) -> None:
    """0.55 x 100 is 55.00000000000001 in floating point: the cut is the 55th score all the same."""
    ref = scores(range(1, 101))
    assert plugin("pooled", level=level).fit(ref).cut == round(100 * level)
    assert accepted(plugin("per_cluster", level=level).fit(ref), ref).sum() == round(100 * level)
    ref = scores(range(1, 100))
    assert plugin("conformal", level=level).fit(ref).cut == round(100 * level)


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


# ---- a model of the scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_gaussian_cuts_normal_scores_at_their_quantile(level: float) -> None:
    rng, n = np.random.default_rng(2), 40_000
    z = norm.ppf(level)
    rule = plugin("gaussian", level=level).fit(scores(rng.normal(-3.0, 2.0, n)))
    deviation = 2.0 * math.sqrt((1 + z**2 / 2) / n)  # of mean + z sd
    assert rule.cut == pytest.approx(norm.ppf(level, -3, 2), abs=4 * deviation)


def test_gaussian_by_hand() -> None:
    rule = plugin("gaussian", level=0.9).fit(scores([1.0, 2.0, 6.0]))  # mean 3, squares 4 + 1 + 9, over 2
    assert rule.cut == pytest.approx(3 + 1.2815515655446004 * math.sqrt(7), rel=1e-12)
    assert rule.calibrate(scores([1.0, 9.0])).tolist() == [1, 9]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("shape", [0.5, 2.0, 30.0])
def test_gamma_cuts_shifted_gamma_scores_at_their_quantile(shape: float, level: float) -> None:
    """The mean cut over many references, against the closed form; so is the share of new items it accepts."""
    known = gamma_distribution(shape, loc=-7, scale=3)
    rng = np.random.default_rng(3)
    cuts = [plugin("gamma", level=level).fit(scores(known.rvs(10_000, random_state=rng))).cut for _ in range(30)]
    assert np.mean(cuts) == pytest.approx(known.ppf(level), abs=0.02 * known.std())
    assert known.cdf(np.mean(cuts)) == pytest.approx(level, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=3, max_size=40), st.sampled_from([0.5, 0.9, 0.99]))
def test_gamma_has_the_moments_of_the_reference(values: list[int], level: float) -> None:
    """Shape, scale and location by the formulas; the same cut as scipy's Gamma of these three."""
    mean = sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    skewness = sum(((v - mean) / sd) ** 3 for v in values) / len(values) if sd else 0.0
    if skewness < 1e-3:  # scipy's Gamma has lost its digits in a location far off
        return
    shape, scale = 4 / skewness**2, sd * skewness / 2
    known = gamma_distribution(shape, loc=mean - shape * scale, scale=scale)
    assert [known.mean(), known.std(), known.stats("s")] == pytest.approx([mean, sd, skewness], rel=1e-6, abs=1e-6)
    assert plugin("gamma", level=level).fit(scores(values)).cut == pytest.approx(known.ppf(level), rel=1e-6, abs=1e-6)


def test_gamma_is_nearer_the_level_than_gaussian_on_distances() -> None:
    """Closed form: a normal distribution fitted to squared distances of four dimensions accepts 93 % for 95 %, and
    96.8 % for 99 %."""
    rng = np.random.default_rng(4)
    ref = scores(gamma_distribution(2).rvs(100_000, random_state=rng))
    for level, expected in ((0.95, 0.9296), (0.99, 0.9683)):
        assert gamma_distribution(2).cdf(2 + norm.ppf(level) * math.sqrt(2)) == pytest.approx(expected, abs=1e-4)
        fitted, modelled = (
            float(accepted(plugin(name, level=level).fit(ref), ref).double().mean()) for name in ("gaussian", "gamma")
        )
        assert fitted == pytest.approx(expected, abs=0.004)
        assert modelled == pytest.approx(level, abs=0.004)


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [1.0, 5.0, 6.0]])
def test_gamma_of_scores_that_lean_to_the_left_says_that_it_is_normal(values: list[float]) -> None:
    with pytest.warns(UserWarning, match="skewness .* gamma takes a normal distribution"):
        rule = plugin("gamma").fit(scores(values))
    assert rule.cut == pytest.approx(plugin("gaussian").fit(scores(values)).cut, rel=1e-12)


def test_gamma_tends_to_the_normal_distribution_as_skewness_falls_to_zero() -> None:
    cuts = [plugin("gamma").fit(scores([-1.0, 0.0, 1.0 + skew])).cut for skew in (1e-3, 1e-6, 1e-9, 1e-12)]
    normal = plugin("gaussian").fit(scores([-1.0, 0.0, 1.0])).cut
    gaps = [abs(cut - normal) for cut in cuts]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-9


@pytest.mark.parametrize("name", ["gaussian", "gamma"])
@pytest.mark.parametrize("unit", [2.0**-600, 2.0**600])
def test_scores_whose_squares_are_no_numbers_are_cut_as_others_are(name: str, unit: float) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=200)
    assert plugin(name).fit(scores(values * unit)).cut == plugin(name).fit(scores(values)).cut * unit


@pytest.mark.parametrize("name", ["gaussian", "gamma"])
@pytest.mark.parametrize("values", [[0.1] * 7, [4.0]])
def test_a_reference_without_spread_is_the_cut_itself(name: str, values: list[float]) -> None:
    with pytest.warns(UserWarning, match=f"all reference scores are .*: that is the cut of {name}"):
        rule = plugin(name).fit(scores(values))
    assert rule.cut == values[0]
    assert accepted(rule, scores([values[0], math.nextafter(values[0], 9)])).tolist() == [True, False]


# ---- validation OOD ----------------------------------------------------------------------------------------

SETS = st.lists(st.integers(0, 8), min_size=1, max_size=25)


def youden_of(cut: float, ref: list[int], ood: list[int]) -> Fraction:
    return Fraction(sum(v > cut for v in ood), len(ood)) - Fraction(sum(v > cut for v in ref), len(ref))


def f1_of(cut: float, ref: list[int], ood: list[int]) -> Fraction:
    found, wrong, missed = sum(v > cut for v in ood), sum(v > cut for v in ref), sum(v <= cut for v in ood)
    return Fraction(2 * found, 2 * found + wrong + missed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no cut accepts more", "ignore:on the validation data")
@pytest.mark.parametrize(("name", "aim"), [("youden", youden_of), ("f1", f1_of)])
@settings(max_examples=150, deadline=None)
@given(ref=SETS, ood=SETS)
def test_no_cut_is_better_on_the_validation_data(name: str, aim: Any, ref: list[int], ood: list[int]) -> None:
    """Every decision that a cut can make, in fractions; the highest cut among equals, one of the scores."""
    rule = plugin(name).fit(scores(ref), scores(ood))
    every = [-math.inf, *sorted({*ref, *ood})]
    best = max(aim(cut, ref, ood) for cut in every)
    assert rule.cut == max(cut for cut in every if aim(cut, ref, ood) == best)


@pytest.mark.slow
def test_youden_and_f1_against_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    ref, ood = rng.normal(size=300), rng.normal(1.5, 1.0, size=120)
    both, truth = np.concatenate([ref, ood]), np.repeat([0, 1], [300, 120])
    fpr, tpr, _ = roc_curve(truth, both, drop_intermediate=False)
    cut = plugin("youden").fit(scores(ref), scores(ood)).cut
    assert (ood > cut).mean() - (ref > cut).mean() == pytest.approx((tpr - fpr).max(), rel=1e-12)
    cut = plugin("f1").fit(scores(ref), scores(ood)).cut
    assert f1_score(truth, both > cut) == pytest.approx(max(f1_score(truth, both > each) for each in both), rel=1e-12)


def test_youden_of_two_normal_distributions_lies_half_way() -> None:
    """Closed form: of equal variances, J is largest half way between the means, whatever the sizes of the sets."""
    rng = np.random.default_rng(6)
    ref, ood = rng.normal(0, 1, 20_000), rng.normal(3, 1, 5_000)
    rule = plugin("youden").fit(scores(ref), scores(ood))
    assert rule.cut == pytest.approx(1.5, abs=0.2)
    assert plugin("youden").fit(scores(ref), scores(np.tile(ood, 4))).cut == rule.cut


def test_f1_depends_on_the_sizes_of_the_sets() -> None:
    rng = np.random.default_rng(7)
    ref, ood = rng.normal(0, 1, 500), rng.normal(1, 1, 500)
    few, many = (plugin("f1").fit(scores(ref), scores(np.tile(ood, times))).cut for times in (1, 10))
    assert many < few - 0.5


def test_validation_that_separates_nothing_is_said() -> None:
    same = scores([1.0, 2.0])
    with pytest.warns(UserWarning, match="no cut accepts more of the reference than of the validation OOD: youden"):
        rule = plugin("youden").fit(same, same)
    assert accepted(rule, same).all()
    with pytest.warns(UserWarning, match="the best F1 is to reject everything: f1"):
        rule = plugin("f1").fit(same, same)
    assert not accepted(rule, scores([-1e300])).any()


@pytest.mark.parametrize("name", ["youden", "f1"])
def test_no_validation_ood_is_refused(name: str) -> None:
    for ood in (None, scores([])):
        with pytest.raises(ValueError, match=f"{name} needs scores of validation OOD sets"):
            plugin(name).fit(scores([1.0]), ood)


# ---- what conformance catches ------------------------------------------------------------------------------


class OfTheMean(Threshold):
    """A model that forgets the level."""

    nominal = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        return Rule(lambda s: s.score, float(ref.score.mean()))


class OfTheOOD(Threshold):
    """A cut among the OOD scores."""

    needs_ood = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        assert ood is not None
        return Rule(lambda s: s.score, float(ood.score.median()))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (OfTheMean, "it accepts about 0.95 of many normal scores, not 0."),
        (OfTheMean, "a higher level accepts more"),
        (OfTheOOD, "of OOD far above the ID it accepts less than 0.1, not 0."),
    ],
)
def test_conformance_catches_what_is_broken(broken: type[Threshold], said: str) -> None:
    problems = []
    for check in conformance.CHECKS:
        try:
            check(broken())
        except AssertionError as error:
            problems.append(str(error))
    assert any(problem.startswith(said) for problem in problems), problems
