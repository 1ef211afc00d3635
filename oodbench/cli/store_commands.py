"""Commands on what is kept: show where a number comes from, compact rows, verify, rekey and free artifacts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from oodbench.cli import arguments, screen
from oodbench.cli.arguments import DryData, StudyFile
from oodbench.cli.progress import STAGES
from oodbench.errors import UserError, suggestion
from oodbench.store.columns import COLUMNS, LABELS

if TYPE_CHECKING:
    from oodbench.store.heartbeat import Beat
    from oodbench.store.rows import Results
    from oodbench.store.standing import WorkStanding

Which = Annotated[
    list[str],
    typer.Argument(
        help="Words of a table's line (supcon mahalanobis near seed=0); or a cell's hash, or its start, or CELL/OOD.",
        show_default=False,
    ),
]
SHORT = 10  # signs of a hash that is shown
MOST = 40  # cells that are listed
Paths = Annotated[list[Path], typer.Argument(help="Studies, or folders of them: what any of them needs is kept.")]


def status(study: StudyFile, dry_data: DryData = False) -> None:
    """Say what of a study is done, failed and missing, and who is at work on it now; needs no torch."""
    from oodbench.store.heartbeat import beats
    from oodbench.store.rows import Results
    from oodbench.store.standing import rest, standing
    from oodbench.study import reader
    from oodbench.study.document import read
    from oodbench.study.study import DRY

    folder = reader.results_of(study)
    folder = folder.with_name(folder.name + DRY) if dry_data else folder
    results = Results(folder, screen.warn)
    running = beats(folder)
    plan = results.plan()
    if plan is None or "work" not in plan:
        screen.say(f"{folder} has no plan: no run has come to its work yet")
        _say_running(running)
        return
    if not dry_data and plan.get("of") not in (None, reader.stamp(read(study))):
        screen.warn(f"{study} or its plugins have changed since its last run, by whose plan this is")
    rows = results.current(["score_seconds"])
    found = standing(plan, rows, results.runs(), running)
    _show_standing(found)
    _say_running(running)
    if again := beats(folder / arguments.LESSER_CPU / folder.name):
        screen.say("once more, as a lesser CPU (`variance`):")
        _say_running(again)
    alive = sum(not each.is_gone for each in running)
    cells, done = sum(each.cells for each in found), sum(each.done for each in found)
    failed, trained = sum(each.failed for each in found), sum(each.trained for each in found)
    parts = f"{done} done, {failed} failed, {cells - done - failed} missing"
    screen.say(f"{trained} of {len(found)} trainings, {cells} cells: {parts}")
    if any(each.rows_missing for each in found):
        left = rest(found, rows, alive)
        takes = "unknown until a training is scored" if left is None else f"about {screen.duration(left)}"
        by = f" with {alive} at work" if alive else " in one process"
        screen.say(f"left: {takes}{by}")


def _show_standing(found: list[WorkStanding]) -> None:
    """Print a line for each training, all its seeds together."""
    table = screen.columns("training", "trained", "cells", "done", "failed", "missing", "now")
    for column in table.columns[1:6]:
        column.justify, column.no_wrap = "right", True
    groups: dict[str, list[WorkStanding]] = {}
    for each in found:
        groups.setdefault(each.group, []).append(each)
    parts = [group.split(" · ") for group in groups]
    shared = [each for each in parts[0] if len(parts) > 1 and all(each in others for others in parts)]
    for group, members in groups.items():
        title = " · ".join(each for each in group.split(" · ") if each not in shared)
        counts = (sum(getattr(each, name) for each in members) for name in ("cells", "done", "failed", "missing"))
        now = sum(each.beat is not None for each in members)
        trained = f"{sum(each.trained for each in members)} of {len(members)}"
        table.add_row(screen.text(title), trained, *map(str, counts), f"{now} at work" if now else "")
    if shared:
        screen.say(f"all of {' · '.join(shared)}")
    screen.out.print(table)


def _say_running(running: list[Beat]) -> None:
    """Say what each process is at, and which have ended without a word."""
    for each in running:
        who = f"worker {each.worker}, process {each.pid} on {each.host}"
        if each.is_gone:
            heard = screen.duration(time.time() - each.at)
            screen.warn(f"{who} is gone, last heard of {heard} ago: it was killed; the next run goes on where it was")
            continue
        since = f"for {screen.duration(time.time() - each.since)}" if each.since else ""
        part = f", epoch {each.epoch} of {each.epochs}" if each.epochs else ""
        part += f", {each.rows} of {each.of} rows" if each.of else ""
        quiet = f"; last heard of {screen.duration(time.time() - each.at)} ago" if each.is_quiet else ""
        doing = f"{STAGES.get(each.stage, each.stage)} {each.title}{part} {since}".strip() or "begins"
        screen.say(f"{who}, {each.device}: {doing}{quiet}")
    if not any(not each.is_gone for each in running):
        screen.say("nothing runs now")


def show(study: StudyFile, which: Which) -> None:
    """Say where a number comes from: parameters, seed, data, commit, versions, device, seconds."""
    import pandas as pd

    from oodbench.cli.kept import results
    from oodbench.store.rows import SAME

    given = results(study, screen.warn)
    current, found = _rows(which, given)
    if found["cell"].nunique() > 1:
        _list_cells(study, found)
        return
    in_tables = set(current[current["cell"].isin(found["cell"])][SAME].itertuples(index=False, name=None))
    read = (given.read(training=key, cells=set(found["cell"])) for key in found["train_key"].unique())
    whole = pd.concat(read).drop(columns="group")
    whole = found[[*SAME, "group"]].merge(whole, on=SAME)[list(COLUMNS)]
    for record in whole.to_dict("records"):
        if tuple(record[name] for name in SAME) not in in_tables:
            where = f"{record['cell']}/{record['ood']}"
            reason = "code or data have changed since, or the study no longer has this cell"
            screen.warn(f"{where} is in no table: {reason}")
        shown = {name: value for name, value in record.items() if value != "" and pd.notna(value)}
        screen.out.print_json(json.dumps(shown, default=str))
    for train_key in whole["train_key"].unique():
        facts = given.run(train_key)
        if facts is None:
            lost = f"the training {train_key} behind it is not known: runs/{train_key}.json is lost or damaged"
            screen.warn(f"{lost}; where the training is in the store, oodbench run {study} writes it again")
            continue
        screen.say(f"the training {train_key} behind it:")
        screen.out.print_json(json.dumps(facts))


def _list_cells(study: Path, found: Any) -> None:
    """Print the cells of rows, each by its hash and the labels in which they differ."""
    from oodbench.store.named import varying

    cells, names = found.drop_duplicates("cell"), varying(found)
    table = screen.columns("cell", *names)
    for _, each in cells.head(MOST).iterrows():
        table.add_row(each["cell"][:SHORT], *(screen.text(str(each[name])) for name in names))
    screen.out.print(table)
    shown = f", {MOST} of them shown" if len(cells) > MOST else ""
    screen.say(f"{len(cells)} cells are called so{shown}; add a word, such as seed=0, or: oodbench show {study} CELL")


def _rows(which: list[str], given: Results) -> tuple[Any, Any]:
    """Return the current rows, and those of CELL or CELL/OOD or of words, by SAME and LABELS.

    Of a cell these are the current one of each OOD set, else the newest.
    """
    import pandas as pd

    from oodbench.store import named

    cell, _, ood = which[0].partition("/")
    cells = given.cells(cell) if len(which) == 1 else {}
    training = next(iter(cells.values())) if len(cells) == 1 else None
    current = given.current([*LABELS, "train_key"], training, set(cells) or None)
    if cells or current.empty:
        newest = given.read([*LABELS, "train_key", "scored_at"], cells=set(cells) or None)
        newest = newest.sort_values("scored_at", kind="stable")
        table = pd.concat([newest, current]).drop_duplicates(["cell", "ood"], keep="last")
        if table.empty:
            raise arguments.without_rows(given)
    if not cells:
        return current, named.rows(table if current.empty else current, which)
    if ood and ood not in set(table["ood"]):
        raise UserError(f"the cell {cell} has no OOD set '{ood}'{suggestion(ood, set(table['ood']))}")
    return current, table[table["ood"] == ood] if ood else table


def compact(study: StudyFile) -> None:
    """Put the part files of a study's rows into one."""
    from oodbench.cli.kept import results

    given = results(study, screen.warn)
    parts = given.compact()
    if not parts:
        raise UserError(f"{given.folder} has no rows; run the study first")
    screen.say(f"{parts} part files are one now" if parts > 1 else "the rows are in one part file already")


def verify(study: StudyFile) -> None:
    """Check a study's results and every artifact in its store against their hashes; damaged ones are set aside."""
    from oodbench.store.artifacts import Store
    from oodbench.store.rows import Results

    damaged: list[str] = []
    loaded = arguments.load(study)
    store, files = Store(loaded.store, damaged.append), Results(loaded.results, damaged.append).check()
    checked = [store.read(kind, key) for kind in store.kinds() for key in store.keys(kind)]
    for message in damaged:
        screen.warn(message)
    if said := Results(loaded.results).current(["cell"]).attrs.get("lacking"):
        screen.warn(said)
    what = f"{len(checked)} artifacts and {files} files of {loaded.results}"
    screen.say(f"{what} checked, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(1)


def rekey(study: StudyFile) -> None:
    """Carry store and rows over to the keys of today's code, on your word that it changes no number; trains nothing."""
    with arguments.at_work(study) as pipeline:
        from oodbench.execution import rekey as carrying
        from oodbench.execution.runner import Runner

        found = carrying.rekey(Runner(pipeline.study, pipeline.options, pipeline.watch))
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.artifacts.items()) or "no artifacts"
    screen.say(f"{kinds}, {found.rows} rows have the keys of today's code; runs say what they were")
    if found.left:
        screen.warn(f"{found.left} rows are of other parameters or data now, and were left")


def gc(
    paths: Paths,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed, free nothing.")] = False,
) -> None:
    """Free what no study in a folder needs any more from the store that they share."""
    from oodbench.study import reader

    studies = [reader.load(file) for path in paths for file in _studies(path)]
    from oodbench.execution.garbage import garbage

    store, found = garbage(studies, screen.warn)
    freed = decimal(sum(store.size(kind, key) for kind, key in found))
    if not dry_run:
        for kind, key in found:
            store.remove(kind, key)
        removed, others = store.tidy()
        if removed:
            screen.say(f"removed {removed} folders that killed processes left half made")
        if others:
            said = f"{len(others)} folders are half made by processes at work, or left by killed ones of other machines"
            screen.say(f"{said}, such as {others[0]}; where nothing runs, they may be deleted")
    screen.say(f"{'would free' if dry_run else 'freed'} {len(found)} artifacts, {freed}, in {store.root}")


def _studies(folder: Path) -> list[Path]:
    files = [folder] if folder.is_file() else sorted({*folder.rglob("*.yaml"), *folder.rglob("*.yml")})
    if not files:
        raise UserError(f"there is no study (*.yaml or *.yml) in {folder}")
    return files
