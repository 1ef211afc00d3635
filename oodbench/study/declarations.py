"""A claim of a study: a comparison of groups of rows, as data, and what is wrong with one. It knows no rows.

Three kinds, told apart by their keys:

- `left`, `right`: what the rows of `left` have over those of `right`;
- the same with `at`, `than`: how much more they have over them `at` some rows `than` at others;
- `among`: which group is the best among those of some labels, or, where `winner` is not given, that none is.

They are about the numbers of rows, or, with `table: quality`, about those of clusters that `oodbench quality` measures;
these are of ID test items unless the claim says which `split`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from oodbench.errors import suggestion
from oodbench.store.columns import FLOATS, HIGHER_IS_BETTER, INTEGERS, LABELS, LOWER_IS_BETTER, QUALITY, QUALITY_LABELS

PAIRED = ("id", "seed")
RUN = ("id", "encoder", "seed")  # what two sides are paired by
SETS = ("ood", "group")  # labels of OOD sets rather than of detectors
Labels = dict[str, Any]  # column -> a label, or several of which each will do
Margin = Annotated[float, Interval(ge=0, le=1e9)]
Trail = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ClaimSpec:
    """A statement about left minus right, in the unit of `value`: points of per cent for AUROC and the like."""

    says: str
    source: str = ""
    table: Literal["rows", "quality"] = "rows"
    value: str = "auroc"
    of: Labels = field(default_factory=dict)  # the rows that it is about
    left: Labels = field(default_factory=dict)
    right: Labels = field(default_factory=dict)
    at: Labels = field(default_factory=dict)
    than: Labels = field(default_factory=dict)
    among: tuple[str, ...] = ()  # labels whose combinations are the candidates
    winner: Labels = field(default_factory=dict)  # the candidate that is ahead of all others; none: nobody is
    pick: Literal["mean", "best"] = "mean"  # of several settings of a side in a run; best: on test, and marked so
    relation: Literal["above", "at_least", "near"] = "above"  # > margin, >= -margin, from -margin to margin
    margin: Margin = 0.0
    over: tuple[str, ...] = ()  # labels for each of whose combinations there is an answer
    where: Literal["all", "most", "mean"] = "all"  # of `over` it is true; mean: of the mean over them

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that what it is about has."""
        return LABELS if self.table == "rows" else QUALITY_LABELS

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers that what it is about has."""
        return (*FLOATS, *INTEGERS) if self.table == "rows" else QUALITY

    @property
    def there(self) -> str:
        return "rows have" if self.table == "rows" else "clusters have"

    @property
    def run(self) -> list[str]:
        """The labels by which sides are paired: those of a run that the sides do not differ in."""
        apart = {*self.left, *self.right, *self.at, *self.than, *self.among}
        return [label for label in RUN if label not in apart]


def problems(claim: ClaimSpec) -> Iterator[tuple[Trail, str]]:
    """Yield what is wrong with a claim, and at which key."""
    if not claim.says.strip():
        yield ("says",), "is empty"
    if claim.value not in claim.numbers:
        other = "" if claim.value not in QUALITY else "; with `table: quality` there is one"
        yield ("value",), f"{claim.there} no number '{claim.value}'{other}{suggestion(claim.value, claim.numbers)}"
    for trail, labels in _filters(claim).items():
        yield from _of_labels(claim, trail, labels)
    for key, columns in (("over", claim.over), ("among", claim.among)):
        yield from _of_columns(claim, (key,), columns)
    if claim.relation == "near" and not claim.margin:
        yield ("relation",), "near what? give a margin above 0"
    if claim.where != "all" and not claim.over:
        yield ("where",), f"{claim.where} of what? say with the key 'over'"
    yield from _of_best(claim) if claim.among else _of_sides(claim)
    known = (*HIGHER_IS_BETTER, *LOWER_IS_BETTER)
    if claim.value not in known and (claim.among or claim.pick == "best"):
        yield ("value",), f"more of '{claim.value}' is neither better nor worse{suggestion(claim.value, known)}"


def _filters(claim: ClaimSpec) -> dict[Trail, Labels]:
    return {
        ("of",): claim.of,
        ("left",): claim.left,
        ("right",): claim.right,
        ("at",): claim.at,
        ("than",): claim.than,
        ("winner",): claim.winner,
    }


def _of_labels(claim: ClaimSpec, trail: Trail, labels: Labels) -> Iterator[tuple[Trail, str]]:
    for column, wanted in labels.items():
        if column not in claim.labels:
            yield (*trail, column), f"{claim.there} no label '{column}'{suggestion(column, claim.labels)}"
        several = wanted if isinstance(wanted, list) else [wanted]
        if not several or any(each is None or isinstance(each, list | dict) for each in several):
            yield (*trail, column), f"is {wanted!r}, wanted a label as rows show it, or a list of them"


def _of_columns(claim: ClaimSpec, trail: Trail, columns: tuple[str, ...]) -> Iterator[tuple[Trail, str]]:
    for column in columns:
        if column not in claim.labels:
            yield trail, f"{claim.there} no label '{column}'{suggestion(column, claim.labels)}"
    if len(set(columns)) < len(columns):
        yield trail, f"is {list(columns)}, wanted are labels, each once"


def _of_sides(claim: ClaimSpec) -> Iterator[tuple[Trail, str]]:
    """Yield what is wrong with a comparison of two sides."""
    for key, side in (("left", claim.left), ("right", claim.right)):
        if not side:
            yield (key,), f"'{key}' is missing; wanted are left and right, or among"
    if claim.winner:
        yield ("winner",), "among whom? say with the key 'among'"
    if bool(claim.at) != bool(claim.than):
        yield ("at" if claim.at else "than",), "at and than go together: more at some rows than at others"
    for (key, *_), labels in _filters(claim).items():
        for column in labels if key != "of" else ():
            if column in PAIRED:
                yield (key, column), f"rows are compared within each {column}; say which with the key 'of'"
            if column in claim.over:
                yield ("over",), f"'{column}' is what {key} tells apart"


def _of_best(claim: ClaimSpec) -> Iterator[tuple[Trail, str]]:
    """Yield what is wrong with a claim about the best of several groups."""
    for key, given in (("left", claim.left), ("right", claim.right), ("at", claim.at), ("than", claim.than)):
        if given:
            yield (key,), "has no part in a claim with 'among', which compares each group to each other"
    for column in claim.among:
        if column in (*PAIRED, *SETS, *claim.over):
            yield ("among",), f"'{column}' is no candidate: candidates are compared within each"
    if claim.winner and set(claim.winner) != set(claim.among):
        yield ("winner",), f"names {', '.join(claim.winner)}; wanted is a label for each of {', '.join(claim.among)}"
    for column, wanted in claim.winner.items():
        if isinstance(wanted, list):
            yield ("winner", column), "is a list, wanted one label"
    if claim.relation == "near":
        yield ("relation",), "who is near the others is not ahead; wanted is above or at_least"
