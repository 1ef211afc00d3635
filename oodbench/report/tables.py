"""Rows to tables: the leaderboard and the tables that a study declares. It knows rows, not how they came about."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from oodbench.errors import UserError, suggestion
from oodbench.report.unlearned import MARK, NAME, explained, unlearned
from oodbench.store.columns import HIGHER_IS_BETTER, LOWER_IS_BETTER, RECALLS, SHARES
from oodbench.study.declarations import TableSpec
from oodbench.study.grid import NONE
from oodbench.study.study import GROUPS, UNGROUPED

RANKED = (
    *("training", "encoder", "outliers", "recipe", "precision", "reference"),
    *("space", "clustering", "distance", "posthoc"),
)
METHOD = (*RANKED, "threshold")
SHOWN_GROUPS = (*GROUPS, UNGROUPED)
SHOWN = {"auroc": "AUROC", "fpr95_id": "FPR95_id", "fpr95_ood": "FPR95_ood"}  # metrics of a leaderboard


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

    @property
    def marked(self) -> bool:
        """Whether a run behind a number is of an encoder that did not learn."""
        return self.unlearned is not None and bool((self.unlearned > 0).any(axis=None))

    @property
    def below(self) -> list[str]:
        """What stands under the table: its caption, and what the mark means where there is one."""
        return [self.caption.strip(), *([explained(self.floor)] if self.marked else [])]

    @cached_property
    def marks(self) -> pd.DataFrame:
        """1 at the best and 2 at the second best value of each column that has a direction, else 0."""
        better = pd.Series([self.better[column] for column in self.mean.columns], index=self.mean.columns)
        rank = (-self.mean * better).rank(method="min")
        return rank.where((rank <= 2) & (better != 0), 0).astype(int)

    def text(self, style: Callable[[str, int], str]) -> pd.DataFrame:
        """Return `mean ± std` in per cent, `style` given each text and its mark.

        What did not learn is marked at its number, or, where that is true of a whole row, at the row's first label.
        """
        marks, lost = self.marks, self._lost()
        whole = lost.any(axis=1) & (lost | self.mean.isna()).all(axis=1)
        parts = (self.mean, self.std, marks, lost.mul(~whole, axis=0))
        shown = {
            i: [
                style(_number(mean, std), mark) + f" {MARK}" * bad
                for mean, std, mark, bad in zip(*(each.iloc[:, i] for each in parts), strict=True)
            ]
            for i in range(self.mean.shape[1])
        }
        table = pd.DataFrame(shown, index=self.mean.index)
        table.columns = pd.Index([_title(column) for column in self.mean.columns])
        table["n"] = self.n.where(self.n > 0).min(axis=1).fillna(0).astype(int)
        table = table.reset_index().astype(str).fillna(NONE)  # a threshold set on OOD has no level
        labels = table.iloc[:, 0]
        table.isetitem(0, (labels + f" {MARK}").where(whole.to_numpy(), labels).to_list())
        return table

    def _lost(self) -> pd.DataFrame:
        """Return which numbers have a run behind them that did not learn."""
        return self.mean.isna() & False if self.unlearned is None else self.unlearned > 0


def _number(mean: float, std: float) -> str:
    if math.isnan(mean):
        return NONE
    return f"{mean:.1f}" if math.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def _title(column: Any) -> str:
    return " ".join(str(part) for part in column) if isinstance(column, tuple) else str(column)


# ---- making -------------------------------------------------------------------------------------------


def leaderboards(rows: pd.DataFrame, floor: float | None = None) -> list[Table]:
    """Return a leaderboard for each ID data set and number of its classes, best near-OOD AUROC first.

    `floor` is the study's, below which a frozen probe tells that an encoder did not learn.
    """
    several = rows.groupby("family")["protocol"].transform("nunique") > 1
    names = rows["family"] + _where(several, ", " + rows["protocol"])
    boards = list(dict.fromkeys(names))
    return [_leaderboard(rows[names == name], "" if len(boards) == 1 else name, floor) for name in boards]


def _where(condition: pd.Series[bool], text: pd.Series[str]) -> pd.Series[str]:
    return text.where(condition, "")


def _leaderboard(rows: pd.DataFrame, board: str, floor: float | None) -> Table:
    rows = named(distinct(rows))
    by = [column for column in METHOD if column in ("training", "distance") or varies(rows[column])]
    runs = _runs(rows, floor)
    accuracy = runs.groupby([*by, "run"], sort=False)["accuracy"].first()
    groups = {metric: _grouped(runs, by, metric) for metric in SHOWN}
    sets = _wide(runs, by, "auroc", "ood")
    columns: dict[tuple[str, str], pd.Series[float]] = {}
    if accuracy.notna().any():  # one class has none
        columns["ID", "accuracy"] = accuracy
    columns |= {(group, "AUROC"): groups["auroc"][group] for group in SHOWN_GROUPS if group in groups["auroc"]}
    columns |= {(name, "AUROC"): sets[name] for name in map(str, sets) if not _alone(runs, name)}
    for metric in ("fpr95_id", "fpr95_ood"):
        found = groups[metric]
        columns |= {(group, SHOWN[metric]): found[group] for group in SHOWN_GROUPS if group in found}
    better = {column: {"accuracy": 0, "AUROC": 1}.get(column[1], -1) for column in columns}
    name = "leaderboard" + (f"-{re.sub(r'[^A-Za-z0-9]+', '-', board).strip('-')}" if board else "")
    lost = pd.DataFrame(dict.fromkeys(columns, _wide(runs, by, "unlearned")[""]))
    table = _summary(name, _caption(rows, board), pd.DataFrame(columns), lost, by, better, floor)
    everything = pd.MultiIndex.from_frame(rows[by].drop_duplicates())  # a method that failed altogether comes last
    order = table.mean.reindex(everything).sort_values(_keys(columns), ascending=False).index
    in_order = [
        *(c for c in columns if c[1] == SHOWN["fpr95_ood"]),
        *(c for c in columns if c[0] not in ("ID", *SHOWN_GROUPS)),
        *(c for c in columns if c[1] == SHOWN["fpr95_id"]),
    ]
    details = tuple(_title(column) for column in in_order)
    return replace(
        _taken(table, lambda part: part.reindex(order)), n=table.n.reindex(order, fill_value=0), details=details
    )


def _taken(table: Table, take: Callable[[pd.DataFrame], pd.DataFrame]) -> Table:
    """Return a table with other rows, or in another order."""
    lost = None if table.unlearned is None else take(table.unlearned)
    return replace(table, mean=take(table.mean), std=take(table.std), n=take(table.n), unlearned=lost)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows in which recipes and thresholds say just what tells them from others of the same method."""
    recipes = rows.groupby("training")["recipe"].transform(_differences)
    levels = rows.groupby([*RANKED, "threshold"], sort=False)["level"].transform("nunique") > 1
    thresholds = rows["threshold"] + _where(levels, " at " + rows["level"].map("{:g}".format))
    return rows.assign(recipe=recipes, threshold=thresholds)


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
    name = board.name.replace("leaderboard", "best")
    caption = f"The highest row of each training on the leaderboard. {board.caption}"
    return replace(_taken(board, lambda part: part[first]), name=name, caption=caption)


def _keys(columns: dict[tuple[str, str], Any]) -> Any:
    """Return what a leaderboard is sorted by: near, then far, then the sets: a group that lacks one has no mean."""
    groups = [(group, "AUROC") for group in SHOWN_GROUPS if (group, "AUROC") in columns]
    return groups + [column for column in columns if column[1] == "AUROC" and column not in groups]


def varies(column: pd.Series[str]) -> bool:
    return column[column != NONE].nunique() > 1


def _alone(runs: pd.DataFrame, name: str) -> bool:
    """Return whether an OOD set is the only one of its group, whose mean it then is."""
    group = runs.loc[runs["ood"] == name, "group"].iloc[0]
    return bool((runs.loc[runs["group"] == group, "ood"] == name).all())


def declared(rows: pd.DataFrame, name: str, spec: TableSpec, floor: float | None = None) -> Table:
    """Return a table that a study declares. Raises UserError where it names what rows do not have."""
    values, rows = spec.values, kept(rows, name, spec)
    if not {"threshold", "level"} & {*spec.rows, *spec.columns} and not set(values) & set(RECALLS):
        rows = distinct(rows)
    runs, by = _runs(rows, floor), list(spec.rows)
    unlearned_ = _wide(runs, by, "unlearned", *spec.columns)
    columns: dict[str, pd.Series[float]] = {}
    lost: dict[str, pd.Series[float]] = {}
    better: dict[str, int] = {}
    for value in values:
        wide = _wide(runs, by, value, *spec.columns)
        for i, column in enumerate(wide.columns):
            title = _title(column) if len(values) == 1 and spec.columns else f"{_title(column)} {value}".strip()
            columns[title], lost[title] = wide.iloc[:, i], unlearned_.iloc[:, i]
            better[title] = (value in HIGHER_IS_BETTER) - (value in LOWER_IS_BETTER)
    caption = spec.caption + _averaged(runs, {*by, *spec.columns})
    return _summary(name, caption, pd.DataFrame(columns), pd.DataFrame(lost), by, better, floor)


def kept(rows: pd.DataFrame, name: str, spec: TableSpec) -> pd.DataFrame:
    """Return the rows that a declared table is of. Raises UserError where it names what rows do not have."""
    for column, wanted in spec.of.items():
        several = [str(each) for each in (wanted if isinstance(wanted, list) else [wanted])]
        labels = rows[column].astype(str)
        for each in several:
            if each not in set(labels):
                raise UserError(f"table {name}: no row has {column} '{each}'{suggestion(each, set(labels))}")
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
    index = [*METHOD, "level"]
    named = rows.assign(level=rows["level"].fillna(0))  # a threshold set on OOD has none
    numbers = named.set_index([*index, "id", "seed", "ood"])[["auroc", "aupr_in"]]
    order = named[index].drop_duplicates().sort_values("level", key=lambda level: level == 0, kind="stable")
    wide = numbers.unstack(["id", "seed", "ood"]).reindex(pd.MultiIndex.from_frame(order))
    again = wide.droplevel(["threshold", "level"]).reset_index().duplicated().to_numpy()
    return rows[~pd.MultiIndex.from_frame(named[index]).isin(wide.index[again])]


def _runs(rows: pd.DataFrame, floor: float | None) -> pd.DataFrame:
    """Return the rows that have numbers, in per cent, with the run (ID classes and seed) they belong to.

    `unlearned` is 1 where the encoder did not learn, else 0.
    """
    done = rows[rows["status"] == "ok"].copy()
    if done.empty:
        raise UserError("there are no rows to make a table of; run the study first")
    done["unlearned"] = unlearned(done, floor).astype(float)
    done[list(SHARES)] *= 100
    done["run"] = done["id"] + " " + done["seed"].astype(str)
    return done


def _wide(runs: pd.DataFrame, by: list[str], value: str, *across: str) -> pd.DataFrame:
    """Return one number a run: index by and run, one column for each value of the columns across."""
    mean = runs.groupby([*by, "run", *across], sort=False, dropna=False)[value].mean()
    return mean.unstack(list(across), sort=False) if across else mean.to_frame("")


def _grouped(runs: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """Return the unweighted mean over the sets of each group, one number a run; nothing where a set failed."""
    sets = _wide(runs, by, metric, "ood")
    members = runs[["group", "ood"]].drop_duplicates().groupby("group", sort=False)["ood"]
    return pd.DataFrame({group: sets[list(names)].mean(axis=1, skipna=False) for group, names in members})


def _summary(
    name: str,
    caption: str,
    joined: pd.DataFrame,
    lost: pd.DataFrame,
    by: Sequence[str],
    better: dict[Any, int],
    floor: float | None,
) -> Table:
    """Return a table of numbers by run; `lost` is above 0 where an encoder behind a number did not learn."""
    over = joined.groupby(list(by), sort=False, dropna=False)
    bad = (lost > 0).where(joined.notna(), False).groupby(list(by), sort=False, dropna=False).sum()
    return Table(name, caption, over.mean(), over.std(ddof=1), over.count(), better, unlearned=bad, floor=floor)


def _caption(rows: pd.DataFrame, board: str) -> str:
    seeds = rows["seed"].nunique()
    counts = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    splits = rows["id"].nunique()
    if splits > 1:
        counts = f"{splits} class splits x {counts}"
    members = rows[["group", "ood"]].drop_duplicates().groupby("group", sort=False)["ood"].agg(", ".join)
    sets = "; ".join(f"{group}: {names}" for group, names in members.items())
    failed = int((rows["status"] == "error").sum())
    lost = f" {failed} rows failed and are in no mean." if failed else ""
    return (
        f"{board}{'. ' if board else ''}Per cent, mean ± standard deviation (ddof 1) over {counts}; n of them. "
        f"Near and far are unweighted means over their sets ({sets}). FPR95_id: share of OOD accepted where 95 % of "
        f"ID is; FPR95_ood: share of ID "
        f"rejected where 95 % of OOD is. Best and second best of each "
        f"column are marked; they were picked on the test sets: a difference within the deviations says nothing.{lost}"
    )


def _averaged(rows: pd.DataFrame, shown: set[str]) -> str:
    def most(column: str) -> int:
        """Return over how many values of a column a number is a mean; a training's own outliers are no average."""
        by = {*shown, "training"} - {column} if column in ("outliers", "recipe") else shown
        return int(rows.groupby(sorted(by), sort=False)[column].nunique().max())

    hidden = {column: most(column) for column in (*METHOD, "level", "ood") if column not in shown}
    counts = ", ".join(f"{column} ({count})" for column, count in hidden.items() if count > 1)
    runs = most("run")
    return f" Per cent, mean ± standard deviation over {runs} {'run' if runs == 1 else 'runs'}" + (
        f", each averaged over {counts}." if counts else "."
    )


# ---- writing ------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """Return a table as Markdown, the best bold, the second best in italics."""
    text = table.text(lambda each, mark: {1: f"**{each}**", 2: f"*{each}*"}.get(mark, each))
    return "\n\n".join([text.to_markdown(index=False, disable_numparse=True), *table.below]) + "\n"


LATEX = str.maketrans({each: f"\\{each}" for each in "_%&#$"}) | str.maketrans(
    {"±": r"$\pm$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", MARK: r"$^\dagger$"}
)


def latex(table: Table) -> str:
    """Return a table as LaTeX (booktabs), the best bold, the second best underlined."""
    text = table.text(lambda each, mark: {1: f"\\textbf{{{each}}}", 2: f"\\underline{{{each}}}"}.get(mark, each)).map(
        escaped
    )
    text.columns = pd.Index([escaped(column) for column in text.columns])
    labels = len(table.mean.index.names)
    layout = "l" * labels + "r" * (text.shape[1] - labels)
    return str(
        text.to_latex(
            index=False,
            escape=False,
            column_format=layout,
            caption=escaped(" ".join(table.below)),
            label=f"tab:{table.name}",
        )
    )


def escaped(text: str) -> str:
    """Return a text as LaTeX; backslashes and braces are taken for commands."""
    return text.translate(LATEX)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.2em 0.6em; text-align: right; }}
th {{ border-bottom: 1px solid; }}
:is(th, td):nth-child(-n+{labels}) {{ text-align: left; }}
</style>
</head>
<body>
{table}
{below}
</body>
</html>
"""


def html(table: Table) -> str:
    """Return a table as a page of HTML, the best bold, the second best in italics."""
    text, labels = table.text(lambda each, mark: each), len(table.mean.index.names)
    return page(text, table.name, table.below, labels, table.marks)


def page(text: pd.DataFrame, title: str, below: Sequence[str], labels: int, marks: pd.DataFrame | None = None) -> str:
    """Return text as a page of HTML; its first columns are labels, and marks are of the columns after them."""
    safe, tags = text.map(_html), {1: "<strong>{}</strong>", 2: "<em>{}</em>"}
    for i, (_, column) in enumerate([] if marks is None else marks.items()):
        cells = zip(safe.iloc[:, labels + i], column, strict=True)
        safe.isetitem(labels + i, [tags.get(mark, "{}").format(each) for each, mark in cells])
    safe.columns = pd.Index([_html(column) for column in text.columns])
    return PAGE.format(
        title=_html(title),
        labels=labels,
        table=safe.to_html(index=False, escape=False, border=0),
        below="\n".join(f"<p>{_html(each)}</p>" for each in below),
    )


def _html(text: str) -> str:
    return escape(text, quote=False)


def csv(table: Table) -> str:
    """Return a table as CSV: mean, std and n of each column, in per cent, unrounded.

    Where an encoder did not learn, a fourth number says of how many of the n runs.
    """
    parts = {"mean": table.mean, "std": table.std, "n": table.n}
    if table.marked and table.unlearned is not None:
        parts[NAME] = table.unlearned
    found = {
        f"{_title(column)} {kind}": part.iloc[:, i]
        for i, column in enumerate(table.mean.columns)
        for kind, part in parts.items()
    }
    return pd.DataFrame(found).reset_index().to_csv(index=False)


def write(table: Table, folder: Path) -> list[Path]:
    """Write a table as .md, .csv, .tex and .html, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for ending, render in (("md", markdown), ("csv", csv), ("tex", latex), ("html", html)):
        path = folder / f"{table.name}.{ending}"
        path.write_text(render(table), encoding="utf-8")
        found.append(path)
    return found
