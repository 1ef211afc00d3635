"""What a study declares: tables, choices, curves, claims, as data, and what is wrong with each. It knows no rows.

A claim compares groups of rows. Three kinds, told apart by their keys:

- `left`, `right`: what the rows of `left` have over those of `right`;
- the same with `at`, `than`: how much more they have over them `at` some rows `than` at others;
- `among`: which group is the best among those of some labels, or, where `winner` is not given, that none is.

They are about the numbers of rows, or, with `table: quality`, about those of clusters that `oodbench quality` measures;
these are of ID test items unless the claim says which `split`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeVar

from annotated_types import Interval

from oodbench.errors import suggestion
from oodbench.store.columns import (
    FLOATS,
    HIGHER_IS_BETTER,
    INTEGERS,
    LABELS,
    LOWER_IS_BETTER,
    QUALITY,
    QUALITY_LABELS,
    SETS,
    SHARES,
)
from oodbench.study.document import Trail
from oodbench.study.values import Values

NAME = re.compile(r"\w[\w .+-]{,59}")  # of studies and tables, which become files
MADE = ("leaderboard", "best", "thresholds", "selection")  # tables that every study has, or every one that selects
PUBLISHED = "targets"  # under `against:`, the published numbers that come with the package
LAST = "last"  # under `keep:`, the epoch that a training ends with
SELECTABLE = ("space", "clustering", "distance", "posthoc")  # axes whose settings rank items in other ways
POINTS = 0.5  # of per cent, which a claim without a margin is about
PAIRED = ("id", "seed")
RUN = ("id", "encoder", "seed")  # what two sides are paired by
SIDES = ("left", "right", "at", "than")
NUMBERS = (*FLOATS, *INTEGERS)
Labels = dict[str, Any]  # column -> a label, or several of which each will do
Margin = Annotated[float, Interval(ge=0, le=1e9)]
Problems = Iterator[tuple[Trail, str]]  # what is wrong with a declaration, and at which key


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table that a study declares: one number for each combination of row and column, or a table of every study."""

    rows: tuple[str, ...] = ()  # columns of the row file: training, distance, ...; none: it is the table of its name
    columns: tuple[str, ...] | None = None  # labels whose combinations are the columns (ood), or, without rows, titles
    value: str | tuple[str, ...] = "auroc"  # the number of each cell, or several
    of: Labels = field(default_factory=dict)  # keep rows where each column has this label, or one of these
    caption: str = ""  # stands below the table
    against: str = ""  # published numbers that its rows are held against: a file or folder, relative to the study
    short: bool = False  # short names of plugins and sets, for one column of a page of two; CSV has them in full

    @property
    def across(self) -> tuple[str, ...]:
        """The labels whose combinations are the columns."""
        return ("ood",) if self.columns is None else self.columns

    @property
    def values(self) -> tuple[str, ...]:
        return (self.value,) if isinstance(self.value, str) else self.value

    def problems(self) -> Problems:
        yield from _unknown(("of",), self.of, LABELS, "rows have no label")
        yield from _empty(self.of)
        if not self.rows:
            yield from self._of_view()
            return
        if not self.values:
            yield ("value",), "is empty"
        for key, columns in (("rows", self.rows), ("columns", self.across)):
            yield from _unknown((key,), columns, LABELS, "rows have no label")
        yield from _unknown(("value",), self.values, NUMBERS, "rows have no number")
        layout = (*self.rows, *self.across)
        if len(set(layout)) < len(layout):
            yield (), f"a label stands twice in rows and columns: {', '.join(layout)}"

    def _of_view(self) -> Problems:
        """Yield what has no part in a table that every study has."""
        if self.values != ("auroc",):
            yield ("value",), "has no part in a table without rows; say with the key 'columns' what it shows"
        if self.against:
            yield ("against",), "has no part in a table without rows"
        if len({*self.across}) < len(self.across):
            yield ("columns",), "names a column twice"


@dataclass(frozen=True, kw_only=True)
class Select:
    """Axes whose settings are chosen, not compared: by ID reference against validation OOD, never by a test set."""

    over: tuple[str, ...]  # the axes, of space, clustering, distance and posthoc
    by: Literal["val_auroc", "val_fpr95_id", "val_fpr95_ood"] = "val_auroc"  # the validation number that chooses

    def problems(self) -> Problems:
        yield from _unknown(("over",), self.over, SELECTABLE, "there is nothing to choose of")
        if not self.over or len(set(self.over)) < len(self.over):
            yield ("over",), f"is {list(self.over)}, wanted are axes, each once"


@dataclass(frozen=True, kw_only=True)
class CellsSpec:
    """Which cells `curve` follows, or `scores` keeps; nothing said: one for each distance."""

    of: Labels = field(default_factory=dict)  # keep cells where each label is this, or one of these

    def problems(self) -> Problems:
        known = [label for label in LABELS if label not in SETS]
        for column in self.of:
            yield from _unknown(("of", column), [column], known, "cells have no label")
        yield from _empty(self.of)


@dataclass(frozen=True, kw_only=True)
class ScoresSpec(CellsSpec):
    """Which cells `scores` keeps the scores of."""

    claims: bool = False  # and those that claims compare by AUROC: verdicts then know the error of test images


@dataclass(frozen=True, kw_only=True)
class ClaimSpec:
    """A statement about left minus right, in the unit of `value`: points of per cent for AUROC and the like."""

    says: str  # the claim in words
    source: str = ""  # who says so
    table: Literal["rows", "quality"] = "rows"  # what it is about: rows, or the quality of clusters
    value: str = "auroc"  # the number that is compared
    of: Labels = field(default_factory=dict)  # the rows that it is about
    left: Labels = field(default_factory=dict)  # rows of the one side
    right: Labels = field(default_factory=dict)  # rows of the other side
    # rows at which left is further ahead of right than at those of `than`; what counts is the difference of both leads
    at: Labels = field(default_factory=dict)
    than: Labels = field(default_factory=dict)  # rows at which left's lead over right is the smaller one; with `at`
    among: tuple[str, ...] = ()  # labels whose combinations are the candidates
    winner: Labels = field(default_factory=dict)  # the candidate that is ahead of all others; none: nobody is
    pick: Literal["mean", "best"] = "mean"  # of several settings of a side in a run; best: on test, and marked so
    relation: Literal["above", "at_least", "near"] = "above"  # > margin, >= -margin, from -margin to margin
    margin: Margin | None = None  # the least that matters; none: 0.5 points of per cent, 0 of what is no share
    over: tuple[str, ...] = ()  # labels for each of whose combinations there is an answer
    where: Literal["all", "most", "mean"] = "all"  # of `over` it is true; mean: of the mean over them
    ids: Literal["like these", "these"] = "like these"  # what the claim is about, where ID sets are several

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that what it is about has."""
        return LABELS if self.table == "rows" else QUALITY_LABELS

    @property
    def run(self) -> list[str]:
        """The labels by which sides are paired: those of a run that the sides do not differ in."""
        apart = {*self.left, *self.right, *self.at, *self.than, *self.among}
        return [label for label in RUN if label not in apart]

    @property
    def by_image(self) -> bool:
        """Whether its numbers are means over images, of which the error is known where scores are kept."""
        return self.table == "rows" and self.value == "auroc" and self.pick == "mean"

    @property
    def compared(self) -> list[tuple[Labels, ...]]:
        """What rows that it compares fit: all labels of one of these."""
        places = (self.at, self.than) if self.at else ({},)
        sides = ({},) if self.among else (self.left, self.right)
        return [(self.of, place, side) for place in places for side in sides]

    @property
    def least(self) -> float:
        """The margin; where none is given, POINTS of per cent, or 0 of what is no share."""
        return (POINTS if self.value in SHARES else 0.0) if self.margin is None else self.margin

    def problems(self) -> Problems:
        there, numbers = ("rows have", NUMBERS) if self.table == "rows" else ("clusters have", QUALITY)
        if not self.says.strip():
            yield ("says",), "is empty"
        elsewhere = "; with `table: quality` there is one" if self.value in QUALITY else ""
        if self.value not in numbers:
            yield ("value",), f"{there} no number '{self.value}'{elsewhere}{suggestion(self.value, numbers)}"
        for key, labels in self._filters("of", *SIDES, "winner"):
            for column, wanted in labels.items():
                yield from _unknown((key, column), [column], self.labels, f"{there} no label")
                several = wanted if isinstance(wanted, list) else [wanted]
                if not several or any(each is None or isinstance(each, list | dict) for each in several):
                    yield (key, column), f"is {wanted!r}, wanted a label as rows show it, or a list of them"
        for key, columns in (("over", self.over), ("among", self.among)):
            yield from _unknown((key,), columns, self.labels, f"{there} no label")
            if len(set(columns)) < len(columns):
                yield (key,), f"is {list(columns)}, wanted are labels, each once"
        if self.relation == "near" and not self.margin:
            yield ("relation",), "near what? give a margin above 0"
        if self.where != "all" and not self.over:
            yield ("where",), f"{self.where} of what? say with the key 'over'"
        yield from self._of_best() if self.among else self._of_sides()
        known = (*HIGHER_IS_BETTER, *LOWER_IS_BETTER)
        if self.value not in known and (self.among or self.pick == "best"):
            yield ("value",), f"more of '{self.value}' is neither better nor worse{suggestion(self.value, known)}"

    def _filters(self, *keys: str) -> Iterator[tuple[str, Labels]]:
        return ((key, getattr(self, key)) for key in keys)

    def _of_sides(self) -> Problems:
        """Yield what is wrong with a comparison of two sides."""
        for key, side in self._filters("left", "right"):
            if not side:
                yield (key,), f"'{key}' is missing; wanted are left and right, or among"
        if self.winner:
            yield ("winner",), "among whom? say with the key 'among'"
        if bool(self.at) != bool(self.than):
            yield ("at" if self.at else "than",), "at and than go together: more at some rows than at others"
        for one, other in (SIDES[:2], SIDES[2:]):
            sides = [_plain(self.of | getattr(self, key)) for key in (one, other)]
            if getattr(self, other) and sides[0] == sides[1]:
                yield (other,), f"names the rows that '{one}' names: they cannot differ"
        for key, labels in self._filters(*SIDES):
            for column in labels:
                if column in PAIRED:
                    yield (key, column), f"rows are compared within each {column}; say which with the key 'of'"
                if column in self.over:
                    yield ("over",), f"'{column}' is what {key} tells apart"

    def _of_best(self) -> Problems:
        """Yield what is wrong with a claim about the best of several groups."""
        for key, given in self._filters(*SIDES):
            if given:
                yield (key,), "has no part in a claim with 'among', which compares each group to each other"
        for column in self.among:
            if column in (*PAIRED, *SETS, *self.over):
                yield ("among",), f"'{column}' is no candidate: candidates are compared within each"
        if self.winner and set(self.winner) != set(self.among):
            yield ("winner",), f"names {', '.join(self.winner)}; wanted is a label for each of {', '.join(self.among)}"
        for column, wanted in self.winner.items():
            if isinstance(wanted, list):
                yield ("winner", column), "is a list, wanted one label"
        if self.relation == "near":
            yield ("relation",), "who is near the others is not ahead; wanted is above or at_least"


class Declaration(Protocol):
    def problems(self) -> Problems: ...


S = TypeVar("S", bound=Declaration)


def _unknown(trail: Trail, names: Iterable[str], known: Sequence[str], said: str) -> Problems:
    return ((trail, f"{said} '{name}'{suggestion(name, known)}") for name in names if name not in known)


def _plain(of: Labels) -> dict[str, set[str]]:
    """Return labels in one form: a list of one label is that label, and lists have no order."""
    return {column: {*map(str, wanted if isinstance(wanted, list) else [wanted])} for column, wanted in of.items()}


def _empty(of: Labels) -> Problems:
    return ((("of", column), "is empty") for column, wanted in of.items() if wanted is None or wanted == [])


def tables(values: Values) -> dict[str, TableSpec]:
    raw = values.mapping(("tables",))
    for name in raw:
        if not NAME.fullmatch(name):
            values.fail(("tables", name), f"{name!r} cannot name a file; 60 letters, digits, blanks and . + - _ can")
    found = {name: _declared(values, TableSpec, each, ("tables", name)) for name, each in raw.items()}
    for name, spec in found.items():
        if not spec.rows and name not in MADE:
            said = f"has no rows; without them it is a table of every study{suggestion(name, MADE)}"
            values.fail(("tables", name), said)
        if not spec.rows and name == "selection" and "select" not in values.top:
            values.fail(("tables", name), "has no rows, and is no table of this study without the key 'select'")
    files: dict[str, str] = {}
    for name, spec in found.items():
        for file in (name, f"{name}-against") if spec.against else (name,):
            if files.setdefault(file.lower(), name) != name:
                values.fail(("tables", name), f"its files would be those of the table '{files[file.lower()]}'")
        if spec.against not in ("", PUBLISHED) and not (values.document.file.parent / spec.against).exists():
            said = f"there is no file or folder {spec.against}; '{PUBLISHED}' is the package's"
            values.fail(("tables", name, "against"), said)
    return found


def claims(values: Values) -> dict[str, ClaimSpec]:
    raw = values.mapping(("claims",))
    return {name: _declared(values, ClaimSpec, each, ("claims", name)) for name, each in raw.items()}


def select(values: Values) -> Select | None:
    return _declared(values, Select, values.top["select"], ("select",)) if "select" in values.top else None


def curve(values: Values) -> CellsSpec:
    return _declared(values, CellsSpec, values.top.get("curve"), ("curve",))


def scores(values: Values) -> ScoresSpec | None:
    return _declared(values, ScoresSpec, values.top["scores"], ("scores",)) if "scores" in values.top else None


def keep(values: Values) -> tuple[int, ...]:
    """Return the epochs after which weights are kept beside the last, ascending."""
    value = values.top.get("keep", [])
    if not isinstance(value, list):
        values.unlike(("keep",), value, f"a list of epochs; 0 is before the first step, '{LAST}' the end")
    for i, each in enumerate(value):
        if each != LAST and not (type(each) is int and each >= 0):
            values.fail(("keep", i), f"is {each!r}, wanted an epoch, from 0 = before the first step, or '{LAST}'")
    return tuple(sorted({each for each in value if each != LAST}))


def _declared(values: Values, cls: type[S], raw: Any, trail: Trail) -> S:
    found = values.one(cls, raw, trail)
    for key, said in found.problems():
        values.fail((*trail, *key), said)
    return found
