"""The leaderboards of a study as one table with intervals, which knows the rows behind each of its means."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from oodbench.figures.drawings import BOARD
from oodbench.report.tables import METHOD, Table, boards, distinct, leaderboards, named
from oodbench.study.grid import NONE

PARTS = ("mean", "deviation", "low", "high", "n", "unlearned", "mark")


class Leaderboard(NamedTuple):
    """Methods, the best near-OOD AUROC first in each ID set, and what is known of each of their numbers."""

    labels: pd.DataFrame  # (methods, axes) text
    numbers: dict[tuple[str, str], pd.DataFrame]  # tested on, metric -> PARTS by method, in per cent
    rows: list[list[int]]  # of each method, the labels of the rows behind it
    captions: list[str]


def board(rows: pd.DataFrame, floor: float | None = None) -> Leaderboard | None:
    """Return all leaderboards of rows as one, None where no row has numbers; `floor` is the study's."""
    parts = [part for part in boards(rows).values() if (part["status"] == "ok").any()]
    if not parts:
        return None
    tables = [leaderboards(part, floor)[0] for part in parts]
    labels = [_labels(table, part) for table, part in zip(tables, parts, strict=True)]
    columns = dict.fromkeys(column for table in tables for column in table.mean)
    titles: list[Any] = sorted(columns, key=lambda title: title[0] == "ID")  # what detects comes first
    numbers = {title: pd.concat([_numbers(each, title) for each in tables], ignore_index=True) for title in titles}
    behind = [each for table, part in zip(tables, parts, strict=True) for each in _behind(table, part)]
    captions = [" ".join(each.below) for each in tables]
    return Leaderboard(pd.concat(labels, ignore_index=True).fillna(NONE), numbers, behind, captions)


def _labels(table: Table, part: pd.DataFrame) -> pd.DataFrame:
    about = {name: part[name].iloc[0] for name in BOARD}
    return table.mean.index.to_frame(index=False).astype("str").assign(**about)


def _numbers(table: Table, title: tuple[str, str]) -> pd.DataFrame:
    """Return PARTS of one column of a leaderboard, nothing but missing numbers where it has no such column."""
    if title not in table.mean:
        return pd.DataFrame(float("nan"), range(len(table.mean)), PARTS)
    mean, std, n, half = (each[title].reset_index(drop=True) for each in (table.mean, table.std, table.n, table.half))
    low, high = (mean - half).clip(lower=0), (mean + half).clip(upper=100)
    lost = 0 if table.unlearned is None else table.unlearned[title].to_numpy()
    return pd.DataFrame(dict(zip(PARTS, (mean, std, low, high, n, lost, table.marks[title].to_numpy()), strict=True)))


def _behind(table: Table, part: pd.DataFrame) -> list[list[int]]:
    """Return the labels of the rows behind each line of a leaderboard."""
    by = [name for name in METHOD if name in table.mean.index.names]
    shown = named(distinct(part))
    found, places = shown.groupby(by, sort=False, dropna=False).indices, shown.index
    return [places[found[key if len(by) > 1 else key[0]]].tolist() for key in table.mean.index]
