"""Intervals of realised recalls: how far from its level a cut may end up by the draw of reference and test items.

All take items as independent draws. A seed of a training, a choice of data sets and whatever else makes a study
is not in them. `confidence` is the probability, over the draws, that an interval holds what it is of.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, betabinom, binom

Floats = NDArray[np.float64]


def calibrated(k: int, n_cal: int, n_test: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return where the share of n_test ID items accepted by a cut at the k-th smallest of n_cal scores may lie.

    The share accepted of all ID is a Beta(k, n_cal + 1 - k) variable over the draw of the reference, so that the
    number accepted of n_test is beta-binomial. k is ceil(level n_cal) where one cuts at a quantile; a conformal cut
    has ceil((n_cal + 1) level), and k = n_cal + 1 accepts everything. The reference has to be held out, and no scores
    tied; ties accept more, so that the upper end no longer holds. A cut in each cluster is none of this: it has an
    interval for each cluster, with the cluster's own numbers.
    """
    if min(k, n_cal, n_test) < 1 or k > n_cal + 1:
        raise ValueError("k, n_cal and n_test are at least 1, and k at most n_cal + 1")
    if k > n_cal:
        return 1.0, 1.0
    below = np.cumsum(betabinom.pmf(np.arange(n_test + 1), n_test, k, n_cal + 1 - k))
    tail = (1 - confidence) / 2
    low, high = np.searchsorted(below, [tail, 1 - tail])
    return float(low / n_test), float(min(high, n_test) / n_test)


def recall(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Return the Clopper-Pearson interval of the recall that a cut has on all items, from successes among n.

    It holds the draw of the test items and takes the cut as given: another reference would have given another
    cut, and that is not in it (see `ood_recall`). Takes numbers or arrays, which broadcast.
    """
    x, m = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):  # at the ends a parameter is 0
        low = np.where(x > 0, beta.ppf(tail, x, m - x + 1), 0.0)
        high = np.where(x < m, beta.ppf(1 - tail, x + 1, m - x), 1.0)
    return low, high


def ood_recall(reference: Floats, ood: Floats, level: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval of the share of all OOD found by the cut that accepts exactly `level` of all ID.

    reference (n,) are held-out ID scores, ood (m,) scores of test items. It holds the draw of both. The cut, the
    `level` quantile of all ID scores, lies between two of the sorted reference scores by the binomial
    distribution, whatever the scores' distribution, ties included; the recalls at these two cuts have
    Clopper-Pearson limits. The error is split evenly (Bonferroni) over the two places and the two limits, so that
    the interval is a little too wide. A reference too small to bound the cut on a side leaves that side at 0 or 1.
    """
    ordered = np.concatenate([[-math.inf], np.sort(reference), [math.inf]])  # the k-th smallest stands at k
    n, m, part = len(reference), len(ood), (1 - confidence) / 4
    lowest, highest = (int(binom.ppf(share, n, level)) for share in (part, 1 - part))
    found = [int((np.asarray(ood) > ordered[place]).sum()) for place in (highest + 1, lowest)]
    low, high = recall(found, m, 1 - 2 * part)
    return float(low[0]), float(high[1])
