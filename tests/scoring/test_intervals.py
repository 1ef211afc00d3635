"""Intervals of realised recalls, against scipy's own quantiles and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, betabinom, binomtest, norm

from oodbench.scoring import intervals

SIZES = [(0.95, 100, 300), (0.95, 22, 50), (0.5, 7, 1), (0.9, 400, 1000), (0.99, 20, 40)]


@pytest.mark.parametrize(("level", "n_cal", "n_test"), SIZES)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_calibrated_has_the_quantiles_of_the_beta_binomial(
    level: float, n_cal: int, n_test: int, confidence: float
) -> None:
    for k in (None, math.ceil(level * (n_cal + 1))):
        place = k or math.ceil(level * n_cal)
        low, high = intervals.calibrated(place, n_cal, n_test, confidence)
        if place > n_cal:
            assert (low, high) == (1, 1)
            continue
        known = betabinom(n_test, place, n_cal + 1 - place)
        tail = (1 - confidence) / 2
        assert [low * n_test, high * n_test] == pytest.approx([known.ppf(tail), known.ppf(1 - tail)], abs=1e-9)


@pytest.mark.parametrize(("level", "n_cal", "n_test"), SIZES)
def test_calibrated_holds_the_recall_and_no_step_less_would(level: float, n_cal: int, n_test: int) -> None:
    """Simulation: a cut at a quantile of n_cal uniform scores, on n_test new ones."""
    rng, draws = np.random.default_rng(0), 20_000
    low, high = intervals.calibrated(math.ceil(level * n_cal), n_cal, n_test, 0.9)
    cut = np.partition(rng.random((draws, n_cal)), math.ceil(level * n_cal) - 1)[:, math.ceil(level * n_cal) - 1]
    found = rng.binomial(n_test, cut) / n_test
    error = 4 * math.sqrt(0.9 * 0.1 / draws)
    assert ((found >= low) & (found <= high)).mean() >= 0.9 - error
    assert ((found > low) & (found < high)).mean() <= 0.9 + error


def test_calibrated_refuses_places_that_are_not_there() -> None:
    for k, n_cal, n_test in ((0, 10, 5), (12, 10, 5), (1, 10, 0)):
        with pytest.raises(ValueError, match="k at most n_cal \\+ 1"):
            intervals.calibrated(k, n_cal, n_test)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_recall_is_the_exact_binomial_interval(confidence: float) -> None:
    n = np.array([1, 7, 40])
    for successes in ([0, 0, 0], [1, 7, 40], [1, 3, 39]):
        low, high = intervals.recall(successes, n, confidence)
        for i in range(3):
            known = binomtest(successes[i], int(n[i])).proportion_ci(confidence, "exact")
            assert (low[i], high[i]) == pytest.approx((known.low, known.high), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "level"), [(200, 500, 0.95), (1000, 100, 0.9), (30, 2000, 0.95)])
def test_ood_recall_holds_the_recall_of_the_true_cut(n: int, m: int, level: float) -> None:
    """Simulation, closed form: normal scores, OOD shifted by 2. Not much wider than what no interval can beat."""
    rng, draws, shift = np.random.default_rng(1), 1500, 2.0
    cut = norm.ppf(level)
    true = norm.sf(cut - shift)
    found = np.array(
        [intervals.ood_recall(rng.normal(size=n), rng.normal(shift, 1, m), level, 0.9) for _ in range(draws)]
    )
    held = (found[:, 0] <= true) & (true <= found[:, 1])
    assert held.mean() >= 0.9 - 4 * math.sqrt(0.9 * 0.1 / draws)
    assert n < 100 or held.mean() <= 0.9 + 0.04
    slope = norm.pdf(cut - shift) / norm.pdf(cut)  # of OOD recall over ID recall
    deviation = math.sqrt(true * (1 - true) / m + slope**2 * level * (1 - level) / n)
    if n > 100:  # where the reference bounds the cut on both sides
        assert np.diff(found).mean() < 1.15 * 2 * norm.ppf(0.95) * deviation
    else:
        assert (found[:, 0] == 0).all()


def test_test_items_alone_do_not_hold_the_draw_of_the_reference() -> None:
    """Many OOD items make the binomial interval narrow about the recall of a cut that few reference items set."""
    rng, n, m, shift = np.random.default_rng(2), 200, 20_000, 2.0
    true = norm.sf(norm.ppf(0.95) - shift)
    held = {"alone": 0, "both": 0}
    for _ in range(300):
        ref, ood = np.sort(rng.normal(size=n)), rng.normal(shift, 1, m)
        low, high = intervals.recall((ood > ref[math.ceil(0.95 * n) - 1]).sum(), m)
        held["alone"] += bool(low <= true <= high)
        low_both, high_both = intervals.ood_recall(ref, ood, 0.95)
        held["both"] += bool(low_both <= true <= high_both)
    assert held["alone"] < 0.3 * 300
    assert held["both"] > 0.93 * 300


def test_ood_recall_takes_ties() -> None:
    """Few distinct scores: the cut is 3, of which the reference leaves no doubt."""
    ref, ood = np.repeat([1.0, 2.0, 3.0], [400, 400, 200]), np.repeat([1.0, 3.0, 4.0], [10, 50, 40])
    low, high = intervals.ood_recall(ref, ood, 0.9, 0.9)
    assert (low, high) == pytest.approx(beta.ppf([0.05, 0.95], 40.5, 60.5), abs=1e-5)
