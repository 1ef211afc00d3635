"""The columns of rows, and of what is measured of clusters: unit, direction, meaning, and what makes them."""

from __future__ import annotations

from typing import NamedTuple

from oodbench.store import columns

HIGHER, LOWER = "higher is better", "lower is better"
SOURCES = (
    (columns.QUALITY, "`oodbench quality`, oodbench/scoring/cluster_quality.py"),
    (columns.VERDICT, "`oodbench verdict`, oodbench/report/claims/bootstrap.py, docs/metrics.md"),
    (columns.COMPAT, "oodbench/scoring/other_codebases.py, docs/metrics.md"),
    (columns.INTERVALS, "oodbench/scoring/intervals.py, docs/metrics.md"),
    ((*columns.METRICS, *columns.RECALLS, *columns.CHOSEN_BY), "oodbench/scoring/metrics.py, docs/metrics.md"),
    (columns.ACCURACIES, "oodbench/training/probes.py"),
)


class ColumnFacts(NamedTuple):
    """A column."""

    name: str
    unit: str
    direction: str  # empty where neither is better
    meaning: str
    source: str  # where it is made, and documented


def column(name: str) -> ColumnFacts | None:
    """Return what is known of a column, or None where there is none."""
    if name not in columns.MEANING:
        return None
    better = {**dict.fromkeys(columns.HIGHER_IS_BETTER, HIGHER), **dict.fromkeys(columns.LOWER_IS_BETTER, LOWER)}
    return ColumnFacts(name, _unit(name), better.get(name, ""), columns.MEANING[name], _source(name))


def _unit(name: str) -> str:
    if name in columns.SHARES:
        return "a share from 0 to 1, which tables show in per cent"
    if name.endswith("_seconds"):
        return "seconds"
    if name in columns.INTEGERS:
        return "a whole number"
    return "a number" if name in (*columns.FLOATS, *columns.QUALITY, *columns.VERDICT[1:3]) else "text"


def _source(name: str) -> str:
    return next((source for names, source in SOURCES if name in names), "oodbench/execution/runner.py")
