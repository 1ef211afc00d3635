"""Claims held against hand-made rows with known answers, and what a study's mistakes in them are answered with."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import grids
import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import BASE
from places import ROOT
from scipy.stats import t as student
from scipy.stats import ttest_1samp, ttest_rel
from tiny import HEAD, write

from oodbench.errors import UserError
from oodbench.report.claims import verdicts
from oodbench.report.claims.verdicts import EQUAL, FAILS, HOLDS, MISSING, OPEN, ClaimVerdict
from oodbench.store.columns import QUALITY, QUALITY_LABELS
from oodbench.store.rows import Results, frame
from oodbench.study import reader
from oodbench.study.declarations import ClaimSpec

SIMCLR, SUPCON, CE = ({"training": name} for name in ("simclr", "supcon", "cross_entropy"))


def made(*groups: list[dict[str, Any]]) -> pd.DataFrame:
    changes = [change for group in groups for change in group]
    return frame([BASE | {"posthoc": "–", "cell": str(i)} | change for i, change in enumerate(changes)])


def runs(values: list[float], **change: Any) -> list[dict[str, Any]]:
    """Return a row for each seed, AUROC in points."""
    return [change | {"seed": seed, "auroc": value / 100} for seed, value in enumerate(values)]


def judged(rows: pd.DataFrame, **claim: Any) -> ClaimVerdict:
    return verdicts.verdict(rows, "c", ClaimSpec(says="so", **claim))


def compared(left: list[float], right: list[float], **claim: Any) -> ClaimVerdict:
    return judged(made(runs(left, **SUPCON), runs(right, **SIMCLR)), left=SUPCON, right=SIMCLR, **claim)


# ---- two sides


def test_the_difference_is_paired_by_run_and_its_error_is_over_runs() -> None:
    left, right = [90.0, 70.0, 85.0, 60.0], [88.0, 69.0, 82.0, 58.0]
    found = compared(left, right)
    (line,) = found.evidence
    assert found.state == HOLDS  # by 2, 1, 3, 2: though runs differ by 30
    assert (line.difference, line.runs, line.wins, line.lost) == (pytest.approx(2), 4, 4, 0)
    assert line.error == pytest.approx(math.sqrt(2 / 3) / 2)
    wanted = ttest_rel(left, right, alternative="greater").confidence_interval(0.95).low
    assert line.low == pytest.approx(wanted)
    differences = np.subtract(left, right)
    assert line.d == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert found.text() == "+2.00 ± 0.41 points, 4 runs, 4 above"


@pytest.mark.slow
@pytest.mark.parametrize("relation", ["above", "at_least", "near"])
def test_a_claim_is_decided_as_by_t_tests(relation: str) -> None:
    """Above: one test each way. Near: two tests that both must reject (TOST); either of two is enough to fail."""
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(25):
        differences = generator.normal(generator.uniform(-3, 3), generator.uniform(0.1, 1.5), generator.integers(3, 7))

        def p(edge: float, side: str, differences: Any = differences) -> float:
            return float(ttest_1samp(differences, edge, alternative=side).pvalue)

        edge = {"above": 1, "at_least": -1, "near": -1}[relation]
        holds, fails = p(edge, "greater") < 0.05, p(edge, "less") < 0.05
        if relation == "near":
            holds = holds and p(1, "less") < 0.05
            fails = p(-1, "less") < 0.025 or p(1, "greater") < 0.025
        base = [50.0] * len(differences)
        found = compared([50 + each for each in differences], base, relation=relation, margin=1.0)
        equal = relation == "above" and fails and p(-1, "greater") < 0.05
        assert found.state == (HOLDS if holds else EQUAL if equal else FAILS if fails else OPEN)
        seen.add(found.state)
    assert seen - {EQUAL} == {HOLDS, FAILS, OPEN}


@pytest.mark.parametrize(
    ("relation", "margin", "wanted"),
    [("above", 0, FAILS), ("above", None, EQUAL), ("above", 1, EQUAL), ("at_least", 0, HOLDS), ("near", 1, HOLDS)],
)
def test_sides_that_are_equal_in_each_run(relation: str, margin: float | None, wanted: str) -> None:
    found = compared([80, 70, 60], [80, 70, 60], relation=relation, margin=margin)
    assert (found.state, found.evidence[0].wins) == (wanted, 0)


def test_two_runs_are_too_few_and_one_has_no_error() -> None:
    found = compared([90, 91], [60, 62])
    assert (found.state, found.why) == (MISSING, "wanted are 3 runs of both sides")
    assert found.evidence[0].difference == pytest.approx(29.5)
    found = compared([90], [60])
    assert found.state == MISSING
    assert found.text() == "wanted are 3 runs of both sides; +30.00 points, 1 run, 1 above"


def test_rows_without_a_number_are_left_out_with_their_run_and_counted() -> None:
    rows = made(runs([90, 91, 92, 95], **SUPCON), runs([80, 80, 81, 82], **SIMCLR))
    rows.loc[3, ["status", "auroc"]] = ["error", 0.1]  # a number beside an error is none
    found = judged(rows, left=SUPCON, right=SIMCLR)
    assert (found.state, found.lost) == (HOLDS, 1)
    assert (found.evidence[0].runs, found.evidence[0].lost) == (3, 1)
    assert found.evidence[0].difference == pytest.approx((10 + 11 + 11) / 3)
    assert "3 runs, 3 above, 1 without a number; 1 row without a number" in found.text()
    rows.loc[4, "auroc"] = math.nan
    assert judged(rows, left=SUPCON, right=SIMCLR).state == MISSING


def test_what_no_row_has_is_named() -> None:
    rows = made(runs([90, 91, 92], **SUPCON), runs([80, 80, 81], **SIMCLR))
    found = judged(rows, left={"training": "supcom"}, right=SIMCLR)
    assert found.state == MISSING
    assert found.why.startswith("no row has training 'supcom'; did you mean 'supcon'?")
    assert "no row has ood 'moon'" in judged(rows, of={"ood": "moon"}, left=SUPCON, right=SIMCLR).why
    assert "no row has training 'simclr'" in judged(rows, of=SUPCON, left={"distance": "cosine"}, right=SIMCLR).why
    assert (
        "no row is of"
        in judged(
            made(runs([1, 2, 3], **SUPCON), runs([1, 2, 3], **SIMCLR, distance="knn")),
            among=("training", "distance"),
            winner={"training": "supcon", "distance": "knn"},
        ).why
    )


def test_class_splits_are_runs_too_and_never_crossed() -> None:
    left = [SUPCON | {"id": name, "auroc": value} for name, value in (("a", 0.9), ("b", 0.5), ("c", 0.7))]
    right = [SIMCLR | {"id": name, "auroc": value} for name, value in (("c", 0.6), ("a", 0.8), ("b", 0.4))]
    (line,) = judged(made(left, right), left=SUPCON, right=SIMCLR).evidence
    assert (line.runs, line.difference, line.error) == (3, pytest.approx(10), pytest.approx(0, abs=1e-9))


def several(per_set: dict[str, list[float]], label: str = "id", **claim: Any) -> ClaimVerdict:
    """Return what becomes of a claim whose sides differ by these points in the runs of each ID set, or encoder."""
    change = [runs([50 + each for each in values], **SUPCON, **{label: name}) for name, values in per_set.items()]
    base = [runs([50.0] * len(values), **SIMCLR, **{label: name}) for name, values in per_set.items()]
    return judged(made(*change, *base), left=SUPCON, right=SIMCLR, **claim)


@pytest.mark.parametrize("label", ["id", "encoder"])
def test_an_id_set_of_several_is_one_observation(label: str) -> None:
    """Ten runs of two sets are two numbers: seeds tell nothing of other sets."""
    sets = {"a": [4, 5, 6, 5, 5], "b": [1, 2, 3, 2]}
    found = several(sets, label)
    (line,) = found.evidence
    assert (found.state, line.runs, line.observations) == (OPEN, 9, 2)
    assert line.difference == pytest.approx(3.5)  # of 5 and 2, whatever their numbers of seeds
    assert line.error == pytest.approx(np.std([5, 2], ddof=1) / math.sqrt(2))
    assert line.low == pytest.approx(3.5 - 6.313751514675 * line.error)  # one degree of freedom
    of = {"id": "ID sets", "encoder": "encoders"}[label]
    assert found.text().startswith(f"+3.50 ± 1.50 points, 2 {of} of 9 runs, 9 above (")
    assert f"Where {of} are several, each is one observation." in verdicts.caption([found])


def test_a_claim_of_these_id_sets_adds_the_errors_within_each() -> None:
    """Welch's standard error and Satterthwaite's degrees of freedom, of the mean of two sets."""
    sets = {"a": [4.0, 5, 6, 5, 5], "b": [1.0, 2, 3, 2]}
    found = several(sets, ids="these")
    (line,) = found.evidence
    parts = [np.var(each, ddof=1) / len(each) for each in sets.values()]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, sets.values(), strict=True))
    error = math.sqrt(sum(parts)) / 2
    assert (found.state, line.error) == (HOLDS, pytest.approx(error))
    assert line.low == pytest.approx(3.5 - student.ppf(0.95, freedom) * error)
    assert several({"a": [4, 5], "b": [1]}, ids="these").state == MISSING  # one seed has no error
    lost = several({"a": [4, 5, 6], "b": [math.nan, math.nan]}, ids="these")
    assert (lost.state, lost.why) == (MISSING, "wanted are 3 runs of both sides, two in each ID set")
    assert several({"a": [4, 5, 6], "b": [math.nan, math.nan], "c": [3, 4]}).evidence[0].observations == 2


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("relation", ["above", "at_least"])
def test_under_the_null_a_claim_is_decided_as_seldom_as_it_says(relation: str, skewed: bool) -> None:
    """Two ID sets of five seeds, sets differing more than seeds: at the margin itself holds and fails are errors."""
    rng, edge = np.random.default_rng(1), 0.5 if relation == "above" else -0.5
    states = []
    for _ in range(150):
        draw = (lambda size: rng.exponential(2, size) - rng.exponential(2, size)) if skewed else rng.normal
        sets = {name: list(edge + 2 * rng.normal() + draw(size=5)) for name in "ab"}
        states.append(several(sets, relation=relation).state)
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(states))
    for state in (HOLDS, FAILS):
        assert states.count(state) / len(states) <= most
    assert states.count(OPEN) / len(states) > 0.8


@pytest.mark.slow
def test_an_interval_covers_as_often_as_it_says() -> None:
    """Five ID sets of three seeds: two one-sided intervals of 95 %, one either way, leave out 10 %."""
    rng, out = np.random.default_rng(2), 0
    for _ in range(200):
        sets = {name: list(1 + rng.normal() + rng.normal(size=3)) for name in "abcde"}
        (line,) = several(sets).evidence
        out += not line.low <= 1 <= line.high
    assert 0.04 < out / 200 < 0.16


@pytest.mark.slow
@pytest.mark.parametrize(("relation", "mean"), [("above", 2.0), ("at_least", -2.0), ("near", 0.6), ("near", 0.0)])
def test_so_many_more_runs_decide_what_is_open(relation: str, mean: float) -> None:
    """With 80 % power, where mean and spread are as they look."""
    rng, spread, margin = np.random.default_rng(3), 2.0, 1.0 if relation != "near" else 2.0
    start = mean + spread * np.array([-1, 0, 1]) / math.sqrt(1)  # of deviation 2
    found = compared(list(50 + start), [50.0] * 3, relation=relation, margin=margin)
    (line,) = found.evidence
    assert found.state == OPEN
    assert 2 < line.more < 100
    decided = []
    for _ in range(120):
        values = rng.normal(mean, spread, 3 + line.more)
        decided.append(
            compared(list(50 + values), [50.0] * len(values), relation=relation, margin=margin).state != OPEN
        )
    assert 0.65 < np.mean(decided) < 0.93
    assert f"({line.more} more runs would decide it)" in found.text()


def test_claims_of_a_study_share_the_error_by_holm() -> None:
    """Step by step: what is decided alone, and is not when all claims are counted, says so."""
    rng = np.random.default_rng(4)
    base = rng.normal(60, 5, 6)
    shifts = {"a": 9.0, "b": 3.0, "c": 2.2, "d": 0.5}
    values = {name: base + shift + rng.normal(0, 1.2, 6) for name, shift in shifts.items()}
    rows = made(runs(list(base), training="z"), *(runs(list(each), training=name) for name, each in values.items()))
    claims = {
        name: ClaimSpec(says=name, left={"training": name}, right={"training": "z"}, margin=1.0) for name in shifts
    }
    found = {each.name: each for each in verdicts.verdicts(rows, claims)}
    p = [ttest_1samp(each - base, 1.0, alternative="greater").pvalue for each in values.values()]
    assert sorted(p)[0] < 0.05 / 4 < sorted(p)[2] < 0.05 < sorted(p)[3]  # else nothing is told apart
    steps = [value <= 0.05 / (len(p) - i) for i, value in enumerate(sorted(p))]
    rejected = sorted(p)[: steps.index(False)]
    for (name, each), value in zip(found.items(), p, strict=True):
        alone = each.state == HOLDS and value not in rejected
        assert (each.alone_of == 4) == alone, name
        assert ("not after Holm over 4 claims" in each.text()) == alone
    assert {each.state for each in found.values()} == {HOLDS, OPEN}


@pytest.mark.slow
def test_so_many_more_runs_in_each_of_these_sets_decide_whatever_their_sizes() -> None:
    """The set of three runs that hardly differ does not stand for the one of twenty that do."""
    rng = np.random.default_rng(5)
    wide = rng.normal(size=20)
    sets = {"a": list(1.3 + 5 * (wide - wide.mean()) / wide.std(ddof=1)), "b": [1.25, 1.35, 1.3]}
    found = several(sets, ids="these")
    (line,) = found.evidence
    assert found.state == OPEN
    assert f"({line.more} more runs in each ID set would decide it)" in found.text()
    decided = 0
    for _ in range(100):
        drawn = {"a": list(rng.normal(1.3, 5, 20 + line.more)), "b": list(rng.normal(1.3, 0.05, 3 + line.more))}
        decided += several(drawn, ids="these").state != OPEN
    assert 0.65 < decided / 100 < 0.95


def test_encoders_are_compared_where_the_sides_say_so() -> None:
    rows = made(runs([90, 91, 92], encoder="big"), runs([80, 80, 81], encoder="small"))
    found = judged(rows, left={"encoder": "big"}, right={"encoder": "small"})
    assert (found.state, found.evidence[0].runs) == (HOLDS, 3)


def test_sets_are_averaged_and_one_that_failed_takes_its_run_along() -> None:
    rows = made(
        *(runs([90, 90, 90], ood=ood, **SUPCON) for ood in ("a", "b")),
        runs([80, 80, 80], ood="a", **SIMCLR),
        runs([70, 60, 50], ood="b", **SIMCLR),
    )
    assert judged(rows, left=SUPCON, right=SIMCLR).evidence[0].difference == pytest.approx(20)  # 15, 20, 25
    fewer = rows.drop(index=8)  # not made yet: the mean over a alone would not be the same number
    (line,) = judged(fewer, left=SUPCON, right=SIMCLR).evidence
    assert (line.runs, line.lost, line.difference) == (2, 1, pytest.approx(17.5))
    never = rows[(rows["ood"] == "a") | (rows["training"] == "supcon")]
    assert judged(never, left=SUPCON, right=SIMCLR).evidence[0].runs == 0


def test_settings_of_a_side_are_averaged_or_the_best_on_test_is_picked_and_marked() -> None:
    rows = made(
        runs([80, 80, 80], **SUPCON),
        runs([70, 70, 70], **SIMCLR, clustering="labels"),
        runs([84, 86, 88], **SIMCLR, clustering="kmeans"),
        runs([84, 86, 88], **SIMCLR, clustering="kmeans", threshold="conformal"),  # ranks alike: no further setting
    )
    mean = judged(rows, left=SUPCON, right=SIMCLR)
    assert mean.evidence[0].difference == pytest.approx(80 - (77 + 78 + 79) / 3)
    best = judged(rows, left=SUPCON, right=SIMCLR, pick="best")
    assert best.evidence[0].difference == pytest.approx(-6)
    assert (best.state, mean.state) == (FAILS, OPEN)
    assert judged(rows, left=SUPCON, right=SIMCLR, margin=0).state == HOLDS
    assert "settings picked on test" in best.text()
    assert "picked on test" not in mean.text()
    assert "picked on test" in verdicts.caption([mean, best])
    assert "picked on test" not in verdicts.caption([mean])


def test_a_setting_that_failed_makes_no_mean_but_is_only_no_candidate() -> None:
    rows = made(
        runs([80, 80, 80], **SUPCON),
        runs([70, 70, 70], **SIMCLR, clustering="labels"),
        runs([84, 86, math.nan], **SIMCLR, clustering="kmeans"),
    )
    assert judged(rows, left=SUPCON, right=SIMCLR).evidence[0].runs == 2
    best = judged(rows, left=SUPCON, right=SIMCLR, pick="best")
    assert (best.evidence[0].runs, best.lost) == (3, 1)
    assert best.evidence[0].difference == pytest.approx((-4 - 6 + 10) / 3)


def test_the_best_is_the_lowest_where_less_is_better() -> None:
    rows = made(
        [SUPCON | {"seed": seed, "fpr95_id": 0.3} for seed in range(3)],
        [SIMCLR | {"seed": s, "fpr95_id": v, "distance": d} for s in range(3) for d, v in (("x", 0.2), ("y", 0.9))],
    )
    assert judged(rows, left=SUPCON, right=SIMCLR, value="fpr95_id", pick="best").evidence[
        0
    ].difference == pytest.approx(10)


def test_a_value_of_cuts_keeps_thresholds_apart() -> None:
    rows = made(
        *(
            [{"threshold": t, "seed": s, "id_recall": r} for s in range(3)]
            for t, r in (("pooled", 0.95), ("conformal", 0.9))
        )
    )
    sides = {"left": {"threshold": "pooled"}, "right": {"threshold": "conformal"}}
    assert judged(rows, value="id_recall", **sides).evidence[0].difference == pytest.approx(5)


# ---- several places


def places(near: list[float], far: list[float], third: list[float]) -> pd.DataFrame:
    sets = (("near", near), ("far", far), ("third", third))
    return made(
        *(runs([50 + each for each in gain], **SUPCON, ood=name) for name, gain in sets),
        *(runs([50.0] * len(gain), **SIMCLR, ood=name) for name, gain in sets),
    )


UP, DOWN, UNCLEAR = [10, 10.1, 10.2, 10.1], [-10, -10.1, -10.2, -10.1], [9, -9, 5, -5]


@pytest.mark.parametrize(
    ("sets", "where", "wanted"),
    [
        ((UP, UP, UP), "all", HOLDS),
        ((UP, UP, DOWN), "all", FAILS),
        ((UP, UP, UNCLEAR), "all", OPEN),
        ((UP, UP, DOWN), "most", HOLDS),
        ((UP, DOWN, DOWN), "most", FAILS),
        ((UP, DOWN, UNCLEAR), "most", OPEN),
        ((UP, UP, DOWN), "mean", HOLDS),
        ((UP, DOWN, DOWN), "mean", FAILS),
    ],
)
def test_where_a_claim_must_hold(sets: Any, where: Any, wanted: str) -> None:
    found = judged(places(*sets), left=SUPCON, right=SIMCLR, over=("ood",), where=where)
    assert found.state == wanted
    assert [each.place for each in found.evidence] == (
        ["mean of near, far, third"] if where == "mean" else ["near", "far", "third"]
    )


def test_the_mean_over_places_is_of_each_run() -> None:
    found = judged(places([1, 2, 3], [4, 4, 4], [1, 3, 5]), left=SUPCON, right=SIMCLR, over=("ood",), where="mean")
    assert found.evidence[0].difference == pytest.approx(3)
    assert found.evidence[0].error == pytest.approx(1 / math.sqrt(3))  # of 2, 3, 4
    assert found.text() == "mean of near, far, third (holds): +3.00 ± 0.58 points, 3 runs, 3 above"


def test_one_of_several_that_is_enough_to_fail_is_held_to_a_stricter_level() -> None:
    fails_alone = [-1.0, -2.0, -3.0, -0.1]  # p = 0.046, above a third of 0.05
    rows = places(UP, UP, fails_alone)
    assert judged(rows, of={"ood": "third"}, left=SUPCON, right=SIMCLR).state == FAILS
    assert judged(rows, left=SUPCON, right=SIMCLR, over=("ood",)).state == OPEN


# ---- more at some rows than at others


def test_a_difference_of_differences() -> None:
    rows = places([10, 12, 14], [1, 2, 3], [10, 12, 14])
    sides = {"left": SUPCON, "right": SIMCLR}
    found = judged(rows, **sides, at={"ood": "near"}, than={"ood": "far"})
    assert (found.state, found.evidence[0].wins) == (HOLDS, 3)
    assert found.evidence[0].difference == pytest.approx(10)  # 9, 10, 11
    assert found.evidence[0].error == pytest.approx(1 / math.sqrt(3))
    assert judged(rows, **sides, at={"ood": "far"}, than={"ood": "near"}).state == FAILS
    assert judged(rows, **sides, at={"ood": "near"}, than={"ood": "third"}).state == EQUAL  # no more
    assert "no row has ood 'moon'" in judged(rows, **sides, at={"ood": "near"}, than={"ood": "moon"}).why


# ---- the best of several


@pytest.mark.parametrize("name", ["openood_cifar10", "openood_cifar100"])
@pytest.mark.parametrize(("far", "wanted"), [(93.0, HOLDS), (97.0, FAILS)])
def test_outliers_help_less_far_away_as_the_studies_claim_it(name: str, far: float, wanted: str) -> None:
    claim = reader.claims_of(ROOT / "studies" / f"{name}.yaml")["outliers_far"]
    means = {("cross_entropy", "near"): 88.0, ("cross_entropy", "far"): 90.0}
    means |= {("outlier_exposure", "near"): 94.0, ("outlier_exposure", "far"): far}
    of = {"posthoc": "msp", "distance": "–"}
    rows = [
        runs([mean - 0.1, mean, mean + 0.2], training=training, group=group, ood=group, **of)
        for (training, group), mean in means.items()
    ]
    others = runs([50.0, 50.0, 50.0], training="outlier_exposure", group="near", ood="near", posthoc="energy")
    assert verdicts.verdict(made(*rows, others), "c", claim).state == wanted


def grid(**sets: dict[str, list[float]]) -> pd.DataFrame:
    return made(
        *(runs(values, training=name, ood=ood) for ood, found in sets.items() for name, values in found.items())
    )


CLEAR = {"a": [90.0, 91, 92], "b": [80.0, 81, 82.2], "c": [70.0, 71.1, 72]}
CLEARLY_B = {"a": CLEAR["b"], "b": CLEAR["a"], "c": CLEAR["c"]}
TIED = {"a": [90.0, 91, 92], "b": [90.5, 90, 92.5], "c": [70.0, 71.1, 72]}


@pytest.mark.parametrize(
    ("sets", "winner", "wanted"),
    [
        ((CLEAR, CLEAR), "a", HOLDS),
        ((CLEAR, CLEAR), "b", FAILS),
        ((CLEAR, CLEAR), None, FAILS),
        ((CLEAR, CLEARLY_B), "a", FAILS),
        ((CLEAR, CLEARLY_B), None, HOLDS),
        ((CLEAR, TIED), "a", OPEN),
        ((CLEAR, TIED), "b", FAILS),
        ((CLEAR, TIED), None, OPEN),
    ],
)
def test_who_is_the_best_everywhere(sets: Any, winner: str | None, wanted: str) -> None:
    rows = grid(x=sets[0], y=sets[1])
    found = judged(rows, among=("training",), over=("ood",), winner={"training": winner} if winner else {})
    assert found.state == wanted
    assert [each.place for each in found.evidence] == ["x", "y"]


def test_the_evidence_is_the_winner_against_the_strongest_of_the_others() -> None:
    line = judged(grid(x=CLEAR), among=("training",), winner={"training": "b"}).evidence[0]
    assert (line.pair, line.wins) == ("b against a", 0)
    assert line.difference == pytest.approx((-10 - 10 - 9.8) / 3)
    assert judged(grid(x=CLEAR), among=("training",)).evidence[0].pair == "a against b"


def test_equal_candidates_have_no_winner() -> None:
    same = grid(x={"a": [90, 91, 92], "b": [90, 91, 92]})
    assert judged(same, among=("training",)).state == HOLDS
    assert judged(same, among=("training",), winner={"training": "a"}).state == EQUAL
    assert judged(same, among=("training",), winner={"training": "a"}, relation="at_least").state == HOLDS


def test_the_lowest_is_the_best_where_less_is_better() -> None:
    rows = grid(x=CLEAR).assign(fpr95_id=lambda rows: rows["auroc"])
    assert judged(rows, value="fpr95_id", among=("training",), winner={"training": "c"}).state == HOLDS


def test_a_candidate_without_runs_leaves_open_what_it_might_change() -> None:
    rows = grid(x={"a": [90, 91, 92], "b": [80, 81, 82.2], "c": [99, math.nan, 99]})
    assert judged(rows, among=("training",), winner={"training": "a"}).state == MISSING
    assert judged(rows, among=("training",), winner={"training": "b"}).state == FAILS  # whatever c is
    assert "no one to be ahead of" in judged(rows, of={"training": "a"}, among=("training",)).why


# ---- the study file and the command

CLAIM = """\
claims:
  better:
    says: so
    left: {training: supcon}
    right: {training: simclr}
"""
BEST = """\
claims:
  best:
    says: so
    among: [training]
"""


def claims(tmp_path: Path, text: str) -> dict[str, ClaimSpec]:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + text)
    return reader.claims_of(path)


def test_claims_are_read_without_plugins(tmp_path: Path) -> None:
    found = claims(tmp_path, CLAIM + "    of: {level: 0.95, group: [near, far]}\n    margin: 1\n")
    assert found == {
        "better": ClaimSpec(
            says="so", left=SUPCON, right=SIMCLR, of={"level": 0.95, "group": ["near", "far"]}, margin=1.0
        )
    }
    assert reader.load(tmp_path / "s.yaml").claims == found
    assert claims(tmp_path, "") == {}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("claims: [a]\n", 9, "claims: is ['a'], wanted a mapping"),
        ("claims:\n  better: {left: {training: x}}\n", 10, "the parameter 'says' is missing"),
        ("claims:\n  better: {says: so}\n", 10, "'left' is missing; wanted are left and right, or among"),
        (CLAIM.replace("so", '" "'), 11, "claims.better.says: is empty"),
        (CLAIM + "    lift: {}\n", 14, "there is no such parameter; did you mean 'left'?"),
        (CLAIM + "    value: aurok\n", 14, "rows have no number 'aurok'; did you mean 'auroc'?"),
        (
            CLAIM + "    of: {spaec: a}\n",
            14,
            "claims.better.of.spaec: rows have no label 'spaec'; did you mean 'space'?",
        ),
        (CLAIM + "    of: {space: []}\n", 14, "is [], wanted a label as rows show it, or a list of them"),
        (CLAIM + "    of: {distance: {knn: 3}}\n", 14, "wanted a label as rows show it"),
        (CLAIM + "    over: [odd]\n", 14, "rows have no label 'odd'; did you mean 'ood'?"),
        (CLAIM + "    over: [ood, ood]\n", 14, "wanted are labels, each once"),
        (CLAIM + "    over: [training]\n", 14, "'training' is what left tells apart"),
        (CLAIM + "    relation: over\n", 14, "'above', 'at_least' or 'near'"),
        (CLAIM + "    relation: near\n", 14, "near what? give a margin above 0"),
        (CLAIM + "    margin: -1\n", 14, "greater than or equal to 0"),
        (CLAIM + "    where: most\n", 14, "most of what? say with the key 'over'"),
        (CLAIM + "    at: {ood: noise}\n", 14, "at and than go together"),
        (CLAIM + "    at: {ood: [a, b]}\n    than: {ood: [b, a]}\n", 15, "names the rows that 'at' names"),
        (CLAIM.replace("simclr", "[supcon]"), 13, "names the rows that 'left' names"),
        (CLAIM.replace("simclr}", "supcon, level: 0.9}") + "    of: {level: 0.9}\n", 13, "that 'left' names"),
        (CLAIM + "    winner: {training: a}\n", 14, "among whom?"),
        (CLAIM + "    pick: best\n    value: ties\n", 15, "more of 'ties' is neither better nor worse"),
        (CLAIM.replace("simclr}", "simclr, seed: 1}"), 13, "rows are compared within each seed"),
        (CLAIM + "    among: [distance]\n", 12, "claims.better.left: has no part in a claim with 'among'"),
        (BEST.replace("training", "ood"), 12, "'ood' is no candidate"),
        (BEST + "    winner: {distance: a}\n", 13, "names distance; wanted is a label for each of training"),
        (BEST + "    winner: {training: [a, b]}\n", 13, "is a list, wanted one label"),
        (BEST + "    relation: near\n    margin: 1\n", 13, "who is near the others is not ahead"),
        (BEST + "    margin: [1, 2]\n", 10, "takes one value each"),
        (CLAIM + "    value: silhouette\n", 14, "rows have no number 'silhouette'; with `table: quality` there is one"),
        (CLAIM + "    table: quality\n", 10, "clusters have no number 'auroc'"),
        (CLAIM + "    table: quality\n    value: nmi\n    over: [ood]\n", 16, "clusters have no label 'ood'"),
        (CLAIM + "    table: clusters\n", 14, "is 'clusters', should be 'rows' or 'quality'"),
    ],
)
def test_a_mistake_has_its_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        claims(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 's.yaml'}:{line}: ")
    with pytest.raises(UserError):
        reader.load(tmp_path / "s.yaml")


# ---- accuracies and clusters


def test_an_accuracy_is_of_a_training_whatever_became_of_its_detectors() -> None:
    def accurate(training: dict[str, str], values: list[float]) -> list[dict[str, Any]]:
        given = [training | {"seed": seed, "accuracy_linear": value} for seed, value in enumerate(values)]
        again = [each | {"distance": "knn", "ood": "b"} for each in given]
        return [*given, *again, given[0] | {"distance": "ssd", "status": "error", "accuracy_linear": None}]

    rows = made(accurate(SUPCON, [0.91, 0.92, 0.93]), accurate(SIMCLR, [0.90, 0.90, 0.90]))
    found = judged(rows, value="accuracy_linear", left=SUPCON, right=SIMCLR, margin=0)
    assert (found.state, found.lost) == (HOLDS, 0)
    assert found.evidence[0].difference == pytest.approx(2)
    assert found.evidence[0].runs == 3


def clusters(*groups: list[dict[str, Any]]) -> pd.DataFrame:
    """Return what `oodbench quality` writes: of each change the test items, and the training items, which say less."""
    base = {name: BASE[name] for name in ("id", "family", "protocol", "encoder", "outliers", "recipe", "reference")}
    base |= {"precision": "float32", "space": "penultimate", "clustering": "labels", "train_key": "t", "error": ""}
    changes = [change for group in groups for change in group]
    return pd.DataFrame(
        [base | dict.fromkeys(QUALITY) | change | {"split": "test"} for change in changes]
        + [base | dict.fromkeys(QUALITY) | change | {"split": "train", "global_separation": 0.5} for change in changes]
    )


def separated(values: list[float], **change: Any) -> list[dict[str, Any]]:
    return [change | {"seed": seed, "global_separation": value} for seed, value in enumerate(values)]


SEPARATION = {"table": "quality", "value": "global_separation", "left": SUPCON, "right": SIMCLR}
MEASURED = clusters(separated([0.40, 0.42, 0.44], **SUPCON), separated([0.10, 0.11, 0.12], **SIMCLR))


def on_clusters(table: pd.DataFrame | None, **claim: Any) -> ClaimVerdict:
    rows = made([{"train_key": "t"}])
    return verdicts.verdict(rows, "c", ClaimSpec(says="so", **SEPARATION | claim), table, "s.yaml")


def test_a_claim_about_clusters_is_held_against_their_measures() -> None:
    found = on_clusters(MEASURED)
    assert (found.state, found.evidence[0].runs) == (HOLDS, 3)
    assert found.text() == "+0.31 ± 0.01, 3 runs, 3 above"  # no points: a separation is from -1 to 1
    assert on_clusters(MEASURED, left=SIMCLR, right=SUPCON).state == FAILS
    assert on_clusters(MEASURED, of={"split": "train"}, relation="near", margin=0.01).evidence[0].difference == 0
    by_split = on_clusters(MEASURED, over=("split",)).evidence
    assert {each.place: round(each.difference, 2) for each in by_split} == {"test": 0.31, "train": 0}


def test_the_best_separated_training() -> None:
    ranked = {"left": {}, "right": {}, "among": ("training",), "winner": SUPCON}
    assert on_clusters(MEASURED, **ranked).state == HOLDS
    low = MEASURED.assign(davies_bouldin=1 - MEASURED["global_separation"])
    assert on_clusters(low, value="davies_bouldin", **ranked).state == HOLDS  # less is better
    assert on_clusters(low, value="davies_bouldin", **ranked | {"winner": SIMCLR}).state == FAILS


def test_clusters_that_were_never_measured_name_the_command() -> None:
    wanted = "the clusters of these rows are not measured: oodbench quality s.yaml does that"
    for table in (None, MEASURED.assign(train_key="of an epoch on the way")):
        found = on_clusters(table)
        assert (found.state, found.why) == (MISSING, wanted)


def test_clusters_that_could_not_be_measured_are_missing() -> None:
    failed = MEASURED.assign(error=["no memory", *[""] * (len(MEASURED) - 1)])
    found = on_clusters(failed)
    assert (found.state, found.evidence[0].lost, found.evidence[0].runs) == (MISSING, 1, 2)


def test_the_measures_are_those_that_the_command_makes() -> None:
    from oodbench.execution import cluster_survey
    from oodbench.scoring.cluster_quality import MEASURES

    assert QUALITY == MEASURES
    assert set(QUALITY_LABELS) <= set(cluster_survey.COLUMNS)


def test_the_command_reads_the_measures_that_were_written(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", claims={"apart": {"says": "so"} | SEPARATION})
    folder = reader.results_of(path)
    Results(folder).write(made([{"train_key": "t"}]).to_dict("records"))
    asked = call("verdict", path)
    assert "not enough data" in asked.output
    assert "oodbench quality s.yaml" in (folder / "verdict.md").read_text()
    MEASURED.to_csv(folder / "quality.csv", index=False)
    assert call("verdict", path).exit_code == 0
    assert "| holds" in (folder / "verdict.md").read_text()
    assert grids.of_html((folder / "verdict.html").read_text())[1][1].text == "holds"


def test_the_command_prints_and_writes_all_claims(tmp_path: Path) -> None:
    sides = {"says": "100 % | so_so", "left": SUPCON, "right": SIMCLR}
    path = write(tmp_path / "s.yaml", claims={"yes": sides, "later": sides | {"left": {"training": "later"}}})
    asked = call("verdict", path)
    assert asked.exit_code == 2
    folder = reader.results_of(path)
    rows = made(runs([90, 91, 92], **SUPCON), runs([80, 80, 81], **SIMCLR))
    Results(folder).write(rows.to_dict("records"))
    asked = call("verdict", path)
    assert asked.exit_code == 0, asked.output
    assert "holds" in asked.output
    assert "not enough data" in asked.output
    assert "| 100 % \\| so_so | holds" in (folder / "verdict.md").read_text()
    assert (
        r"100 \% \textbar{} so\_so & holds & +10.67 $\pm$ 0.33 points, 3 runs, 3 above"
        in (folder / "verdict.tex").read_text()
    )
    listed = pd.read_csv(folder / "verdict.csv")
    assert list(listed["verdict"]) == [HOLDS, MISSING]
    assert listed["difference"][0] == pytest.approx(32 / 3)
    assert listed["why"][1].startswith("no row has training 'later'")


def test_a_study_without_claims_or_rows_says_so(tmp_path: Path) -> None:
    asked = call("verdict", str(write(tmp_path / "s.yaml")))
    assert (asked.exit_code, "declares no claims" in asked.output) == (2, True)


def test_of_many_places_a_cell_says_how_many_and_the_ends() -> None:
    rows = frame(
        [
            BASE | {"ood": f"set {k}", "seed": seed, "training": training, "auroc": 0.5 + ahead * (training == "b")}
            for k in range(12)
            for seed in range(3)
            for ahead in [k / 100 + seed / 1000]
            for training in ("a", "b")
        ]
    )
    spec = ClaimSpec(says="b", left={"training": "b"}, right={"training": "a"}, over=("ood",))
    found = verdicts.verdict(rows, "c", spec)
    text = found.text()
    assert text.startswith("12 places, 11 holds, 1 open; from set 0 (open): +0.10")
    assert "; to set 11 (holds): +11.10" in text
    assert len(text) < 200
    assert len(verdicts.sheet([found]).numbers) == 12
