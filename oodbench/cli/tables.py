"""The tables of a study, written as files and printed: leaderboards, those it declares, and against published ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from oodbench.cli import screen
from oodbench.errors import UserError

SHOWN = 10  # detectors of a front that are printed
RANKING = "aupr_in"  # which thresholds rank alike is told by it, too
TRACING = ("detector", "id_data", "version", "commit", "libraries", "device", "scored_at")  # no table shows them

if TYPE_CHECKING:
    from oodbench.report.comparison import Comparison
    from oodbench.report.tables import Table
    from oodbench.study.declarations import TableSpec
    from oodbench.study.document import Changed
    from oodbench.study.reader import Source


def columns(study: Path | Changed | None) -> list[str]:
    """Return the columns of rows that a study's tables are made of, or where none is said, what a run says of rows.

    What it is held against may ask for any.
    """
    from oodbench.report.tables import SHOWN as OF_BOARDS
    from oodbench.store.columns import ACCURACIES, CHOSEN_BY, COLUMNS, COMPAT, COSTS, INTERVALS, LABELS, METRICS
    from oodbench.study.reader import tables_of

    if study is None:
        return [*LABELS, "cell", "status", "error", "train_key", "classes", *ACCURACIES, "accuracy_by"]
    specs, select, _ = tables_of(study)
    if any(spec.against for spec in specs.values()):
        return list(COLUMNS)
    read = {*OF_BOARDS, RANKING, *(value for spec in specs.values() for value in spec.values)}
    read |= {select.by} if select else set()
    numbers = (*METRICS, *INTERVALS, *COMPAT, *CHOSEN_BY, *COSTS)
    return [name for name in COLUMNS if name in read or name not in (*numbers, *TRACING)]


def write(study: Path | Changed | None, folder: Path, rows: Any, top: int) -> None:
    """Write all tables of rows to a folder and print them, the `top` first methods of leaderboards.

    Those of a part of a study go to a folder in it: the study's own stay.
    """
    from oodbench.report import tables as making
    from oodbench.report import unmade

    if (rows["status"] == "ok").sum() == 0:
        return
    rows = unmade.declared(rows)
    to = folder / part(rows)
    for table, spec in made(study, rows, screen.warn):
        if spec is None:
            count = len(table.mean)
            again = count == 1 and table.name.startswith("best")  # of one training, the first line of its leaderboard
            publish(table, rows, to, f"{table.name}: {min(top, count)} of {count} methods", 0 if again else top)
            continue
        publish(table, rows, to / "tables")
        if spec.against and note(rows):
            screen.say(f"not held against {spec.against}: {note(rows).strip()}")
        elif spec.against and study:
            given, kept = (spec.against, study.parent), making.kept(rows, spec.of)
            hold(study, folder, f"{part(rows)}tables/{table.name}-against", kept, given, spec.values)
    screen.say(f"\nall tables, as .md, .csv, .tex and .html: {to}")


def part(rows: Any) -> str:
    """Return in which folder of a study's results tables of rows are: "" where they are not a part of them."""
    return "only/" if rows.attrs.get("only") else ""


def made(study: Source | None, rows: Any, warn: Callable[[str], None]) -> Iterator[tuple[Table, TableSpec | None]]:
    """Yield the tables of rows, and with those that a study declares what it says of them.

    `warn` hears of those that rows cannot make where rows are not all there.
    """
    from oodbench.report import tables as making
    from oodbench.study.reader import tables_of

    specs, select, floor = tables_of(study) if study else ({}, None, None)
    store = _store(study, rows)
    yield from ((table, None) for table in _boards(rows, select, floor, store))
    for name, spec in specs.items():
        try:
            if spec.rows:
                yield making.declared(rows, name, spec, floor), spec
            else:
                yield from ((table, spec) for table in _views(rows, name, spec, select, floor, store))
        except UserError as error:
            if not (rows.attrs.get("only") or rows.attrs.get("lacking")):
                raise
            warn(f"{error}, in the rows that there are: the table is not written")


def _boards(rows: Any, select: Any, floor: float | None, store: Any) -> Iterator[Table]:
    from oodbench.report.selection import selection
    from oodbench.report.tables import thresholds

    for both in _leaderboards(rows, floor, store):
        yield from both
    if every := thresholds(rows, floor):
        yield every
    if select:
        yield selection(rows, select, floor, store)


def _leaderboards(rows: Any, floor: float | None, store: Any) -> Iterator[tuple[Table, Table]]:
    """Yield each leaderboard, and its best row of each training."""
    from oodbench.report import halves
    from oodbench.report import tables as making

    for board, part in zip(making.leaderboards(rows, floor), making.boards(rows).values(), strict=True):
        yield board, halves.honest(making.best_of_each_training(board), board, part, store)


def _store(study: Source | None, rows: Any) -> Any:
    """Return the store that may keep scores of rows; None where there is none, or the rows are of stand-in data."""
    from oodbench.store.artifacts import Store
    from oodbench.study.reader import store_of

    place = store_of(study) if study and not note(rows) else None
    return Store(place) if place and place.is_dir() else None


def _views(rows: Any, name: str, spec: Any, select: Any, floor: float | None, store: Any) -> list[Table]:
    """Return the tables of a name that every study has as a study wants them, one for each ID data set."""
    from oodbench.errors import UserError
    from oodbench.report import selection
    from oodbench.report import tables as making

    rows = making.kept(rows, spec.of, f"table {name}: ")
    if name == "selection":
        found = [selection.selection(rows, select, floor, store)]
    elif name == "thresholds":
        found = [every] if (every := making.thresholds(rows, floor)) else []
    else:
        found = [board if name == "leaderboard" else best for board, best in _leaderboards(rows, floor, store)]
    if not found:
        raise UserError(f"table {name}: all rows have one threshold")
    return [making.view(board, spec) for board in found]


def note(rows: Any) -> str:
    """Return what a caption says first where rows are of stand-in data."""
    from oodbench.store.columns import STAND_IN
    from oodbench.store.rows import texts_of

    return f"{STAND_IN}. ".capitalize() if any(STAND_IN in each for each in texts_of(rows["warnings"])) else ""


def remarks(rows: Any) -> str:
    """Return what a caption says first of rows: that they are of stand-in data or of several machines, or not all."""
    from oodbench.report import unmade
    from oodbench.store.rows import machines

    said = (machines(rows), unmade.said(rows))
    return note(rows) + "".join(f"{each} " for each in said if each)


def publish(
    table: Table, rows: Any, folder: Path, title: str = "", top: int | None = None, endings: Sequence[str] = ()
) -> None:
    """Write a table as files, or as some of them, remarks before its caption, and print its `top` first rows."""
    from oodbench.report import formats

    table = replace(table, caption=remarks(rows) + table.caption)
    formats.write_table(table.sheet(), folder, endings or tuple(formats.FORMATS))
    if top != 0:
        screen.show(table, title or table.name, len(table.mean) if top is None else top)


def recommend(folder: Path, rows: Any, floor: float | None = None) -> None:
    """Write to a folder which detector of rows to take, and print it, the answer first."""
    from oodbench.report import formats
    from oodbench.report import recommend as report

    every, without = report.recommendations(rows, floor)
    below = [remarks(rows) + report.caption(every, floor), *without]
    formats.write_table(report.sheet(every, below), folder)
    screen.say("")
    for i, sentence in enumerate(report.sentences(every[0])):
        screen.prose(sentence, "" if i else "bold")
    screen.lines(report.answers(every), 2)
    front = report.fronts(every[0])
    screen.lines(front[:SHOWN], 1)
    if len(front) > SHOWN:
        screen.say(f"the first {SHOWN} of {len(front)}")
    for each in without:
        screen.warn(each)
    screen.caption(f"\n{below[0]}")
    screen.say(f"\nas .md, .csv, .tex and .html, every detector in .csv: {folder}")


def hold(
    study: Path | Changed, folder: Path, name: str, rows: Any, given: tuple[str, Path], metrics: tuple[str, ...] = ()
) -> None:
    """Hold rows in a folder of results against published numbers (of some metrics, or all), write and print it."""
    from oodbench.report import comparison, formats

    found = _compared(study, folder, rows, given, metrics)
    file = folder / name
    formats.write_table(comparison.sheet(found, file.name), file.parent)
    _show(found, file)


def _compared(
    study: Source, folder: Path, rows: Any, given: tuple[str, Path], metrics: tuple[str, ...] = ()
) -> Comparison:
    from oodbench.report import comparison, targets
    from oodbench.store.rows import Results
    from oodbench.study.reader import registry_of, tables_of

    registry, (_, select, _) = registry_of(study), tables_of(study)
    wanted = [each for each in targets.load(targets.find(*given), registry) if not metrics or each.metric in metrics]
    by = select.by if select else "val_auroc"
    kept = Results(folder, screen.warn)
    rows = rows.assign(ood=rows["ood"].replace((kept.plan() or {}).get("called", {})))  # targets know no study's `as:`
    return comparison.compare(rows, kept.run, wanted, registry, by)


def beside_published(study: Source, folder: Path, rows: Any) -> tuple[str, Any] | None:
    """Return our numbers beside the published ones that tables of a study name, with a caption; None without any."""
    import pandas as pd

    from oodbench.report import comparison
    from oodbench.report import tables as making
    from oodbench.study.reader import tables_of

    beside = Path() if isinstance(study, Mapping) else study.parent
    specs = [spec for spec in tables_of(study)[0].values() if spec.against]
    if not specs or note(rows):
        return None
    found = [
        _compared(study, folder, making.kept(rows, spec.of), (spec.against, beside), spec.values) for spec in specs
    ]
    shown = [
        comparison.table(each).assign(
            difference=[line.difference for line in each.lines], state=[line.state for line in each.lines]
        )
        for each in found
    ]
    return found[0].caption, pd.concat(shown, ignore_index=True).drop_duplicates(ignore_index=True)


def _show(found: Comparison, file: Path) -> None:
    from oodbench.report import comparison as against

    colours = {against.REPRODUCED: "green", against.UNDECIDED: "yellow", against.DIFFERENT: "red"}
    text = against.table(found)
    shown = screen.columns(*text.columns)
    for line, (_, cells) in zip(found.lines, text.iterrows(), strict=True):
        shown.add_row(*(screen.text(each, colours.get(line.state, "")) for each in cells))
    counts = ", ".join(f"{found.count(each)} {each}" for each in against.STATES)
    screen.out.print(f"\n[bold]{escape(file.name)}[/]: {counts}", markup=True)
    if found.lines:
        screen.out.print(shown)
    screen.caption(found.caption)
    screen.say(f"as .md, .csv, .tex and .html: {file}.*")
