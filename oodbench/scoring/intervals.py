"""Intervals of realised recalls: how far from its level a cut may end up by the draw of reference and test items.

All take items as independent draws. A seed of a training, a choice of data sets and whatever else makes a study
is not in them. `confidence` is the probability, over the draws, that an interval holds what it is of.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betainc
from scipy.stats import beta, betabinom, binom

Floats = NDArray[np.float64]
FARTHEST = 1e-6  # probability of what is left out of a binomial distribution, on either side


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
    `level` quantile of all ID scores, lies between the k-th and the next of the sorted reference scores with the
    binomial probability of k among n, whatever the scores' distribution, ties included; what a cut at one of them
    finds of all OOD has Jeffreys' Beta distribution. The ends are quantiles of the mixture: they hold it in about a
    share `confidence` of draws, without a promise. A reference too small to bound the cut on a side leaves that side
    at 0 or 1.
    """
    n, m = len(reference), len(ood)
    k = np.arange(binom.ppf(FARTHEST, n, level), binom.ppf(1 - FARTHEST, n, level) + 1).astype(int)
    weight = np.repeat(binom.pmf(k, n, level), 2)
    place = np.stack([k, k + 1], axis=1).ravel()  # of a cut, 0 below and n + 1 above every reference score
    weight /= weight.sum()
    nothing, everything = weight[place > n].sum(), weight[place == 0].sum()
    inside = (place > 0) & (place <= n)
    cuts, which = np.unique(np.sort(reference)[place[inside] - 1], return_inverse=True)
    below = np.bincount(np.searchsorted(cuts, ood), minlength=len(cuts) + 1)  # of OOD scores, up to each cut
    found = (m - np.cumsum(below)[:-1])[which]
    counts, which = np.unique(found, return_inverse=True)
    share = np.bincount(which, weight[inside])

    def end(tail: float) -> float:
        """Return where the mixture has a share `tail` below it."""
        if tail <= nothing or tail >= 1 - everything:
            return 0.0 if tail <= nothing else 1.0
        return float(
            brentq(lambda r: nothing + share @ betainc(counts + 0.5, m - counts + 0.5, r) - tail, 0, 1, xtol=1e-6)
        )

    return end((1 - confidence) / 2), end((1 + confidence) / 2)
