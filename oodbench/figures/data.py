"""What each kind of figure shows, as tidy frames with a row for each mark: no plotting, no torch.

Cells, runs and intervals are those of the tables: thresholds that rank alike are one detector, an observation is a run
or, of several class splits, a split. AUROC and recalls are in per cent. Frames of one ID set each come by its name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from oodbench.errors import UserError
from oodbench.report import correlation, epochs, tables
from oodbench.report.claims.estimates import ERROR
from oodbench.store.columns import INTERVALS, QUALITY
from oodbench.store.scores import KeptScores
from oodbench.study.declarations import TableSpec
from oodbench.study.grid import NONE
from oodbench.study.study import GROUPS

INDEPENDENT = 8  # ID data sets: from as many on mean ranks of fewer than all methods can be told apart
SHORTEST = 0.0001  # seconds that rows tell from none: axes of seconds are logarithmic
BINS = 40
OUTSIDE = 0.005  # share of scores on either side that go to the outermost bins
REACH = 5  # times as far beside the middle 90 % of ID test as these are wide: what lies further out, too
AUROC = tables.SHOWN["auroc"]


def detectors(rows: pd.DataFrame) -> tables.Table:
    """Return the leaderboard of one ID data set, whose rows are the detectors of most figures."""
    if len(boards := tables.boards(rows)) > 1:
        raise UserError(f"rows are of several ID data sets, each a figure of its own: {', '.join(boards)}")
    return tables.leaderboards(rows)[0]


def heat(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `auroc` by training, scorer (distance or baseline) and OOD set, at the threshold that most rows have.

    It is a mean over runs, and over spaces and clusterings, as in a table that a study declares; NaN where none is.
    """
    threshold, level = tables.commonest_threshold(rows)
    at = rows[(rows["threshold"] == threshold) & (rows["level"] == level)]
    at = at.assign(distance=scorer(at))
    table = tables.declared(at, "heat", TableSpec(rows=("training", "distance"), columns=("ood",)))
    found = table.mean.reset_index().melt(["training", "distance"], var_name="ood", value_name="auroc")
    return found.rename(columns={"distance": "scorer"})


def near_far(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each detector with `near`, `far` and their 95 % t intervals (`near_low`, ...), best near first.

    Intervals end at 0 and 100 %, and are NaN of fewer than three observations. Raises UserError where a group has no
    OOD set.
    """
    board = detectors(rows)
    found = board.mean.index.to_frame(index=False)
    for group in GROUPS:
        if (group, AUROC) not in board.mean:
            raise UserError(f"no row is of {group}-OOD; `ood:` of a study says which sets are near and which far")
        mean, half = (part[group, AUROC].to_numpy() for part in (board.mean, board.half))
        low, high = np.maximum(mean - half, 0), np.minimum(mean + half, 100)
        found = found.assign(**{group: mean, f"{group}_low": low, f"{group}_high": high})
    return found.dropna(subset=[*GROUPS]).reset_index(drop=True)


def quality(rows: pd.DataFrame, clusters: pd.DataFrame | None, study: str = "STUDY") -> pd.DataFrame:
    """Return a row for each correlated cell, measure of clusters, split and group of OOD sets: `value` and `auroc`.

    `clusters` is what `oodbench quality` measured. Raises UserError where it has not.
    """
    if clusters is None:
        raise UserError(f"the clusters of these rows are not measured: oodbench quality {study} does that")
    cells = correlation.measured_cells(rows, clusters)
    groups = [group for group in GROUPS if group in cells]
    kept = cells.melt(
        [*correlation.CELL, *groups], [f"{split} {each}" for split in correlation.SPLITS for each in QUALITY]
    )
    split = kept.pop("variable").str.split(" ", expand=True)
    kept = kept.assign(split=split[0], measure=split[1])
    found = kept.melt([*correlation.CELL, "split", "measure", "value"], groups, "group", "auroc")
    return found.assign(auroc=100 * found["auroc"]).dropna(subset=["value", "auroc"]).reset_index(drop=True)


def curve(course: pd.DataFrame | None, study: str = "STUDY") -> pd.DataFrame:
    """Return a row for each method, epoch and `number`: its `mean`, `std` (ddof 1) and `n` over runs, times 100.

    `kind` of a number is ID (accuracy), clusters (a measure of them) or AUROC (of an OOD set). `course` is what
    `oodbench curve` followed. Raises UserError where it has not.
    """
    if course is None or course.empty:
        raise UserError(f"these trainings are not followed over their epochs: oodbench curve {study} does that")
    table = epochs.table(course)
    found = []
    for column in table.better:
        kind, number = reversed(column) if column[1] == AUROC else column
        each = {name: part[column].to_numpy() for name, part in vars(table).items() if name in ("mean", "std", "n")}
        found.append(table.mean.index.to_frame(index=False).assign(kind=kind, number=number, **each))
    return pd.concat(found).dropna(subset=["mean"]).reset_index(drop=True)


def pareto(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `seconds`, `auroc` and whether it is on the `front`, of each detector and group of OOD sets.

    Seconds are those of fitting and scoring a cell, a mean over runs. What cells share, as a clustering, is in the
    first of them; what took less than rows tell is SHORTEST. On the front none is as fast and better, nor as good and
    faster.
    """
    board = detectors(rows)
    by = list(board.mean.index.names)
    cells = tables.named(tables.distinct(rows)).drop_duplicates("cell")
    spent = cells.groupby(by, sort=False)["score_seconds"].mean().reindex(board.mean.index).clip(lower=SHORTEST)
    if spent.isna().all():
        raise UserError("no row says how long scoring took (score_seconds); run the study again to have them")
    found = []
    for group in (group for group in tables.SHOWN_GROUPS if (group, AUROC) in board.mean):
        each = board.mean.index.to_frame(index=False)
        each = each.assign(group=group, seconds=spent.to_numpy(), auroc=board.mean[group, AUROC].to_numpy())
        each = each.dropna(subset=["seconds", "auroc"])
        found.append(each.assign(front=on_front(each["seconds"].to_numpy(), each["auroc"].to_numpy())))
    return pd.concat(found, ignore_index=True)


def ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean `rank` of each detector over ID data sets, best first, and what tells them apart as `attrs`.

    Ranks are of the AUROC of each ID data set, near-OOD where there is any, a mean over its runs. `difference` is
    Nemenyi's critical difference at 5 % (Demšar 2006), `p` Friedman's, without which no two are told apart; `blocks`
    are the ID data sets, `lacking` the detectors without a number on one of them, which have no rank. Raises UserError
    where blocks are fewer than eight independent data sets: seeds, class splits and OOD sets of one ID set are none.
    """
    families = rows["family"].nunique()
    if families < INDEPENDENT:
        raise UserError(
            f"mean ranks need {INDEPENDENT} independent ID data sets or more, these rows are of {families}: seeds, "
            "class splits and OOD sets of one ID data set depend on each other; near-far shows intervals"
        )
    group = next(group for group in tables.SHOWN_GROUPS if (rows["group"] == group).any())
    one = tables.named(tables.distinct(rows))
    by = tables.naming(one)
    spec = TableSpec(rows=tuple(by), columns=("family",), of={"group": group})
    every = tables.declared(one, "ranks", spec).mean
    values = every.dropna()
    if len(values) < 3:
        raise UserError(
            f"mean ranks need 3 detectors or more with a number on each ID data set, there are {len(values)}"
        )
    place = rankdata(-values.to_numpy(), axis=0).mean(axis=1)
    found = values.index.to_frame(index=False).assign(rank=place).sort_values("rank", kind="stable", ignore_index=True)
    k, blocks = values.shape
    quantile = float(studentized_range.ppf(1 - ERROR, k, np.inf)) / math.sqrt(2)
    found.attrs = {
        "difference": quantile * math.sqrt(k * (k + 1) / (6 * blocks)),
        "p": float(friedmanchisquare(*values.to_numpy()).pvalue),
        "blocks": blocks,
        "lacking": len(every) - k,
    }
    return found


def thresholds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what a cut of each threshold and level keeps (`id_recall`) and catches (`ood_recall`), and intervals.

    Means over runs, methods and OOD sets; so are the ends of the 95 % intervals (`id_recall_low`, ...), which are of
    single cuts, over draws of reference and test items, and NaN of cuts that are at no score of a held-out reference.
    """
    spec = TableSpec(rows=("threshold", "level"), columns=(), value=("id_recall", "ood_recall", *INTERVALS))
    return tables.declared(rows, "thresholds", spec).mean.rename_axis(columns=None).reset_index()


def roc(scores: KeptScores) -> pd.DataFrame:
    """Return the corners of the ROC curve, OOD being positive: shares `id_rejected` and `ood_found`, from 0 to 1."""
    cuts = np.unique(np.concatenate([scores.id_, scores.ood]))[::-1]
    above = [len(each) - np.searchsorted(np.sort(each), cuts) for each in (scores.id_, scores.ood)]
    counts = np.pad(np.stack(above), ((0, 0), (1, 0))).astype(np.int64)  # (2, cuts + 1), from nothing to everything
    step = np.diff(counts, axis=1)
    turns = step[0, 1:] * step[1, :-1] != step[0, :-1] * step[1, 1:]
    rejected, found = counts[:, np.pad(turns, 1, constant_values=True)]
    return pd.DataFrame({"id_rejected": rejected / len(scores.id_), "ood_found": found / len(scores.ood)})


def histogram(scores: KeptScores) -> pd.DataFrame:
    """Return the shares of ID test and OOD items between `low` and `high`; outliers are in the outermost bins.

    So is what lies REACH times as far from most of ID test as that is wide, which would else be a single bar.
    """
    id_low, id_high = np.quantile(scores.id_.astype(np.float64), [0.05, 0.95])
    both = np.concatenate([scores.id_, scores.ood]).astype(np.float64)
    low, high = np.quantile(both, [OUTSIDE, 1 - OUTSIDE])
    if reach := REACH * (id_high - id_low):
        low, high = max(low, id_low - reach), min(high, id_high + reach)
    edges = np.histogram_bin_edges([low, high], BINS)
    shares = {
        name: np.histogram(np.clip(each, edges[0], edges[-1]), edges)[0] / len(each)
        for name, each in (("id", scores.id_), ("ood", scores.ood))
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **shares})


def scorer(rows: pd.DataFrame) -> pd.Series[str]:
    """Return what scores the features of each row: the distance, else the baseline."""
    return rows["distance"].where(~rows["distance"].isin(["", NONE]), rows["posthoc"])


def on_front(seconds: NDArray[np.floating[Any]], auroc: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return which points (N,) no other is as fast as and better, nor as good as and faster."""
    order = np.lexsort((-auroc, seconds))
    before = np.maximum.accumulate(np.concatenate([[-np.inf], auroc[order][:-1]]))
    found = np.zeros(len(order), dtype=bool)
    found[order] = auroc[order] > before
    ties = {(s, a) for s, a in zip(seconds[found], auroc[found], strict=True)}
    return np.array([(s, a) in ties for s, a in zip(seconds, auroc, strict=True)], dtype=bool)
