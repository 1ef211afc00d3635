"""What is said of many rows or cells, gathered: a line for all that say the same of other labels or numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain

import pandas as pd

from oodbench.report.tables import counted
from oodbench.store.columns import STAND_IN
from oodbench.study.grid import NONE

NAMED = 4  # labels that a line names
PART = re.compile(r"[\w/.-]+\([^()]*\)|\S+")  # a label with its parameters, or a word
NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")
LABELLED = ("training", "ood", "clustering", "distance", "posthoc", "threshold")  # that a warning may name


def reasons(left_out: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return why cells are left out, and how many; reasons that differ in one label are one that names them."""
    parts = {reason: PART.findall(reason) for reason in left_out}
    found, rest = [], dict(left_out)
    while rest:
        frames = Counter(frame for reason in rest for frame in _frames(parts[reason]))
        frame, _ = max(frames.items(), key=lambda each: each[1])
        members = [reason for reason in rest if frame in _frames(parts[reason])]
        cells = sum(rest.pop(reason) for reason in members)
        words = [parts[reason][frame.index("…")].rstrip(",") for reason in members]
        found.append((members[0] if len(members) == 1 else f"{' '.join(frame)}: {_names(words)}", cells))
    return sorted(found, key=lambda each: -each[1])


def _frames(parts: list[str]) -> list[tuple[str, ...]]:
    """Return a reason with each of its words left open in turn."""
    return [(*parts[:i], "…", *parts[i + 1 :]) for i in range(len(parts))]


def warnings(rows: pd.DataFrame) -> pd.Series[str]:
    """Return each warning of rows, under the place of its row."""
    said = rows.loc[rows["warnings"] != "", "warnings"].str.split("; ").explode()
    return said[said != STAND_IN]


def warned(rows: pd.DataFrame) -> list[str]:
    """Return what rows warn of, most cells first: how many cells, which, one warning, and how many are like it.

    Warnings are alike that differ in numbers and in labels of their rows.
    """
    rows = rows.reset_index(drop=True)
    said = warnings(rows)
    firsts = said[~said.duplicated()]
    labels = rows.loc[firsts.index, [*LABELLED]].itertuples(index=False, name=None)
    kinds = {text: _kind(text, each) for text, each in zip(firsts, labels, strict=True)}
    found = []
    for _, of in said.groupby(said.map(kinds), sort=False):
        texts, members = of.value_counts(), rows.loc[of.index.unique()]
        alike = f", and {counted(len(texts) - 1, 'warning')} like it" if len(texts) > 1 else ""
        cells = members["cell"].nunique()
        found.append((cells, f"{counted(cells, 'cell')}{_which(members, rows)}: {texts.index[0]}{alike}"))
    return [line for _, line in sorted(found, key=lambda each: -each[0])]


def _kind(text: str, labels: Iterable[str]) -> str:
    """Return a warning without its numbers and the labels of its row; that of a baseline may say on what."""
    there = {str(label).partition(" on ")[0] for label in labels} - {NONE, ""}
    for label in sorted(there, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(label)}(?!\w)", "…", text)
    return NUMBER.sub("#", text)


def _which(members: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return the detectors, trainings, thresholds and OOD sets of rows, in brackets, where these are not all."""
    scorers = [of["distance"].where(of["distance"] != NONE, of["posthoc"]) for of in (members, rows)]
    axes = [scorers, *([of[name] for of in (members, rows)] for name in ("training", "threshold", "ood"))]
    parts = [_names(some.unique()) for some, every in axes if some.nunique() < every.nunique()]
    return f" ({'; '.join(parts)})" if parts else ""


def _names(labels: Iterable[str]) -> str:
    names = list(dict.fromkeys(labels))
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join(chain(names[:NAMED], more))
