"""Means over runs, their errors, intervals and t tests: of the runs, and of the test images that all of them share.

A paired test is that of the mean of differences. All tests of tables, effects, recommendations and claims are these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

ERROR = 0.05  # one-sided
TWO_SIDED = 2  # ends that share it
LEAST = 3  # observations: the deviation of two says nothing
UNITS = {"id": "ID set", "encoder": "encoder"}  # what runs are of, the outermost first: several are the observations
Floats = NDArray[np.floating[Any]]


class Runs(NamedTuple):
    """Numbers of runs (N,), or of runs and candidates (N, K), and which observation each run belongs to (N,)."""

    values: Floats
    unit: NDArray[np.int64]
    of: str  # what an observation is
    ids: tuple[str, ...] = ()  # the ID sets of the runs, by observation where these are the observations


def by_observation(numbers: pd.Series[float] | pd.DataFrame) -> Runs:
    """Return numbers by run; observations are the values of the outermost label that has several, else the runs."""
    labels = {name: numbers.index.get_level_values(name) for name in UNITS if name in numbers.index.names}
    ids = tuple(map(str, labels["id"].unique())) if "id" in labels else ()
    for label, values in labels.items():
        if values.nunique() > 1:
            return Runs(numbers.to_numpy(), values.factorize()[0], UNITS[label], ids)
    return Runs(numbers.to_numpy(), np.arange(len(numbers)), "run", ids)


class ImageError(NamedTuple):
    """What test images add to the error of a mean over runs that share them."""

    variance: float  # of the mean
    items: int  # images of the smallest set


class MeanEstimate(NamedTuple):
    """A mean, and what its error is of: sizes and variances (ddof 1) of B blocks of observations, and images.

    Of K candidates all have an axis K before that of the blocks. Where a block is of one observation, or none, there is
    no error: it is NaN, as are the interval and p.
    """

    mean: Any  # a number, or (K,)
    size: Floats  # (B,) or (K, B)
    variance: Floats  # (B,) or (K, B)
    images: Sequence[ImageError] = ()  # of each block; none where observations have images of their own

    def spread(self, more: Floats | int = 0) -> tuple[Any, Any]:
        """Return standard error and degrees of freedom, with so many more observations (M,) in each block.

        Those of images are crossed with runs, so that variances are added; degrees of freedom by Satterthwaite (1946).
        """
        size = np.add.outer(np.asarray(more), self.size)  # (M, B)
        parts = self.variance / size
        shared = np.array([each.variance for each in self.images])
        total = parts.sum(-1) + shared.sum()
        fixed = sum(each.variance**2 / (each.items - 1) for each in self.images)
        with np.errstate(invalid="ignore"):  # 0 / 0 of runs that are all alike
            found = total**2 / ((parts**2 / (size - 1)).sum(-1) + fixed)
        return np.sqrt(total) / self.size.shape[-1], np.where(np.isnan(found), (size - 1).sum(-1), found)

    def half(self, tests: int) -> Any:
        """Return half the width of the t interval of the mean, one-sided each, at a share of the error."""
        error, freedom = self.spread()
        return stdtrit(freedom, 1 - ERROR / tests) * error

    @property
    def p(self) -> Any:
        """The two-sided p of the t test that the mean is 0; 1 where all observations are 0."""
        error, freedom = self.spread()
        with np.errstate(divide="ignore", invalid="ignore"):  # of observations that are all alike
            found = 2 * stdtr(freedom, -np.abs(self.mean) / error)
        return np.where((error == 0) & (self.mean == 0), 1.0, found)

    @property
    def of_images(self) -> float:
        """The standard error that is of the images, NaN where it is not known."""
        return float(np.sqrt(sum(each.variance for each in self.images))) / len(self.size) if self.images else np.nan


def estimate(runs: Runs, these: bool = False, images: Sequence[ImageError] = ()) -> MeanEstimate:
    """Return the mean over observations of the means of their runs, of each candidate; NaN is no run.

    `these`: its error is that of the runs in each; else that of the observations, which are one block.
    """
    blocks = [_moments(each) for each in observations(runs, these)]
    mean, size, variance = zip(*blocks, strict=True)
    return MeanEstimate(_moments(np.array(mean))[0], np.stack(size, -1), np.stack(variance, -1), images)


def observations(runs: Runs, these: bool = False) -> list[Floats]:
    """Return the numbers whose spread is the error of the mean, by block, (N,) or (N, K).

    They are those of the runs of each observation (`these`), or in one block its mean of each.
    """
    units = [runs.values[runs.unit == each] for each in np.unique(runs.unit)]
    return units if these else [np.array([_moments(each)[0] for each in units])]


def _moments(values: Floats) -> tuple[Any, Any, Any]:
    """Return along the first axis mean, number and variance (ddof 1) of what is not NaN."""
    there = ~np.isnan(values)
    size = there.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 of no number, or one
        mean = np.where(there, values, 0).sum(0) / size
        return mean, size, (np.where(there, values - mean, 0) ** 2).sum(0) / np.maximum(size - 1, 0)


def welch(one: tuple[float, int | None], other: tuple[float, int | None]) -> tuple[float, float]:
    """Return standard error and degrees of freedom of the difference of two means over runs of their own (Welch 1947).

    Each is given by deviation (ddof 1) and number of its runs. A mean without a deviation, NaN, is taken to have the
    other's, and without a number to be of one run; of two without there is no error: NaN.
    """
    (s, n), (t, m) = ((deviation, size or 1) for deviation, size in (one, other))
    if math.isnan(s) or math.isnan(t):
        known, size = (t, m) if math.isnan(s) else (s, n)
        return (known**2 * (1 / n + 1 / m)) ** 0.5, size - 1
    parts = s**2 / n, t**2 / m
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1)) if any(parts) else n + m - 2
    return sum(parts) ** 0.5, freedom


def interval(found: MeanEstimate, tests: int) -> tuple[Any, Any]:
    """Return the ends of the t interval of a mean, one-sided each, at a share of the error."""
    half = found.half(tests)
    return found.mean - half, found.mean + half
