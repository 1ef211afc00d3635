"""The rows that words name: the labels of a table's line, whole, by a plugin's name, or by a part of one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from oodbench.errors import UserError, suggestion
from oodbench.store.columns import LABELS, SETS

if TYPE_CHECKING:
    import pandas as pd

NEAREST = 3  # values of an axis that a message offers
ONLY = "--only"
LEAST = 4  # signs of a hash's beginning
# From the closest way in which a word may be meant to the widest; the first one that any row fits counts.
WAYS: tuple[Callable[[str], set[str]], ...] = (
    lambda label: {label},
    lambda label: {label.partition("(")[0].strip()},
    lambda label: set(re.split(r"[\s(),=·/]+", label)),
)


def rows(table: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """Return the rows that fit every word: a label, AXIS=LABEL, or how a cell's hash begins.

    Raises UserError with the nearest labels where a word fits no row, or where no row fits all.
    """
    found = table
    for word in words:
        fits = _fitting(table, word)
        if fits is None:
            raise UserError(f"nothing is called '{word}' in these rows{_nearest(table, word)}")
        left = found[fits.reindex(found.index)]
        if left.empty:
            before = " ".join(words[: words.index(word)])
            raise UserError(f"no row of {before} is of '{word}'{_of(found, word, table)}")
        found = left
    return found


def chosen(words: Sequence[str], labels: Mapping[str, Iterable[object]]) -> dict[str, set[str]]:
    """Return which labels of each axis AXIS=LABEL words name, of all that there are; of one axis any.

    Raises UserError with the nearest axis or label where a word names none.
    """
    found: dict[str, set[str]] = {}
    for word in words:
        axis, is_axis, value = word.partition("=")
        if not is_axis or axis not in labels:
            raise UserError(f"{ONLY} {word}: wanted is AXIS=LABEL{suggestion(axis, labels)}")
        there = [str(each) for each in labels[axis]]
        ways = ({each for each in there if value.lower() in way(each.lower())} for way in WAYS)
        fits = next(filter(None, ways), None)
        if fits is None:
            raise UserError(f"{ONLY} {word}: nothing has the {axis} '{value}'{suggestion(value, there)}")
        found.setdefault(axis, set()).update(fits)
    return found


def only(table: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """Return the rows that fit AXIS=LABEL words, all axes of them; `attrs` says how many of how many they are.

    Raises UserError as `chosen` does, and where no row fits all.
    """
    labels = {name: table[name].dropna().unique() for name in LABELS}
    wanted = chosen(words, labels)
    fits = table[list(wanted)].astype(str).apply(lambda column: column.isin(wanted[column.name]))
    found: pd.DataFrame = table[fits.all(axis=1)].reset_index(drop=True)
    if found.empty:
        raise UserError(f"{ONLY} {' '.join(words)}: no row fits all of them")
    sets = {
        id_: {
            ood: group
            for ood, group in of.items()
            if ood in wanted.get("ood", {ood}) and group in wanted.get("group", {group})
        }
        for id_, of in table.attrs.get("sets", {}).items()
    }
    found.attrs = table.attrs | {"sets": sets, "only": f"{len(found)} of {len(table)} rows, {ONLY} {' '.join(words)}"}
    return found


def varying(found: pd.DataFrame) -> list[str]:
    """Return the labels in which cells differ."""
    cells = found.drop_duplicates("cell")
    return [name for name in LABELS if name not in SETS and cells[name].astype(str).nunique() > 1]


def _fitting(table: pd.DataFrame, word: str) -> pd.Series[bool] | None:
    """Return which rows a word fits, in the closest way in which it fits any; None where it fits none."""
    axis, is_axis, value = word.partition("=")
    axes, wanted = ([axis], value) if is_axis and axis in LABELS else (list(LABELS), word)
    for way in WAYS:
        masks = [table[name].map(_fits(way, wanted, table[name])) for name in axes]
        fits = sum(masks[1:], start=masks[0]).astype(bool)  # true where any of them is
        if fits.any():
            return fits
    starts = table["cell"].str.startswith(word)
    return starts if len(word) >= LEAST and starts.any() else None


def _fits(way: Callable[[str], set[str]], wanted: str, column: pd.Series[str]) -> dict[object, bool]:
    return {each: wanted.lower() in way(str(each).lower()) for each in column.unique()}


def _nearest(table: pd.DataFrame, word: str) -> str:
    """Return the labels nearest to a word, by axis, as the end of a message; without any, a few of each axis."""
    axis, is_axis, value = word.partition("=")
    axes, wanted = ([axis], value) if is_axis and axis in LABELS else (list(LABELS), word)
    near, few = [], []
    for name in axes:
        labels = [str(each) for each in table[name].unique() if str(each) not in ("", "–", "<NA>", "nan")]
        short = {each.partition("(")[0].strip().lower(): each.partition("(")[0].strip() for each in labels}
        short |= {each.lower(): each for each in labels}
        found = difflib.get_close_matches(wanted.lower(), short, n=NEAREST)
        near += [f"{name} {', '.join(short[each] for each in found)}"] if found else []
        few += (
            [f"{name} {', '.join(labels[:NEAREST])}{', …' if len(labels) > NEAREST else ''}"] if len(labels) > 1 else []
        )
    return f"; near are: {'; '.join(near)}" if near else f"; there are: {'; '.join(few)}"


def _of(found: pd.DataFrame, word: str, table: pd.DataFrame) -> str:
    """Return what those rows have in the place of a word that others are called by."""
    fits = _fitting(table, word)
    others = table if fits is None else table[fits]
    axes = [name for name in LABELS if not set(others[name].astype(str)) & set(found[name].astype(str))]
    said = [f"{name} {', '.join(found[name].astype(str).unique()[:NEAREST])}" for name in axes]
    return f"; they are of: {'; '.join(said)}" if said else ""
