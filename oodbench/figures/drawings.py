"""What a page draws of a study beside its leaderboard: the frames of figures, or why there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from oodbench.errors import UserError
from oodbench.figures import data
from oodbench.report.claims.estimates import ERROR
from oodbench.report.correlation import CELL
from oodbench.report.tables import METHOD, boards, commonest_threshold, counted

BOARD = ["family", "protocol"]  # what a leaderboard is of


class PageFigure(NamedTuple):
    """A frame and what stands under its figure; or None, and a sentence on what a study would need for one."""

    frame: pd.DataFrame | None
    says: str


def drawings(
    rows: pd.DataFrame, clusters: pd.DataFrame | None, course: pd.DataFrame | None, study: str
) -> dict[str, PageFigure]:
    """Return what is drawn of a study's rows, of its measures of clusters and of its trainings' course."""
    threshold, level = commonest_threshold(rows)
    at = f"threshold {threshold}" + ("" if np.isnan(level) else f" at {level:g}")
    return {
        "heat": _drawing(
            lambda: _by_board(rows, data.heat).dropna(subset="auroc").merge(_groups(rows), "left"),
            f"AUROC in per cent, {at}, a mean over runs, spaces and clusterings.",
        ),
        "pareto": _drawing(
            lambda: _by_board(rows, data.pareto),
            "Seconds of fitting and scoring a cell, a mean over runs; training is not in them, and what cells share is "
            "in the first of them. A dot is a line of the leaderboard, as filtered there. On the line are those of the "
            "whole study that no other is as fast as and better, nor as good as and faster.",
        ),
        "quality": _drawing(
            lambda: _quality(data.quality(rows, clusters, study)),
            f"A dot is a cell of one run, {at}. Measures are of ID test features; single clusters are left out.",
        ),
        "course": _drawing(
            lambda: data.curve(course, study),
            "A mean over runs; epoch 0 is before the first step. The accuracy is that of a linear probe. Measures of "
            "clusters are of ID test features, times 100.",
        ),
        "ranks": _drawing(
            lambda: _ranks(rows),
            "Mean rank over ID data sets, the best is 1. Detectors whose ranks differ by less than Nemenyi's critical "
            "difference at 5 % are not told apart; grey is what is not told apart from the best.",
        ),
    }


def _drawing(make: Callable[[], pd.DataFrame], says: str) -> PageFigure:
    try:
        frame = make()
        return PageFigure(frame, " ".join(filter(None, (says, frame.attrs.get("says")))))
    except UserError as why:
        text = str(why)
        return PageFigure(None, f"{text[:1].upper()}{text[1:]}.")


def _by_board(rows: pd.DataFrame, make: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Return the frames of all leaderboards below each other."""
    parts = [part for part in boards(rows).values() if (part["status"] == "ok").any()]
    return pd.concat([make(part).assign(**part.iloc[0][BOARD]) for part in parts], ignore_index=True)


def _groups(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[[*BOARD, "ood", "group"]].drop_duplicates([*BOARD, "ood"])


def _quality(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each cell and group, with a column for each measure of ID test features."""
    by = [*CELL, "group", "auroc"]
    wide = found[found["split"] == "test"].pivot_table("value", by, "measure", sort=False)
    return wide.rename_axis(columns=None).reset_index()


def _ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rank of each detector, with its name and the critical difference beside it."""
    found = data.ranks(rows)
    labels = found[[name for name in METHOD if name in found and found[name].nunique() > 1]]
    name = labels.astype(str).agg(" · ".join, axis=1)
    shown = pd.DataFrame({"detector": name, "rank": found["rank"], "difference": found.attrs["difference"]})
    p, lacking = found.attrs["p"], found.attrs["lacking"]
    says = f"Over {found.attrs['blocks']} ID data sets Friedman's test has p = {p:.2g}"
    says += ": it tells no two of these detectors apart." if p > ERROR else "."
    says += f" {counted(lacking, 'detector')} without a number on each ID data set: no rank." * bool(lacking)
    shown.attrs["says"] = says
    return shown
