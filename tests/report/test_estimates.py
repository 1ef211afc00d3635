"""Means of candidates, their intervals and p, against scipy's t tests of one candidate after the other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from oodbench.report.claims.estimates import TWO_SIDED, Runs, estimate, interval

RNG = np.random.default_rng(0)


def test_of_candidates_each_has_the_t_test_of_its_own_runs() -> None:
    values = RNG.normal(0.5, 1.0, size=(7, 5))
    values[:3, 1] = np.nan
    values[:, 2], values[:, 3] = 0.0, 1.5
    values[1:, 4] = np.nan  # one run
    found = estimate(Runs(values, np.arange(7), "run"))
    low, high = interval(found, TWO_SIDED)
    for i in (0, 1):
        wanted = ttest_1samp(values[~np.isnan(values[:, i]), i], 0)
        assert found.p[i] == pytest.approx(wanted.pvalue)
        assert (low[i], high[i]) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert found.size[:, 0].tolist() == [7, 4, 7, 7, 1]
    assert found.p[2:4].tolist() == [1.0, 0.0]
    assert np.isnan([found.p[4], low[4], high[4]]).all()
    assert found.mean[4] == values[0, 4]


def test_runs_of_an_observation_are_one_number() -> None:
    values, unit = RNG.normal(1.0, 1.0, size=(9, 2)), np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
    found = estimate(Runs(values, unit, "ID set"))
    means = np.array([values[unit == each].mean(0) for each in range(3)])
    assert found.p == pytest.approx(ttest_1samp(means, 0).pvalue)
    alone = [estimate(Runs(each, unit, "ID set"), these=True) for each in values.T]
    both = estimate(Runs(values, unit, "ID set"), these=True)
    for i, each in enumerate(alone):
        assert both.size.shape == (2, 3)
        assert (both.mean[i], *(part[i] for part in both.spread())) == (each.mean, *each.spread())
