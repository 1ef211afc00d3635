"""The winner's curse: what a row that is picked on test images is worth on images that had no part in picking it.

The images of ID test and of each OOD set are halved, by a draw that is the same for all rows. The row that is highest
on one half is measured on the other, both ways, and the mean is taken. Nothing was picked on what is measured, so it is
unbiased, where the number that a row was picked by is too high. It knows rows and kept scores alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodbench.report.tables import OTHER, Table, distinct, named
from oodbench.store import scores
from oodbench.store.artifacts import Store

PICKED = "It is picked on the images that its numbers are of: {} is too high by what picking gains."
HALVED = (
    "`{0}, {1}` is of images that had no part in picking: the row that is highest by {0} on one half of each set, over "
    "runs, measured on the other half, both ways, averaged."
)


def honest(best: Table, board: Table, rows: pd.DataFrame, store: Store | None) -> Table:
    """Return the best rows of a leaderboard, made of rows, with what their pick is worth on images apart.

    Where the scores by image of a candidate are not kept, nothing is added but that the pick is on the same images.
    """
    chosen = " ".join(map(str, best.ranked_by))
    found = None if store is None else other_half(rows, [*map(str, board.mean.index.names)], best.ranked_by[0], store)
    if found is None:
        return replace(best, caption=f"{best.caption} {PICKED.format(chosen)}")
    column, of = (best.ranked_by[0], f"{best.ranked_by[1]}, {OTHER}"), best.mean.index.get_level_values("training")
    over = found.groupby("training", sort=False)
    mean, std, n = (best.mean.copy(), best.std.copy(), best.n.copy())
    lost = None if best.unlearned is None else best.unlearned.copy()
    if lost is not None:
        lost[column] = lost[best.ranked_by]
    for part, numbers in ((mean, over.mean()), (std, over.std(ddof=1)), (n, over.count())):
        part[column] = numbers.reindex(of).to_numpy()
    caption = f"{best.caption} {HALVED.format(chosen, OTHER)}"
    return replace(best, caption=caption, mean=mean, std=std, n=n, unlearned=lost, better=best.better | {column: 0})


def other_half(rows: pd.DataFrame, by: list[str], group: str, store: Store) -> pd.Series[float] | None:
    """Return in per cent, for each training and run, the AUROC on a group's images that had no part in the pick.

    None where the scores of a row are not kept, or there is none. Rows of a training are candidates, apart `by` labels.
    """
    if not store.keys(scores.KIND):
        return None
    rows = named(distinct(rows))
    rows = rows[(rows["group"] == group) & (rows["status"] == "ok")]
    table = by_half(rows, store)
    if table is None:
        return None
    runs = rows["id"] + " " + rows["seed"].astype(str)
    table = table.assign(run=runs, **{name: rows[name] for name in by})
    return both_ways(table.groupby([*by, "run"], sort=False, dropna=False)[[0, 1]].mean())


def by_half(rows: pd.DataFrame, store: Store) -> pd.DataFrame | None:
    """Return in per cent the AUROC of each row on either half of its images; NaN of rows that failed.

    None where the scores of another row are not kept, or there is none.
    """
    ok = rows[rows["status"] == "ok"]
    which = [(str(key), str(ood), str(content)) for key, ood, content in ok[["key", "ood", "ood_data"]].to_numpy()]
    there = set(store.keys(scores.KIND))
    if not which or not all(scores.name(*each) in there for each in which):
        return None
    found = [scores.kept(store, each) for each in which]
    halves = [[np.nan] * 2 if each is None else of_halves(each.id_, each.ood) for each in found]
    return 100 * pd.DataFrame(halves, index=ok.index).reindex(rows.index)


def best_of_run(numbers: pd.DataFrame, run: list[str]) -> pd.Series[float]:
    """Return for each run what the candidate that is best on one half has on the other, the mean of both ways.

    `numbers` has a line for each candidate and run, with a column of each half; `run` are the columns that tell runs.
    """
    best = numbers.fillna({0: -np.inf, 1: -np.inf}).groupby(run, sort=False)[[0, 1]].idxmax()
    ways = [numbers.loc[best[one], other].to_numpy() for one, other in ((0, 1), (1, 0))]
    return pd.Series((ways[0] + ways[1]) / 2, best.index)


def both_ways(numbers: pd.DataFrame) -> pd.Series[float]:
    """Return for each training and run what the candidate that is best over runs on one half has on the other.

    `numbers` has the candidates' labels and the run as its index, and a column of each half; the mean of both ways.
    """
    ways: list[pd.Series[float]] = []
    for one, other in ((0, 1), (1, 0)):
        wide, apart = (pd.DataFrame(numbers[half].unstack("run", sort=False)) for half in (one, other))
        best = wide.mean(axis=1, skipna=False).dropna().groupby("training", sort=False).idxmax()
        ways.append(apart.loc[best].set_axis(pd.Index(best.index), axis=0).stack())  # type: ignore[arg-type]
    return (ways[0] + ways[1]) / 2


def of_halves(id_: NDArray[np.floating], ood: NDArray[np.floating]) -> list[float]:
    """Return the AUROC, a share, of each half of the images: ties count half."""
    draws = [np.random.default_rng(0).permutation(len(each)) for each in (id_, ood)]
    return [_auroc(*(each[draw[i::2]] for each, draw in zip((id_, ood), draws, strict=True))) for i in (0, 1)]


def _auroc(id_: NDArray[np.floating], ood: NDArray[np.floating]) -> float:
    below = np.sort(id_)
    sides = (np.searchsorted(below, ood, side) for side in ("left", "right"))
    return float(sum(side.mean() for side in sides) / 2 / len(below))
