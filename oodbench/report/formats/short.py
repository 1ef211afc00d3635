"""Short names of plugins and columns, for a table in one column of a page, and what they stand for.

A name of up to eight letters stays. Of a longer one, parts parted by `_` are initials, and one part is cut:
cross_entropy is CE, mahalanobis is mahal. Parameters stand where names differ in them, as values alone. Names that
would be one stay long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from oodbench.report.formats.sheet import Sheet
from oodbench.report.unlearned import MARK
from oodbench.store.columns import FLOATS
from oodbench.study.grid import NONE

LONGEST = 8  # letters of a name that stays
CUT = 5
PARTS = re.compile(r"[ ,()]+")
WORDS = re.compile(r" (?![^(]*\))")  # of a title; parameters are no words of it


def shortened(sheet: Sheet, kept: Iterable[str] = ()) -> Sheet:
    """Return a table with short names, `kept` ones apart, without a constant n; below it is said what they stand for.

    The last word that all titles share, as of `near AUROC`, is said there, too.
    """
    text = sheet.text.copy()
    if "n" in text and text["n"].nunique() == 1:
        text = text.drop(columns="n")
    titles = [str(title) for title in text.columns[sheet.labels :]]
    labels = [cell.removesuffix(f" {MARK}") for i in range(sheet.labels) for cell in text.iloc[:, i]]
    last = {title.rpartition(" ")[2] for title in titles} if all(" " in title for title in titles) else set()
    shared = f" {last.pop()}" if len(last) == 1 else ""
    words = [word for title in titles for word in WORDS.split(title.removesuffix(shared))]
    stay = {*FLOATS, *kept, NONE}
    names = short_names(each for each in dict.fromkeys((*labels, *words)) if each not in stay)
    for i in range(sheet.labels):
        parts = (cell.partition(f" {MARK}") for cell in text.iloc[:, i])
        text.isetitem(i, [names.get(label, label) + "".join(rest) for label, *rest in parts])
    new = {
        title: " ".join(names.get(word, word) for word in WORDS.split(title.removesuffix(shared))) for title in titles
    }
    said = ", ".join(f"{name} is {long}" for long, name in names.items() if name != long)
    legend = [f"Numbers are{shared}."] * bool(shared) + [f"Short names: {said}."] * bool(said)
    marks = (
        None if sheet.marks is None else sheet.marks[[each for each in sheet.marks if each in new]].rename(columns=new)
    )
    below = [" ".join([*sheet.below[:1], *legend]), *sheet.below[1:]]
    return replace(sheet, text=text.rename(columns=new), marks=marks, below=below, short=True)


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return a short name for each of several, no two alike."""
    names = list(names)
    heads = Counter(_head(name) for name in names)
    groups = {head: [PARTS.split(name)[1:] for name in names if _head(name) == head] for head in heads}
    found = {name: _short(name, groups[_head(name)]) for name in names}
    counts = Counter(found.values())
    taken = {*names}
    return {
        name: short if counts[short] == 1 and (short == name or short not in taken) else name
        for name, short in found.items()
    }


def _head(name: str) -> str:
    return _cut(PARTS.split(name)[0])


def _short(name: str, group: list[list[str]]) -> str:
    """Return a name's head, with those of its parts that not all of a group have."""
    if len(name) <= LONGEST:
        return name
    parts = [part for part in PARTS.split(name)[1:] if part and not all(part in other for other in group)]
    values = [part if len(part) <= LONGEST else _cut(part.rpartition("=")[2]) for part in parts]
    if not values:
        return _head(name)
    return f"{_head(name)}({', '.join(values)})" if "(" in name else " ".join([_head(name), *values])


def _cut(word: str) -> str:
    if len(word) <= LONGEST:
        return word
    parts = [part for part in word.split("_") if part]
    return "".join(part[0].upper() for part in parts) if len(parts) > 1 else f"{word[:CUT]}."
