"""Rows to tables: the leaderboard and the tables that a study declares. It knows rows, not how they came about."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodbench.errors import UserError, suggestion
from oodbench.report.claims.estimates import ERROR, LEAST, TWO_SIDED, Runs, estimate
from oodbench.report.formats import Sheet
from oodbench.report.formats.short import shortened
from oodbench.report.unlearned import MARK, NAME, explained, unlearned
from oodbench.report.unmade import UNMADE, numberless
from oodbench.store.artifacts import digest
from oodbench.store.columns import HIGHER_IS_BETTER, LOWER_IS_BETTER, RECALLS, SHARES
from oodbench.store.rows import texts_of
from oodbench.study.declarations import Labels, TableSpec
from oodbench.study.grid import NONE
from oodbench.study.study import GROUPS, UNGROUPED

RANKED = (
    *("training", "encoder", "outliers", "recipe", "precision", "reference"),
    *("space", "clustering", "distance", "posthoc"),
)
METHOD = (*RANKED, "threshold")
LONGEST = 80  # letters of an ID set's name in the names of files
OTHER = "other half"  # of images, on which a row is measured that was picked on one half
BEST = "The best of each column{apiece}, picked on the test sets, is marked."
MARKED = (
    "Marked are the best of each column{apiece}, picked on the test sets, and what is not told apart from it: paired t "
    "over runs (over class splits where they are several), two-sided 5 %, Bonferroni over all pairs of rows."
)
APIECE = " among the rows of an ID set"  # where rows are of several: none is better than one of another task
RATES = " FPR95_id: share of OOD accepted where 95 % of ID is; FPR95_ood: share of ID rejected where 95 % of OOD is."
LARGEST = 2**40  # numbers of labels are counted anew before they are larger
FEW = 30  # images of a set: one more or less moves an AUROC by points
TRAINED = ("training", "outliers", "encoder", "recipe", "reference", "precision")  # of an encoder
SHOWN_GROUPS = (*GROUPS, UNGROUPED)
SHOWN = {"auroc": "AUROC", "fpr95_id": "FPR95_id", "fpr95_ood": "FPR95_ood"}  # metrics of a leaderboard
FULL = {f"fs_{metric}": f"FS {title}" for metric, title in SHOWN.items()}  # and of one with covariate-shifted ID sets


@dataclass(frozen=True)
class _Compared:
    """Numbers of a table that one would rank: those of a column, of which the highest is best."""

    column: int  # its position
    rows: NDArray[np.intp]  # their positions
    values: NDArray[np.float64]  # one at least is a number
    known: NDArray[np.bool_]  # of enough runs to be held against the best
    apart: NDArray[np.bool_]  # told apart from the best


@dataclass(frozen=True)
class Table:
    """Means over runs, their standard deviations (ddof 1) and numbers, with the same index and columns."""

    name: str
    caption: str
    mean: pd.DataFrame
    std: pd.DataFrame
    n: pd.DataFrame
    better: dict[Any, int]  # column -> 1 where higher is better, -1 where lower is, 0 where neither
    details: tuple[str, ...] = ()  # titles of columns that a narrow terminal may go without, in this order
    unlearned: pd.DataFrame | None = None  # how many of the runs behind each mean are of encoders that did not learn
    floor: float | None = None  # below which they did not; None = the default
    ranked_by: Any = ""  # the column whose highest number comes first; "" where rows are in the order of the study
    seen: pd.DataFrame | None = None  # the numbers behind the means: columns are (position of the column, observation)
    picked: tuple[str, ...] = ()  # titles of the columns that it shows, CSV apart; () = all
    short: bool = False  # it shows short names, for one column of a page

    @property
    def marked(self) -> bool:
        """Whether a run behind a number is of an encoder that did not learn."""
        return bool(self._lost().any(axis=None))

    @property
    def below(self) -> list[str]:
        """What stands under the table: its caption, and what the mark means where there is one."""
        shown = [title for title in map(_title, self.together) if not self.picked or title in self.picked]
        together = f" Nothing is told apart in: {', '.join(shown)}." if shown else ""
        return [self.caption.strip() + together, *([explained(self.floor)] if self.marked else [])]

    @cached_property
    def marks(self) -> pd.DataFrame:
        """1 at the best value of each column that has a direction, 2 at what is not told apart from it, else 0.

        Where rows are of several ID sets, those of each are compared among themselves. Where nothing is told apart the
        best alone is marked.
        """
        found = np.zeros(self.mean.shape, dtype=int)
        for each in self._compared:
            if each.apart.any():
                found[each.rows, each.column] = 2 * (each.known & ~each.apart)
            found[each.rows[each.values == np.nanmax(each.values)], each.column] = 1
        return pd.DataFrame(found, index=self.mean.index, columns=self.mean.columns)

    @property
    def together(self) -> list[Any]:
        """The columns of several numbers, of enough runs each, in which nothing is told apart."""
        several = [each for each in self._compared if len(np.unique(each.values[each.known])) > 1]
        told = {each.column for each in several if each.apart.any()}
        return [self.mean.columns[i] for i in sorted({each.column for each in several} - told)]

    @cached_property
    def _compared(self) -> list[_Compared]:
        """What is compared: the numbers of a column that has a direction, of the rows of one ID set."""
        index, found = self.mean.index, []
        sets = np.zeros(len(index)) if "id" not in index.names else index.get_level_values("id")
        blocks = [np.flatnonzero(sets == each) for each in pd.unique(sets)]
        for i, column in enumerate(self.mean.columns):
            for rows in blocks if self.better[column] else ():
                values = self.mean.iloc[rows, i].to_numpy(dtype=float) * self.better[column]
                if np.isfinite(values).any():
                    seen = None if self.seen is None else self.seen[i].to_numpy(dtype=float)[rows]
                    found.append(_Compared(i, rows, values, *_told(seen, int(np.nanargmax(values)), len(rows))))
        return found

    @property
    def half(self) -> pd.DataFrame:
        """Half the width of the two-sided 95 % t interval of each mean over observations; NaN of fewer than three."""
        found = self.mean * math.nan
        for place, seen in () if self.seen is None else self.seen.T.groupby(level=0):
            over = estimate(_apiece(seen.to_numpy(dtype=float)))
            found.isetitem(int(str(place)), np.where(over.size[:, 0] >= LEAST, over.half(TWO_SIDED), np.nan))
        return found

    def sheet(self) -> Sheet:
        """Return the table as it is written."""
        return self._sheet

    @cached_property
    def _sheet(self) -> Sheet:
        marks = self.marks.reset_index(drop=True).set_axis([_title(each) for each in self.mean.columns], axis=1)
        sheet = Sheet(self.name, self.text(), self.below, self.numbers(), self.mean.index.nlevels, marks)
        sheet = sheet.picked(self.picked) if self.picked else sheet
        return shortened(sheet, (*map(str, self.mean.index.names), *SHOWN.values())) if self.short else sheet

    def text(self) -> pd.DataFrame:
        """Return `mean ± std` in per cent.

        What did not learn is marked at its number, or, where that is true of a whole row, at the row's first label.
        """
        lost = self._lost()
        whole = lost.any(axis=1) & (lost | self.mean.isna()).all(axis=1)
        parts = (self.mean, self.std, lost.mul(~whole, axis=0))
        columns = (zip(*(each.iloc[:, i].tolist() for each in parts), strict=True) for i in range(self.mean.shape[1]))
        shown = [[spread(mean, std) + f" {MARK}" * bad for mean, std, bad in column] for column in columns]
        table = pd.DataFrame(dict(enumerate(shown)), index=self.mean.index)
        table.columns = pd.Index([_title(column) for column in self.mean.columns])
        table["n"] = self.n.where(self.n > 0).min(axis=1).fillna(0).astype(int)
        table = table.reset_index().astype(str).fillna(NONE)  # a threshold set on OOD has no level
        labels = table.iloc[:, 0]
        table.isetitem(0, (labels + f" {MARK}").where(whole.to_numpy(), labels).to_list())
        return table

    def numbers(self) -> pd.DataFrame:
        """Return mean, std and n of each column, in per cent, unrounded.

        Where an encoder did not learn, a fourth number says of how many of the n runs.
        """
        parts = {"mean": self.mean, "std": self.std, "n": self.n}
        if self.unlearned is not None and self.marked:
            parts[NAME] = self.unlearned
        found = {
            f"{_title(column)} {kind}": part.iloc[:, i]
            for i, column in enumerate(self.mean.columns)
            for kind, part in parts.items()
        }
        return pd.DataFrame(found).reset_index()

    def taken(self, take: Callable[[pd.DataFrame], pd.DataFrame]) -> Table:
        """Return the table with other rows, or in another order."""
        lost, seen = (None if each is None else take(each) for each in (self.unlearned, self.seen))
        return replace(self, mean=take(self.mean), std=take(self.std), n=take(self.n), unlearned=lost, seen=seen)

    def _lost(self) -> pd.DataFrame:
        """Return which numbers have a run behind them that did not learn."""
        return self.mean.isna() & False if self.unlearned is None else self.unlearned > 0


def told_apart(values: NDArray[np.floating[Any]], best: int) -> NDArray[np.bool_]:
    """Return which rows of values (K, n), one column an observation, differ from the row that is the best.

    Differences are paired, by a two-sided t test at 5 %. The best is known from the same numbers, so that it could be
    any row: Bonferroni is over all pairs of rows. Of fewer than three observations nothing is told apart.
    """
    over = estimate(_apiece((values[best] - values).T))
    known = np.isfinite(values).any(1).sum()
    found: NDArray[np.bool_] = (over.size[:, 0] >= LEAST) & (over.p * max(1, known * (known - 1) // 2) <= ERROR)
    return found


def _told(seen: NDArray[np.float64] | None, best: int, rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows have enough runs in common with the best one, and which of them are told apart from it."""
    if seen is None:
        return np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    return np.isfinite(seen - seen[best]).sum(axis=1) >= LEAST, told_apart(seen, best)


def _apiece(values: NDArray[np.floating[Any]]) -> Runs:
    """Return numbers (n, K), of which each line is an observation."""
    return Runs(values, np.arange(len(values)), "")


def spread(mean: float, std: float = math.nan, digits: int = 1) -> str:
    """Return `mean ± std`, either of which there may not be."""
    if math.isnan(mean):
        return NONE
    return f"{mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {std:.{digits}f}")


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _title(column: Any) -> str:
    return " ".join(str(part) for part in column) if isinstance(column, tuple) else str(column)


# ---- making -------------------------------------------------------------------------------------------


def leaderboards(rows: pd.DataFrame, floor: float | None = None) -> list[Table]:
    """Return a leaderboard for each ID data set and number of its classes, best near-OOD AUROC first.

    `floor` is the study's, below which a frozen probe tells that an encoder did not learn.
    """
    found = boards(rows)
    files = file_names(list(found)) if len(found) > 1 else {}
    return [_leaderboard(each, name if files else "", files.get(name, ""), floor) for name, each in found.items()]


def boards(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each ID data set and number of its classes, whose numbers can stand beside each other."""

    def made(sets: pd.DataFrame) -> pd.Series[str]:
        several = sets.groupby("family")["protocol"].transform("nunique") > 1
        return sets["family"] + (", " + sets["protocol"]).where(several, "")

    names = labelled(rows, ["family", "protocol"], made)
    each = names.unique()
    return {name: rows[names == name] if len(each) > 1 else rows for name in each}


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Return what ends the name of each one's file: no two alike, in upper or lower case, none empty or long."""
    plain = {name: re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in names}
    counts = Counter(each.lower() for each in plain.values())
    safe = {name for name, each in plain.items() if 0 < len(each) <= LONGEST and counts[each.lower()] == 1}
    return {n: each if n in safe else f"{each[:LONGEST]}-{digest(n)[:8]}".lstrip("-") for n, each in plain.items()}


def _leaderboard(rows: pd.DataFrame, board: str, file: str, floor: float | None) -> Table:
    rows = named(distinct(rows))
    by = naming(rows)
    runs = runs_of(rows, floor)
    lines, members = Lines(runs, by), runs[["group", "ood"]].drop_duplicates()
    sets = lines.wide("auroc", "ood")
    alone = members.loc[members.groupby("group")["ood"].transform("nunique") == 1, "ood"].unique()  # its group's mean
    accuracies = {
        ("ID", "accuracy"): lines.first("accuracy"),
        ("ID", "shifted accuracy"): lines.first("accuracy_shifted"),
    }
    columns = {title: numbers for title, numbers in accuracies.items() if numbers.notna().any()}  # one class has none
    for metric, title in (SHOWN | (FULL if runs["fs_auroc"].notna().any() else {})).items():
        grouped = _grouped(lines.wide(metric, "ood"), members)
        columns |= {(group, title): numbers for group, numbers in grouped.items()}
        columns |= {(name, title): sets[name] for name in map(str, sets) if metric == "auroc" and name not in alone}
    directions = {"accuracy": 0, "shifted accuracy": 0, "AUROC": 1, FULL["fs_auroc"]: 1}
    better = {column: directions.get(column[1], -1) for column in columns}
    name = f"leaderboard-{file}" if file else "leaderboard"
    lost = pd.DataFrame(dict.fromkeys(columns, lines.wide("unlearned")[""]))
    table = averaged(name, _caption(rows, board), pd.DataFrame(columns), lost, by, better, floor)
    everything: Any = table.mean.index
    if len(runs) < len(rows):  # a method that failed altogether comes last
        everything = pd.MultiIndex.from_frame(rows[by].iloc[firsts(numbered(rows, by))])
    # near, then far, then the sets: a group that lacks one has no mean
    keys: Any = [column for column in columns if column[1] == SHOWN["auroc"]]
    order = table.mean.reindex(everything).sort_values(keys, ascending=False).index
    sets_alone = [column for column in columns if column[0] not in ("ID", *SHOWN_GROUPS)]
    of = {metric: [each for each in columns if each[1] == title] for metric, title in (SHOWN | FULL).items()}
    full = [*of["fs_fpr95_id"], *of["fs_fpr95_ood"]]
    details = tuple(map(_title, [*full, *of["fpr95_ood"], *sets_alone, *of["fpr95_id"]]))
    n = table.n.reindex(order, fill_value=0)
    ranked_by = next((key for key in keys if table.mean[key].notna().any()), keys[0])  # a group may lack a set
    return replace(table.taken(lambda part: part.reindex(order)), n=n, details=details, ranked_by=ranked_by)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows in which recipes and thresholds say just what tells them from others of the same method."""

    def recipes(of: pd.DataFrame) -> pd.Series[str]:
        return of.groupby("training")["recipe"].transform(_differences)

    def said(of: pd.DataFrame) -> pd.Series[str]:
        return of["threshold"] + (" at " + of["level"].map("{:g}".format)).where(of["several"], "")

    lines = numbered(rows, [*RANKED, "threshold", "level"])
    few = rows[[*RANKED, "threshold", "level"]].iloc[firsts(lines)]
    several = few.groupby([*RANKED, "threshold"], sort=False, dropna=False)["level"].transform("nunique") > 1
    found = {"recipe": labelled(few, ["training", "recipe"], recipes), "threshold": said(few.assign(several=several))}
    return rows.assign(**{name: each.take(lines).set_axis(rows.index) for name, each in found.items()})


def _differences(recipes: pd.Series[str]) -> pd.Series[str]:
    """Return recipes without the parts that they all share."""
    parts = {recipe: recipe.split("; ") for recipe in recipes.unique()}
    return recipes.map(
        {
            recipe: "; ".join(part for part in mine if not all(part in other for other in parts.values())) or NONE
            for recipe, mine in parts.items()
        }
    )


def best_of_each_training(board: Table) -> Table:
    """Return the highest row of each training on a leaderboard."""
    first = ~pd.Series(board.mean.index.get_level_values("training")).duplicated().to_numpy()
    name, chosen = board.name.replace("leaderboard", "best", 1), _title(board.ranked_by)
    others = f"Other columns have no part in the choice: in them another row may be better. {board.caption}"
    caption = f"The row of each training that is highest by {chosen}, on the test sets. {others}"
    return replace(board.taken(lambda part: part[first]), name=name, caption=caption)


def naming(rows: pd.DataFrame) -> list[str]:
    """Return the columns that name a method: the training, what scores its features, and what else of it varies."""
    labels = {column: _labels(rows[column]) for column in METHOD}
    always = ["training", *(each for each in ("distance", "posthoc") if not labels[each] <= {""})]
    return [column for column in METHOD if column in always or len(labels[column]) > 1]


def varies(column: pd.Series[str]) -> bool:
    return len(_labels(column)) > 1


def _labels(column: pd.Series[str]) -> set[str]:
    """Return the labels in a column, NONE apart."""
    return {each for each in texts_of(column) if not pd.isna(each)} - {NONE}


def declared(rows: pd.DataFrame, name: str, spec: TableSpec, floor: float | None = None) -> Table:
    """Return a table that a study declares. Raises UserError where it names what rows do not have."""
    values, rows = spec.values, kept(rows, spec.of, f"table {name}: ")
    if not {"threshold", "level"} & {*spec.rows, *spec.across} and not set(values) & set(RECALLS):
        rows = distinct(rows)
    runs, by = runs_of(rows, floor), list(spec.rows)
    lines = Lines(runs, by)
    unlearned_ = lines.wide("unlearned", *spec.across)
    found = {value: _ordered(lines.wide(value, *spec.across), spec) for value in values}
    said = {value: "" if len(values) == 1 and spec.across else value for value in values}
    titles = [f"{_title(column)} {said[value]}".strip() for value in values for column in found[value]]
    directions = [(value in HIGHER_IS_BETTER) - (value in LOWER_IS_BETTER) for value in values for _ in found[value]]
    numbers = pd.concat([*found.values()], axis=1).set_axis(titles, axis=1)
    lost = pd.concat([unlearned_] * len(values), axis=1).set_axis(titles, axis=1)
    caption = spec.caption + _averaged(runs, {*by, *spec.across})
    table = averaged(name, caption, numbers, lost, by, dict(zip(titles, directions, strict=True)), floor)
    return replace(table, short=spec.short)


def _ordered(wide: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Return a table whose columns are in the order of the labels that `of` lists; others stay as rows have them."""
    listed = [spec.of.get(label) for label in spec.across]
    if not any(isinstance(each, list) for each in listed):
        return wide
    parts = {column: [*map(str, column if isinstance(column, tuple) else (column,))] for column in wide}
    orders = [
        [*map(str, each)] if isinstance(each, list) else [*dict.fromkeys(of[i] for of in parts.values())]
        for i, each in enumerate(listed)
    ]
    places = {column: [order.index(x) for order, x in zip(orders, of, strict=True)] for column, of in parts.items()}
    return wide[sorted(wide, key=lambda column: places[column])]


def view(table: Table, spec: TableSpec) -> Table:
    """Return a table of every study with the columns that a study picks of it.

    Beside one by which rows were picked stands what it is on images apart, where that is known. A short table without
    any has the labels in which rows differ, and AUROC. Raises UserError where there is no such column, or rows would
    not be told apart.
    """
    sheet = table.sheet()
    every, names = [*map(str, sheet.text.columns)], [*map(str, table.mean.index.names)]
    of = f"table {table.name}: "
    for title in spec.columns or ():
        if title not in every:
            raise UserError(f"{of}there is no column '{title}'{suggestion(title, every)}")
    labels = table.mean.index.to_frame(index=False).astype(str)
    short = [*(name for name in names if varies(labels[name])), *(each for each in every if each.endswith(" AUROC"))]
    picked = spec.columns or (tuple(short) if spec.short else ())
    picked = (*dict.fromkeys(each for title in picked for each in (title, f"{title}, {OTHER}") if each in every),)
    left = [name for name in names if name in picked or not picked]
    if (len(labels) > 1 and not left) or labels[left].duplicated().any():
        told = ", ".join(name for name in names if name not in left and varies(labels[name]))
        raise UserError(
            f"{of}rows of the columns {', '.join(left) or 'none'} are not told apart; they differ in {told}"
        )
    said = (
        table.caption if not picked or any("FPR95" in title for title in picked) else table.caption.replace(RATES, "")
    )
    caption = f"{spec.caption} {said}".strip()
    return replace(table, caption=caption, picked=picked, short=spec.short, details=())


class NotThereError(UserError):
    """No row has what is asked for."""


def kept(rows: pd.DataFrame, of: Labels, where: str = "") -> pd.DataFrame:
    """Return the rows that have the labels. Raises NotThereError, `where` before it, naming what no row has."""
    for column, wanted in of.items():
        several = [str(each) for each in (wanted if isinstance(wanted, list) else [wanted])]
        labels = rows[column].astype(str)
        for each in several:
            if not (labels == each).any():
                raise NotThereError(f"{where}no row has {column} '{each}'{suggestion(each, set(labels))}")
        rows = rows[labels.isin(several)]
    return rows


def commonest_threshold(rows: pd.DataFrame) -> tuple[str, float]:
    """Return the threshold and level that most rows have, the first of them: it is there for every distance."""
    sizes = rows.groupby(["threshold", "level"], sort=False).size()
    threshold, level = list(sizes.index)[int(sizes.to_numpy().argmax())]
    return str(threshold), float(level)


def distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows without the thresholds that rank as an earlier one does, on every set and in every run.

    They decide otherwise, but what they rank is one number, shown once; of a threshold that saw OOD last of all.
    """
    rows_ = rows.assign(level=rows["level"].fillna(0))  # a threshold set on OOD has none
    methods, places = numbered(rows_, [*METHOD, "level"]), numbered(rows_, ["id", "seed", "ood"])
    first, width = firsts(methods), int(places.max(initial=-1)) + 1
    numbers = np.full((len(first), 2 * width), np.nan)
    for i, name in enumerate(("auroc", "aupr_in")):
        numbers[methods, i * width + places] = rows[name]
    order = np.argsort(rows_["level"].to_numpy()[first] == 0, kind="stable")
    ranked = pd.DataFrame({"method": numbered(rows.iloc[first], RANKED), "numbers": [*map(bytes, numbers + 0.0)]})
    again = np.zeros(len(first), dtype=bool)
    again[order] = ranked.iloc[order].duplicated()
    return rows[~again[methods]] if again.any() else rows


def runs_of(rows: pd.DataFrame, floor: float | None, use: str = "make a table of") -> pd.DataFrame:
    """Return the rows that have numbers, in per cent, with the run (ID classes and seed) they belong to.

    Declared rows that are not made stay. `unlearned` is 1 where the encoder did not learn, else 0. Raises UserError
    where there are none to `use`.
    """
    has_numbers = rows["status"].isin(["ok", UNMADE])
    done = rows if has_numbers.all() else rows[has_numbers]
    if done.empty:
        raise UserError(f"there are no rows to {use}; run the study first")
    runs = labelled(done, ["id", "seed"], lambda of: of["id"] + " " + of["seed"].astype(str))
    shares = {name: 100 * done[name] for name in SHARES if name in done}
    return done.assign(unlearned=unlearned(done, floor).astype(float), run=runs, **shares)


def numbered(rows: pd.DataFrame, names: Iterable[str]) -> NDArray[np.int64]:
    """Return a number for each row, one for all that are alike in these columns, in the order of their first ones."""
    found, count = np.zeros(len(rows), dtype=np.int64), 1
    for name in names:
        column = rows[name]
        plain = column.to_numpy(dtype=object) if isinstance(column.dtype, pd.StringDtype) else column
        codes, every = pd.factorize(plain)
        size = len(every) + 1  # what is missing has -1
        if count * size >= LARGEST:
            found, kinds = pd.factorize(found)
            count = len(kinds)
        found, count = found * size + codes + 1, count * size
    return pd.factorize(found)[0].astype(np.int64, copy=False)


def firsts(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of the first of each number that `numbered` gives."""
    return np.flatnonzero(~pd.Series(numbers).duplicated().to_numpy())


def labelled(rows: pd.DataFrame, names: list[str], make: Callable[[pd.DataFrame], pd.Series[str]]) -> pd.Series[str]:
    """Return labels that are made of columns: of the first rows of those alike in them, and as they are called all."""
    numbers = numbered(rows, names)
    made = make(rows[names].iloc[firsts(numbers)])
    return made.take(numbers).set_axis(rows.index)


class Lines:
    """Rows of runs by the labels of a method, which are looked at once, whatever numbers are asked for."""

    def __init__(self, runs: pd.DataFrame, by: list[str]) -> None:
        labels = [*by, "run"]
        self._runs, self._lines = runs, numbered(runs, labels)
        self._index = pd.MultiIndex.from_frame(runs[labels].iloc[firsts(self._lines)])
        self._across: dict[tuple[str, ...], tuple[NDArray[np.int64], pd.Index]] = {}

    def first(self, value: str) -> pd.Series[float]:
        """Return the first number of each method and run."""
        return self._runs[value].groupby(self._lines, sort=False).first().set_axis(self._index)

    def wide(self, value: str, *across: str) -> pd.DataFrame:
        """Return one number a run: index by and run, one column for each value of the columns across.

        A mean that lacks a declared row is none.
        """
        columns, titles = self._columns(across)
        places = self._lines * len(titles) + columns
        mean = self._runs[value].groupby(places, sort=False).mean()
        if (gone := numberless(self._runs, value)).any():
            mean = mean.mask(gone.groupby(places, sort=False).any())
        numbers = np.full(len(self._index) * len(titles), np.nan)
        numbers[mean.index.to_numpy()] = mean.to_numpy(dtype=float, na_value=np.nan)
        return pd.DataFrame(numbers.reshape(len(self._index), len(titles)), index=self._index, columns=titles)

    def _columns(self, across: tuple[str, ...]) -> tuple[NDArray[np.int64], pd.Index]:
        """Return which column each row belongs to, and the columns."""
        if across not in self._across:
            numbers = numbered(self._runs, across)
            labels = self._runs[[*across]].iloc[firsts(numbers)]
            titles = pd.Index([""])
            if across:
                titles = pd.MultiIndex.from_frame(labels) if len(across) > 1 else pd.Index(labels[across[0]])
            self._across[across] = (numbers, titles)
        return self._across[across]


def _grouped(sets: pd.DataFrame, members: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Return the unweighted mean over the sets of each group, one number a run; nothing where a set failed."""
    names = {group: members.loc[members["group"] == group, "ood"].unique() for group in SHOWN_GROUPS}
    return {group: sets[of].mean(axis=1, skipna=False) for group, of in names.items() if len(of)}


def averaged(
    name: str,
    caption: str,
    numbers: pd.DataFrame,
    lost: pd.DataFrame,
    by: list[str],
    better: dict[Any, int],
    floor: float | None,
) -> Table:
    """Return a table of numbers by run, an index; `lost` is above 0 where an encoder behind a number did not learn."""
    runs = numbers.index.get_level_values("run")
    splits = runs.str.rpartition(" ").get_level_values(0)
    alone = "id" in by or splits.nunique() == 1
    many = runs if alone else splits  # of several class splits in a row each is an observation, not its seeds
    each = numbers.set_axis(range(numbers.shape[1]), axis=1).groupby([*by, many], sort=False, dropna=False).mean()
    over = numbers.groupby(by, sort=False, dropna=False)
    bad = (lost > 0).where(numbers.notna(), False).groupby(by, sort=False, dropna=False).sum()
    mean = over.mean()
    wide = pd.DataFrame(each.unstack(-1)).reindex(mean.index)
    several = wide.notna().T.groupby(level=0).sum().to_numpy().max() >= LEAST
    apiece = APIECE if "id" in by and splits.nunique() > 1 else ""
    marked = f"{caption} {(MARKED if several else BEST).format(apiece=apiece)}" if any(better.values()) else caption
    return Table(name, marked, mean, over.std(ddof=1), over.count(), better, unlearned=bad, floor=floor, seen=wide)


def _caption(rows: pd.DataFrame, board: str) -> str:
    counts, splits = counted(rows["seed"].nunique(), "seed"), rows["id"].nunique()
    if splits > 1:
        counts = f"{splits} class splits x {counts}"
    members = rows[["group", "ood"]].drop_duplicates().groupby("group", sort=False)["ood"].agg(", ".join)
    sets = "; ".join(f"{group}: {names}" for group, names in members.items())
    failed = int((rows["status"] == "error").sum())
    lost = f" {failed} rows failed and are in no mean." if failed else ""
    lost += _few_images(rows) + _held_out(rows)
    return (
        f"{board}{'. ' if board else ''}Per cent, mean ± standard deviation (ddof 1) over {counts}; n of them. "
        f"Near and far are unweighted means over their sets ({sets}).{RATES}{_full_spectrum(rows)}{lost}"
    )


def _full_spectrum(rows: pd.DataFrame) -> str:
    """Return what the columns of the full spectrum count as ID; "" where there are none."""
    sets = ", ".join(each for each in rows["covariate"].unique() if each)
    said = f"FS: full spectrum, where images of ID's classes under a covariate shift ({sets}) are ID, too; they are so"
    return f" {said} in no other column." if sets else ""


def _averaged(rows: pd.DataFrame, shown: set[str]) -> str:
    axes = (*METHOD, "level", "ood", "run")
    several = {each: rows.iloc[firsts(numbered(rows, dict.fromkeys((*shown, each))))] for each in axes[-2:]}
    methods = rows.iloc[firsts(numbered(rows, dict.fromkeys((*axes[:-2], *shown))))]

    def most(column: str) -> int:
        """Return over how many values of a column a number is a mean; a training's own outliers are no average."""
        by = {*shown, "training"} - {column} if column in ("outliers", "recipe") else shown
        pairs = several.get(column, methods)[[*by, column]].drop_duplicates().dropna()
        return int(np.bincount(numbered(pairs, by)).max())

    hidden = {column: most(column) for column in axes[:-1] if column not in shown}
    counts = ", ".join(f"{column} ({count})" for column, count in hidden.items() if count > 1)
    each = f", each averaged over {counts}" if counts else ""
    return f" Per cent, mean ± standard deviation over {counted(most('run'), 'run')}{each}.{_few_images(rows)}"


def _held_out(rows: pd.DataFrame) -> str:
    """Return which share of ID train trains nothing, as most papers have it; "" where none is held out."""
    said = [each[4:-1] for each in rows["reference"].unique() if str(each).startswith("val(")]
    held = [f"a share {each} of ID train" if each.replace(".", "").isdigit() else each for each in said]
    trained = "loss" not in rows or rows["loss"].notna().any()  # here, and not by whoever made weights or features
    what = "Held out for thresholds, and no part of training" if trained else "Thresholds are set on"
    return f" {what}: {' or '.join(held)}." * bool(said)


def _few_images(rows: pd.DataFrame) -> str:
    """Return which OOD sets are too small for their numbers to say much; "" where none is."""
    sizes = rows.groupby("ood", sort=False)["n_ood"].min().dropna()
    few = ", ".join(f"{name} ({counted(int(size), 'image')})" for name, size in sizes.items() if size < FEW)
    return f" Of few images, so that a number says little: {few}." if few else ""


def thresholds(rows: pd.DataFrame, floor: float | None = None) -> Table | None:
    """Return what each of several thresholds does on test data; a leaderboard shows those that rank apart."""
    if len(firsts(numbered(rows, ["threshold", "level"]))) < 2:
        return None
    caption = (
        "Every threshold: the share of ID test that it accepts, of OOD that it finds, and what follows from both. "
        "Each is averaged over the methods that have it: a cut by cluster needs clusters."
    )
    spec = TableSpec(rows=("threshold", "level"), columns=(), value=RECALLS, caption=caption)
    return declared(rows, "thresholds", spec, floor)
