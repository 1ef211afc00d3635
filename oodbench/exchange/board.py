"""One board of many people's results: every submission verified, each in lines of its own, never a mean over people.

Tables of other codebases may stand beside them, marked as not verified; no claim is decided by them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from oodbench.errors import UserError, printable
from oodbench.exchange import foreign
from oodbench.exchange.archive import ROWS, Archive
from oodbench.exchange.checks import Verified, check, claims
from oodbench.exchange.parameters import Parameters
from oodbench.report.formats import Sheet
from oodbench.report.tables import (
    METHOD,
    Table,
    best_of_each_training,
    boards,
    counted,
    distinct,
    leaderboards,
    named,
    spread,
)
from oodbench.report.unmade import declared
from oodbench.store.artifacts import digest
from oodbench.study.grid import NONE
from oodbench.study.registry import Registry

NAME = "board"
UNREADABLE = (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError, OverflowError)
ALWAYS = ("training", "space", "clustering", "distance", "posthoc")
LEVELS = ("who", "study", "ID", *METHOD)  # what a line is called by
CAPTION = (
    "The row of each training of each submission that is highest by its first AUROC, on the test sets: on the images "
    "that its numbers are of, so this AUROC is too high by what picking gains. Per cent, mean ± standard deviation "
    "(ddof 1) over the n runs of one submission: nothing is averaged over people. Lines of the same `data` were tested "
    "on the same images; others do not compare. `keys fit`: each row is of the parameters that it states and of the "
    "plan; names are made of these parameters. `scored again`: cells drawn anew for this board whose AUROC followed "
    "from the enclosed features to within {tolerance:g}. That features are of the stated training, and who ran it "
    "where, is as the submission says."
)


FOREIGN = (
    "`not verified`: read from a table of another codebase, which does not tell what it is of. ± is as it says "
    "(OpenOOD: ddof 0), FPR@95 is whatever its version counts. These lines compare with no other, and decide no claim."
)
UNKNOWN = "not told"  # which images a line of another codebase is of


@dataclass
class SharedBoard:
    """The lines of a board as text and numbers, and what was wrong with submissions."""

    texts: list[pd.DataFrame] = field(default_factory=list)
    numbers: list[pd.DataFrame] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what marks mean
    foreign: list[str] = field(default_factory=list)  # tables of other codebases that have lines
    submissions: list[str] = field(default_factory=list)  # of those that have lines: who, when, where, what is verified


@dataclass(frozen=True)
class Sampling:
    """How many cells of a submission are scored again, and how far an AUROC may be off."""

    cells: int
    tolerance: float


def board(
    paths: Iterable[Path], how: Sampling, tell: Callable[[str], None], registry: Registry | None = None
) -> SharedBoard:
    """Return the board of submissions. A damaged one is a problem and has no line; `tell` hears which is looked at.

    The registry has the plugins that rows are made of; without it there are the package's and installed ones. A row
    that is forged, or does not fit its parameters, is a problem and in no number.
    """
    found, parameters, seen = SharedBoard(), Parameters(registry or Registry()), dict[str, str]()
    for path in paths:
        tell(path.name)
        try:
            with Archive(path) as archive:
                verified = check(archive, parameters)
                again = _again(archive, verified, parameters, how)
                verified.said += [*claims(archive, verified), again]
                verified.rows = parameters.named(verified.rows, verified.trained)
                content = archive.facts.files[ROWS]
                if content in seen:
                    verified.said.append(f"the same rows as {seen[content]}")
                seen.setdefault(content, path.name)
                found.problems += verified.problems
                _lines(archive, verified, found)
        except UserError as error:
            found.problems.append(f"{error}; it has no line")
        except UNREADABLE as error:  # a stranger's values may be of any kind
            said = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            found.problems.append(printable(f"{path}: holds what no run writes ({said}); it has no line"))
    return found


def beside(paths: Iterable[Path], found: SharedBoard) -> None:
    """Add the lines of tables of other codebases to a board; one that cannot be read is a problem."""
    for path in paths:
        try:
            lines = foreign.read(path)
        except UserError as error:
            found.problems.append(f"{error}; it has no line")
            continue
        text, numbers = _of_foreign(path, lines)
        found.texts.append(text)
        found.numbers.append(numbers)
        found.foreign.append(
            f"{printable(path.name)}: {lines[0].codebase}, {counted(len(lines), 'line')}, not verified"
        )


def _of_foreign(path: Path, lines: list[foreign.ForeignLine]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the lines of a table as text and as numbers."""
    about = {"ID": UNKNOWN, "data": UNKNOWN, "verified": f"not verified: {printable(str(path))}"}
    texts, numbers = [], []
    for each in lines:
        order = next(iter(each.numbers.values())).mean
        labels = {"who": each.codebase, "study": printable(path.name), "posthoc": each.method, **about, "order": order}
        texts.append(labels | {title: spread(*number) for title, number in each.numbers.items()})
        numbers.append(labels | {f"{title} mean": number.mean for title, number in each.numbers.items()})
        numbers[-1] |= {f"{title} std": number.std for title, number in each.numbers.items()}
    return pd.DataFrame(texts), pd.DataFrame(numbers)


def _again(archive: Archive, verified: Verified, parameters: Parameters, how: Sampling) -> str:
    """Score some cells again, leave out what is forged, and return what was verified."""
    if not archive.facts.features:
        return "scores not enclosed"
    if not how.cells:
        return "nothing scored again"
    from oodbench.exchange.rescore import rescore  # takes torch

    done = rescore(archive, verified.rows, parameters, how.cells, how.tolerance)
    places = pd.MultiIndex.from_frame(verified.rows[["cell", "ood"]])
    for at, why in done.forged.items():
        verified.drop(pd.Series(places == at), archive.path.name, why)
        places = pd.MultiIndex.from_frame(verified.rows[["cell", "ood"]])
    for reason, count in done.reasons.items():
        verified.problems.append(printable(f"{archive.path.name}: {count} cells could not be scored again: {reason}"))
    return f"{done.agree} of {done.cells} cells scored again agree" if done.cells else "no cell could be scored again"


def _lines(archive: Archive, verified: Verified, found: SharedBoard) -> None:
    """Add the lines of a submission."""
    rows = verified.rows
    if not (rows["status"] == "ok").any():
        found.problems.append(f"{archive.path.name}: no row of it stands; it has no line")
        return
    who, of = printable(archive.facts.who), [_called(archive), rows["scored_at"].max()[:10], _several(rows["commit"])]
    facts = ", ".join([*of, _several(rows["trained_on"])])
    made = SharedBoard()
    every = declared(rows)
    for (name, own), leaderboard in zip(boards(every).items(), leaderboards(every), strict=True):
        table = best_of_each_training(leaderboard)
        where = {"who": archive.facts.who, "study": _called(archive), "ID": name}
        about = {
            "data": digest(sorted({*own[["id", "ood", "ood_data"]].itertuples(index=False, name=None)}))[:6],
            "machine": _several(own["trained_on"]),
            "date": own["scored_at"].max()[:10],
            "commit": _several(own["commit"]),
            "verified": "; ".join(verified.said),
        }
        labels = _labels(own, table)
        labels = labels.assign(**where, **about, order=table.mean[table.ranked_by].to_numpy())
        text, numbers = (part.drop(columns=[*METHOD], errors="ignore") for part in (table.text(), table.numbers()))
        marked = labels.assign(training=table.text()["training"])  # what did not learn is marked there
        made.texts.append(pd.concat([marked, text], axis=1))
        made.numbers.append(pd.concat([labels, numbers], axis=1))
        made.notes += table.below[1:]
    found.texts += made.texts  # all of them, or none
    found.numbers += made.numbers
    found.notes = list(dict.fromkeys([*found.notes, *made.notes]))
    found.submissions.append(printable(f"{archive.path.name}: {who}, {facts}: {'; '.join(verified.said)}"))


def _labels(rows: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Return what each line of a leaderboard of rows is called on every axis, also on those that it goes without."""
    lines = table.mean.index.to_frame(index=False)
    once = named(distinct(rows))
    once = once.assign(whole=rows["recipe"].reindex(once.index)).drop_duplicates([*lines])
    found = lines.merge(once, "left", on=[*lines])
    return found.assign(recipe=found["whole"])[[*METHOD]]


def _called(archive: Archive) -> str:
    changes = archive.facts.changes
    return archive.facts.study + (f" --set {' '.join(changes)}" if changes else "")


def _several(column: pd.Series[str]) -> str:
    """Return the values of a column, each once; an unknown one by a dash."""
    return " / ".join(each or NONE for each in column.unique())


def sheet(found: SharedBoard, how: Sampling) -> Sheet:
    """Return a board as a table, the lines of the same data together, the highest first."""
    text, numbers = _sorted(found.texts), _sorted(found.numbers)
    below = [CAPTION.format(tolerance=how.tolerance), *[FOREIGN] * bool(found.foreign), *found.notes, *found.problems]
    return Sheet(
        NAME, text.astype(object).fillna(NONE).astype(str), below, numbers, sum(each in text for each in LEVELS)
    )


def _sorted(parts: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True).sort_values(["data", "order"], ascending=[True, False])
    plain = [each for each in METHOD if each not in ALWAYS and table[each].nunique() == 1]  # alike on all lines
    last = ["data", "machine", "date", "commit", "verified"]
    numbers = [each for each in table if each not in (*LEVELS, *last, "order", "n")]
    n = [each for each in table if each == "n"]
    found: pd.DataFrame = table[[*(each for each in LEVELS if each not in plain), *numbers, *n, *last]]
    return found.reset_index(drop=True)


def find(folder: Path) -> list[Path]:
    """Return the submissions in a folder. Raises UserError where there is none."""
    found = sorted(each for each in folder.glob("*.zip") if re.search(r"^[^.]", each.name))
    if not found:
        raise UserError(f"{folder}: there is no submission (*.zip) in it")
    return found
