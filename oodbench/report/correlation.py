"""Does cluster quality go with detection? Correlations of the two over the cells of a study, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata, spearmanr

from oodbench.errors import UserError
from oodbench.report import tables
from oodbench.store.columns import QUALITY as MEASURES
from oodbench.study.study import GROUPS

NAME = "quality-correlation"
ALL = "all"  # the scope of all trainings
CELL = ["train_key", "training", "space", "clustering", "distance"]
KIND = ["trainings", "distance", "measure"]  # a row of the table
SPLITS = ("test", "train")
LEAST = 3  # cells: two always lie on a line
LEAST_RUNS = 5  # encoders: fewer say little about how much encoders differ
RESAMPLES = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Correlations(tables.Table):
    """Coefficients in `mean`, numbers of cells in `n`; intervals rather than deviations."""

    listed: pd.DataFrame  # a row for each pair of coefficients

    def text(self) -> pd.DataFrame:
        """Return `coefficient [low, high]`, an interval where there is one."""
        pearson, spearman, low, high = (
            self.listed[name].map(lambda value: tables.spread(value, digits=2))
            for name in ("pearson", "spearman", "low", "high")
        )
        interval = (" [" + low + ", " + high + "]").where(self.listed["low"].notna(), "")
        shown = _wide(self.listed.assign(pearson=pearson, spearman=spearman + interval))
        return shown.assign(n=self.n.max(axis=1)).reset_index().astype(str)

    def numbers(self) -> pd.DataFrame:
        """Return every coefficient, unrounded."""
        return self.listed


# ---- making -------------------------------------------------------------------------------------------


def correlations(rows: pd.DataFrame, quality: pd.DataFrame) -> Correlations:
    """Return how the measures of clusters go with the AUROC of rows that share training, space and clustering."""
    joined = measured_cells(rows, quality)
    listed = pd.DataFrame(list(_correlated(joined)))
    mean, n = _wide(listed), _wide(listed.assign(spearman=listed["n"], pearson=listed["n"]))
    caption = _caption(joined, *tables.commonest_threshold(rows))
    return Correlations(NAME, caption, mean, mean * np.nan, n, dict.fromkeys(mean.columns, 0), listed=listed)


def measured_cells(rows: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Return near- and far-OOD AUROC of cells, at the commonest threshold, beside `SPLIT MEASURE` of their clusters.

    Single clusters are left out. Raises UserError where no measured clusters are those of a row.
    """
    threshold, level = tables.commonest_threshold(rows)
    cells = detection(rows[(rows["threshold"] == threshold) & (rows["level"] == level)])
    several = quality[pd.to_numeric(quality["clusters"]).fillna(0) != 1]
    measured = several.pivot(index=CELL[:1] + CELL[2:4], columns="split", values=list(MEASURES))
    measured.columns = pd.Index([f"{name[1]} {name[0]}" for name in measured.columns])
    joined = cells.merge(measured.reset_index(), on=CELL[:1] + CELL[2:4])
    if joined.empty:
        raise UserError("no measured clusters are those of a row; run the study again, then measure them")
    return joined


def detection(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the near- and far-OOD AUROC of each cell, unweighted means over sets, nothing where a set failed."""
    sets = rows.groupby([*CELL, "group"], sort=False)["auroc"]
    found = sets.mean().where(sets.count() == sets.size()).unstack("group")
    return found.reindex(columns=[group for group in GROUPS if group in found]).reset_index()


def _correlated(joined: pd.DataFrame) -> Iterator[dict[str, Any]]:
    trainings = list(joined["training"].unique())
    for scope in [ALL, *(trainings if len(trainings) > 1 else [])]:
        inside = joined if scope == ALL else joined[joined["training"] == scope]
        for distance, cells in inside.groupby("distance", sort=False):
            runs = cells["train_key"].to_numpy()
            there = cells.notna().any()
            for measure in (each for each in MEASURES if any(there[f"{split} {each}"] for split in SPLITS)):
                for split in SPLITS:
                    for group in (each for each in GROUPS if each in cells):
                        found = correlation(cells[f"{split} {measure}"], cells[group], runs)
                        labels = dict(zip(KIND, (scope, distance, measure), strict=True))
                        yield labels | {"split": split, "group": group} | found._asdict()


def _wide(listed: pd.DataFrame) -> pd.DataFrame:
    """Return both coefficients of each split and group beside each other."""
    places = listed["split"] + " " + listed["group"]
    wide = listed.assign(place=places).set_index([*KIND, "place"]).unstack("place", sort=False)
    both = [(place, kind) for place in places.unique() for kind in ("Spearman", "Pearson")]
    return pd.DataFrame({f"{place} {kind}": wide[kind.lower(), place] for place, kind in both})


def _caption(joined: pd.DataFrame, threshold: str, level: float) -> str:
    runs = joined["train_key"].nunique()
    places = len(joined[CELL[:1] + CELL[2:4]].drop_duplicates())
    return (
        f"Correlation of a measure of cluster quality, on ID test or training features, with near- or far-OOD AUROC "
        f"(unweighted means over sets, threshold {threshold} at {level:g}), over cells that share the distance: "
        f"{len(joined)} cells in all, of {runs} trained encoders, {places} pairs of encoder and space x clustering; "
        f"n is how many a row compares at most. Single clusters are left out: most measures of them do not exist. "
        f"In brackets the 95 % interval of Spearman's coefficient when encoders are drawn again with replacement "
        f"({RESAMPLES} times), where there are at least {LEAST_RUNS}. davies_bouldin is better when lower. On "
        f"training features, clusters that are the classes are pure by construction. class_separation and "
        f"local_purity do not depend on the clustering; distances that take no clusters have these only. Cells of "
        f"one encoder, and those of related methods, are no independent samples, and a correlation over a grid of "
        f"them is not causation: what makes clusters better may make detection better by other ways."
    )


# ---- coefficients -------------------------------------------------------------------------------------


class Correlation(NamedTuple):
    """Coefficients of n cells of some encoders; NaN where one does not exist."""

    n: int
    runs: int
    spearman: float = np.nan
    low: float = np.nan  # of spearman, the 95 % interval over resampled runs
    high: float = np.nan
    pearson: float = np.nan


def correlation(x: pd.Series[float], y: pd.Series[float], runs: NDArray[np.object_]) -> Correlation:
    """Return the correlation of two columns, each value of one run; pairs that miss one are left out."""
    there = (x.notna() & y.notna()).to_numpy()
    a, b = (np.asarray(each, np.float64)[there] for each in (x, y))
    runs = runs[there]
    n, count = len(a), len(set(runs))
    if n < LEAST or _constant(a) or _constant(b):
        return Correlation(n, count)
    low, high = _interval(a, b, runs) if count >= LEAST_RUNS else (np.nan, np.nan)
    return Correlation(n, count, float(spearmanr(a, b).statistic), low, high, float(pearsonr(a, b).statistic))


def _constant(a: Floats) -> bool:
    return bool(np.ptp(a) <= 1e-9 * np.abs(a).max())  # rounding is no difference


def _interval(a: Floats, b: Floats, runs: NDArray[np.object_]) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % points of Spearman's coefficient over resamples of whole runs, the seed fixed."""
    names, which = np.unique(runs, return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    found = repeated_spearman(a, b, drawn[:, which].astype(np.float64))
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return float(low), float(high)


def repeated_spearman(a: Floats, b: Floats, times: Floats) -> Floats:
    """Return Spearman's coefficient (B,) of a and b (n,) with item i there times[:, i] times, (B, n)."""
    x, y = _repeated_ranks(a, times), _repeated_ranks(b, times)
    total = times.sum(1, keepdims=True)
    x, y = (each - (times * each).sum(1, keepdims=True) / total for each in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample in which all are alike has none
        found: Floats = (times * x * y).sum(1) / np.sqrt((times * x * x).sum(1) * (times * y * y).sum(1))
    return found


def _repeated_ranks(a: Floats, times: Floats) -> Floats:
    """Return the mid-rank of each item (B, n) among items that are there several times."""
    group = rankdata(a, "dense") - 1  # of equal values
    size = np.zeros((len(times), int(group.max()) + 1))
    np.add.at(size.T, group, times.T)
    ranks: Floats = (np.cumsum(size, 1) - size / 2 + 0.5)[:, group]
    return ranks
