"""Tidy frames of figures, each with a sentence on what it shows; None where a study has no such numbers."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from oodbench.figures.boards import interval
from oodbench.report.correlation import CELL, detection
from oodbench.report.tables import BEST, MARKED, commonest_threshold, declared
from oodbench.store.columns import QUALITY
from oodbench.study.declarations import TableSpec
from oodbench.study.grid import NONE
from oodbench.study.study import GROUPS

RUN = ["id", "seed"]
LEAST_SETS = 8  # ID sets, from which on mean ranks over them are compared (Demsar 2006, JMLR 7)


class Frame(NamedTuple):
    """What a figure draws, and what stands under it."""

    frame: pd.DataFrame
    caption: str


def heat(rows: pd.DataFrame, floor: float | None) -> Frame | None:
    """Return the mean AUROC of each training and distance on each OOD set, with deviation and n, in per cent."""
    rows = rows[rows["distance"] != NONE]
    if not (rows["status"] == "ok").any():
        return None
    places = ["family", "ood", "training"]
    table = declared(rows, "heat", TableSpec(rows=tuple(places), columns=("distance",)), floor)
    parts = {"mean": table.mean, "deviation": table.std, "n": table.n}
    long = {name: pd.Series(part.rename_axis(columns="distance").stack()) for name, part in parts.items()}
    found = pd.DataFrame(long).dropna(subset="mean").reset_index()
    groups = rows.drop_duplicates(["family", "ood"])[["family", "ood", "group"]]
    caption = table.caption.replace(MARKED, "").replace(BEST, "").strip()
    return Frame(found.merge(groups, "left", ["family", "ood"]), caption)


def quality(rows: pd.DataFrame, clusters: pd.DataFrame | None) -> Frame | None:
    """Return near- and far-OOD AUROC of each cell, in per cent, beside the measures of its clusters of ID test."""
    done = rows[(rows["status"] == "ok") & (rows["distance"] != NONE)]
    if clusters is None or done.empty:
        return None
    threshold, level = commonest_threshold(done)
    cells = detection(done[(done["threshold"] == threshold) & (done["level"] == level)])
    groups = [group for group in GROUPS if group in cells]
    measured = clusters[clusters["split"] == "test"][[*CELL[:1], *CELL[2:4], *QUALITY]]
    found = cells.merge(measured, on=[*CELL[:1], *CELL[2:4]])
    if found.empty or not groups:
        return None
    found = found.melt([*CELL, *QUALITY], groups, "group", "auroc").dropna(subset="auroc")
    said = f"A dot is a cell of one run, with threshold {threshold} at {level:g}; its measure is of ID test features."
    return Frame(found.assign(auroc=100 * found["auroc"]), said)


def course(followed: pd.DataFrame | None) -> Frame | None:
    """Return the mean AUROC over runs, with its interval, by training, distance, group and epoch, in per cent."""
    if followed is None or (followed["error"] != "").all():
        return None
    done = followed[followed["error"] == ""]
    by = ["training", "distance", "group", "epoch"]
    of_runs = done.groupby([*by, *RUN], sort=False)["auroc"].agg(["mean", "size"]).reset_index()
    whole = of_runs.groupby([*RUN, "group"])["size"].transform("max") == of_runs["size"]
    of_runs["mean"] = (100 * of_runs["mean"]).where(whole)
    over = of_runs.groupby(by, sort=False)["mean"]
    found = pd.DataFrame({"mean": over.mean(), "deviation": over.std(ddof=1), "n": over.count()}).dropna(subset="mean")
    found["low"], found["high"] = interval(found["mean"], found["deviation"], found["n"])
    said = "Mean over runs of the unweighted mean over a group's sets; epoch 0 is before the first step."
    return Frame(found.reset_index(), said)
