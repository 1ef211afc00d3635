"""From ten runs on, a check of a claim's t interval: the bootstrap-t over runs and the test images that they share.

A draw takes as many runs as there are with replacement, in each block, and other test images: their error is one draw
of the normal distribution of DeLong's variance, as it is of means over many images. It needs what ImageErrors keeps,
no scores. Each draw is studentised by the standard error that it shows itself (Efron 1981, Canadian Journal of
Statistics 9; second-order correct: Hall 1988, Annals of Statistics 16), so that skewed differences have a skewed
interval. BCa is no such check: of ten runs its interval is narrower than that of t.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from oodbench.report.claims.estimates import ERROR, Floats, MeanEstimate, Runs, interval, observations

FROM = 10  # observations in each block
DRAWS = 4999
DIGITS = 9  # of a number: runs that differ in later ones are alike
ROUNDING = 1e-9  # of the variance: a draw of runs that are all alike has none
WIDEST = 1e3  # an end may be infinite


class BootstrapT(NamedTuple):
    """The bootstrap-t of a mean: the studentised draws, in order, of what an estimate is the middle of."""

    found: MeanEstimate
    draws: Floats  # (DRAWS,), infinite where a draw has no error

    def interval(self, tests: int) -> tuple[float, float]:
        """Return the ends of the interval of the mean, one-sided each, at a share of the error.

        A share below 1 / (DRAWS + 1) is taken to be that: no draw lies further out.
        """
        rank = max(1, int(ERROR / tests * (len(self.draws) + 1)))
        error = float(self.found.spread()[0])
        return self.found.mean - self.draws[-rank] * error, self.found.mean - self.draws[rank - 1] * error

    def with_t(self, tests: int) -> tuple[float, float]:
        """Return the ends of the interval that holds this one and that of t: what it decides, both decide."""
        (low, high), (least, most) = self.interval(tests), interval(self.found, tests)
        return min(low, float(least)), max(high, float(most))

    def wider(self) -> MeanEstimate:
        """Return an estimate whose t interval is as wide as both, on its longer side."""
        low, high = self.with_t(1)
        ratio = max(self.found.mean - low, high - self.found.mean) / float(self.found.half(1))
        return self.found._replace(variance=self.found.variance * min(ratio, WIDEST) ** 2)

    @property
    def shared(self) -> str:
        """What is drawn beside observations, as words after them."""
        return " and images" if self.found.images else ""


def bootstrap_t(runs: Runs, found: MeanEstimate, these: bool = False) -> BootstrapT | None:
    """Return the bootstrap-t of an estimate that runs, none of them NaN, have; None where a block has under ten.

    The same runs in another order have the same.
    """
    blocks = observations(runs, these)
    if min(map(len, blocks)) < FROM:
        return None
    shift, variance = _of_images(found)
    for i, values in enumerate(blocks):
        apart = (np.sort(values) - values.mean()).round(DIGITS)
        counts = _counts(len(apart), i)  # (DRAWS, N)
        mean = counts @ apart / len(apart)
        square = counts @ apart**2 / len(apart) - mean**2
        shift += mean
        variance += np.where(square > ROUNDING * apart.var(), square, 0) / (len(apart) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of runs that are all alike
        draws = shift / np.sqrt(variance)
    return BootstrapT(found, np.sort(np.where(np.isnan(draws), 0, draws)))


def _of_images(found: MeanEstimate) -> tuple[Floats, Floats]:
    """Return by how much images move the sum over blocks in each draw, and the variance that it then shows for them."""
    rng = np.random.default_rng((0, 0))
    shift, variance = np.zeros(DRAWS), np.zeros(DRAWS)
    for each in found.images:
        shift += rng.normal(0, each.variance**0.5, DRAWS)
        variance += each.variance * rng.chisquare(each.items - 1, DRAWS) / (each.items - 1)
    return shift, variance


@lru_cache(maxsize=4)
def _counts(n: int, block: int) -> Floats:
    """Return how often each of n runs is in each draw, of a block's own: (DRAWS, N)."""
    return np.random.default_rng((1, block)).multinomial(n, [1 / n] * n, DRAWS).astype(np.float64)
