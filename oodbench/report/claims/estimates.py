"""Means over runs, and their errors: of the runs, and of the test images that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

ERROR = 0.05  # one-sided
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
    """A mean, and what its error is of: the sizes and variances (ddof 1) of the blocks of observations, and images."""

    mean: float
    size: Floats  # (B,)
    variance: Floats  # (B,)
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
        return np.sqrt(total) / len(self.size), np.where(np.isnan(found), (size - 1).sum(-1), found)

    @property
    def of_images(self) -> float:
        """The standard error that is of the images, NaN where it is not known."""
        return float(np.sqrt(sum(each.variance for each in self.images))) / len(self.size) if self.images else np.nan


def estimate(values: list[Floats], these: bool = False, images: Sequence[ImageError] = ()) -> MeanEstimate | None:
    """Return the mean over units of the means of their runs, None where it has no error.

    `these`: its error is that of the runs in each; else that of the units, which are one block.
    """
    blocks = values if these else [np.array([each.mean() for each in values if len(each)])]
    if not blocks or min(map(len, blocks)) < 2:
        return None
    mean = float(np.mean([each.mean() for each in values if len(each)]))
    size, variance = (np.array([f(each) for each in blocks], float) for f in (len, lambda x: x.var(ddof=1)))
    return MeanEstimate(mean, size, variance, images)


def interval(found: MeanEstimate, tests: int) -> tuple[float, float]:
    """Return the ends of the t interval of a mean, one-sided each, at a share of the error."""
    error, freedom = found.spread()
    half = _quantile(float(freedom), tests) * float(error)
    return found.mean - half, found.mean + half


@cache
def _quantile(freedom: float, tests: int) -> float:
    return float(student.ppf(1 - ERROR / tests, freedom))
