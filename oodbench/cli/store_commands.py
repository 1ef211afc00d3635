"""Commands on what is kept: show where a number comes from, compact rows, verify, rekey and free artifacts."""

from __future__ import annotations

import getpass
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from oodbench.cli import arguments, screen
from oodbench.cli.arguments import DryData, Plugins, Set, StudyFile
from oodbench.cli.cluster.commands import say_jobs
from oodbench.cli.progress import STAGES
from oodbench.errors import UserError, suggestion
from oodbench.store.columns import COLUMNS, LABELS

if TYPE_CHECKING:
    from oodbench.exchange.submit import FeatureFolder
    from oodbench.store.heartbeat import Beat
    from oodbench.store.merge import Merged
    from oodbench.store.rows import Results
    from oodbench.store.standing import WorkStanding
    from oodbench.study.document import Changed

Which = Annotated[
    list[str],
    typer.Argument(
        help="Words of a table's line (supcon mahalanobis near seed=0); or a cell's hash, or its start, or CELL/OOD.",
        show_default=False,
    ),
]
SHORT = 10  # signs of a hash that is shown
CONFLICTS = 10  # that are named
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
        screen.say(f"{folder} has no plan: no run has come to its work yet; one that prepares data is not seen here")
        if running:
            _say_running(running)
        say_jobs(folder)
        return
    if not dry_data and plan.get("of") not in (None, reader.stamp(read(study))):
        screen.warn(f"{study} or its plugins have changed since its last run, by whose plan this is")
    rows = results.current(["score_seconds"])
    found = standing(plan, rows, results.runs(), running)
    _show_standing(found)
    _say_running(running)
    say_jobs(folder)
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
    current, found = rows_called(which, given)
    if found["cell"].nunique() > 1:
        list_cells(study, found)
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


def list_cells(study: Path, found: Any, command: str = "show") -> None:
    """Print the cells of rows, each by its hash and the labels in which they differ."""
    from oodbench.store.named import varying

    cells, names = found.drop_duplicates("cell"), varying(found)
    table = screen.columns("cell", *names)
    for _, each in cells.head(MOST).iterrows():
        table.add_row(each["cell"][:SHORT], *(screen.text(str(each[name])) for name in names))
    screen.out.print(table)
    shown = f", {MOST} of them shown" if len(cells) > MOST else ""
    screen.say(
        f"{len(cells)} cells are called so{shown}; add a word, such as seed=0, or: oodbench {command} {study} CELL"
    )


def one_cell(study: Path, which: list[str], given: Results, command: str) -> Any:
    """Return the rows of the one cell that is called so. Raises UserError where several are, which it prints."""
    _, found = rows_called(which, given)
    if found["cell"].nunique() > 1:
        list_cells(study, found, command)
        raise UserError(f"{command} is of one cell; give a word more, or the hash of one of these")
    return found


def rows_called(which: list[str], given: Results) -> tuple[Any, Any]:
    """Return the current rows, and those of CELL or CELL/OOD or of words, by SAME and LABELS.

    Of a cell these are the current one of each OOD set, else the newest.
    """
    import pandas as pd

    from oodbench.store import named

    cell, _, ood = which[0].partition("/")
    cells = given.cells(cell) if len(which) == 1 else {}
    training = next(iter(cells.values()))[-1] if len(cells) == 1 else None
    current = given.current([*LABELS, "train_key"], training, set(cells) or None)
    if cells or current.empty:
        trainings = next(iter(cells.values())) if len(cells) == 1 else [None]
        columns = [*LABELS, "train_key", "scored_at"]
        read = (given.read(columns, each, set(cells) or None) for each in trainings)
        newest = pd.concat(read).sort_values("scored_at", kind="stable")
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


def merge(
    others: Annotated[
        list[Path], typer.Argument(help="Folders of results of other machines, of all studies or of one.")
    ],
    into: Annotated[Path, typer.Option("--into", help="Folder of results that gets them, of all studies or of one.")],
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Take weights, features and prepared sets, too, of OTHER/store.")
    ] = False,
) -> None:
    """Take rows, runs and, if wanted, artifacts that other machines made; what does not fit is named."""
    from oodbench.store import merge as merging
    from oodbench.store.artifacts import Store

    groups: dict[Path, list[Path]] = {}
    for other in others:
        for folder in _of_studies(other):
            groups.setdefault(into if _is_study(into) else into / folder.name, []).append(folder)
    damaged = 0
    root = into.parent if _is_study(into) else into
    store, left = Store(Path(os.environ.get("OODBENCH_STORE") or root / "store"), screen.warn), set[str]()
    for target, members in groups.items():
        found = merging.merge(members, target, store)
        left |= found.apart_keys
        damaged += len(found.damaged)
        _say_merged(target, found)
    if artifacts:
        messages: list[str] = []
        for folder in dict.fromkeys(
            each / "store" if not _is_study(each) else each.parent / "store" for each in others
        ):
            if not folder.is_dir():
                raise UserError(f"--artifacts: there is no store {folder}")
            counts = merging.artifacts(folder, store, left, messages.append)
            said = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no artifacts"
            screen.say(f"{folder}: {said} taken")
        for message in messages:
            screen.warn(message)
        damaged += len(messages)
    if damaged:
        raise typer.Exit(1)


def submit(
    study: StudyFile,
    to: Annotated[Path, typer.Option("--to", help="The zip to write.")],
    who: Annotated[str, typer.Option(help="Whose results they are; default: the name of this login.")] = "",
    features: Annotated[
        bool, typer.Option("--features", help="Enclose the features of one run of each training, to be scored again.")
    ] = False,
    set_: Set = None,
) -> None:
    """Pack a study, its rows and runs, and how they were made, into a zip for somebody's board."""
    from oodbench.exchange import archive
    from oodbench.exchange import submit as packing
    from oodbench.study.document import read
    from oodbench.study.reader import registry_of

    if to.suffix != ".zip":
        raise UserError(f"--to {to}: wanted is a file that ends in .zip")
    source = arguments.changed(study, set_)
    given, rows = arguments.rows(source, ok=True)
    who = who or getpass.getuser()
    with tempfile.TemporaryDirectory(prefix="oodbench-submit-") as folder:
        enclosed = _features(source, rows, Path(folder)) if features else []
        facts, members = packing.submit(read(source), registry_of(source), given, rows, who, enclosed)
        archive.write(to, facts, members)
    trainings = rows["train_key"].nunique()
    said = f"{len(rows)} rows of {trainings} trainings, the study's file, parameters and circumstances of each training"
    screen.say(f"{to} ({decimal(to.stat().st_size)}), as {who}: {said}, features of {len(enclosed)}")


def _features(study: Path | Changed, rows: Any, to: Path) -> list[FeatureFolder]:
    """Write the features of the first run of each training to a folder."""
    from oodbench.exchange.submit import FeatureFolder
    from oodbench.execution.exports import Exported, export

    labels = ["training", "id", "encoder", "outliers", "recipe", "precision"]
    keys = rows[rows["status"] == "ok"].drop_duplicates(labels)["train_key"]
    with arguments.at_work(arguments.load(study)) as pipeline:
        found = [*export(pipeline, to, frozenset(keys))]
    if lost := [each.title for each in found if not isinstance(each, Exported)]:
        raise UserError(f"--features: {lost[0]} is not in the store; oodbench run {study} trains it again")
    return [FeatureFolder(each.key, each.folder, each.stems) for each in found if isinstance(each, Exported)]


def board(
    folder: Annotated[Path, typer.Argument(help="A folder of submissions, *.zip; the board is written to it.")],
    sample: Annotated[int, typer.Option(help="Cells of each submission to score again.", min=0)] = 5,
    tolerance: Annotated[float, typer.Option(help="By how much such an AUROC may be off, as a share.", min=0)] = 1e-6,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="A table of OpenOOD or pytorch-ood (.csv), or a folder of them; not verified."),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Verify the submissions in a folder and make one board of them; nothing of them is run."""
    from oodbench.exchange import board as making
    from oodbench.exchange import foreign
    from oodbench.report import formats
    from oodbench.report.tables import counted
    from oodbench.study.registry import Registry

    how = making.Sampling(sample, tolerance)
    others = foreign.tables(beside or ())
    zips, registry = making.find(folder), Registry(plugins or [])
    found = making.board(zips, how, lambda name: screen.err.print(f"looking at {name}", markup=False), registry)
    making.beside(others, found)
    for problem in found.problems:
        screen.warn(problem)
    if not found.submissions:
        raise UserError(f"{folder}: no submission in it has a line")
    sheet = making.sheet(found, how)
    formats.write_table(sheet, folder)
    _show_board(sheet.text)
    for line in (*found.submissions, *found.foreign):
        screen.say(line)
    screen.caption(sheet.below[0])
    counts = f"{counted(len(found.submissions), 'submission')}, {counted(len(sheet.text), 'line')}"
    screen.say(f"\n{counts}: {folder / making.NAME}.md, .csv, .tex and .html")
    if found.problems:
        raise typer.Exit(1)


def _show_board(text: Any) -> None:
    """Print what tells the lines of a board apart, and their AUROC by group; all of it is in the files."""
    from oodbench.report.tables import SHOWN_GROUPS
    from oodbench.study.grid import NONE

    scorers = ["space", "clustering", "distance", "posthoc"]
    detector = [" · ".join(part for part in line if part != NONE) for line in text[scorers].to_numpy()]
    differ = [each for each in ("study", "ID", "data") if text[each].nunique() > 1]
    names = ["who", *differ[:1]]
    numbers = [each for each in (f"{group} AUROC" for group in SHOWN_GROUPS) if each in text]
    columns = [*names, "training"]
    shown = screen.columns(*columns, "detector", *numbers, "n")
    for labels, scorer, values in zip(
        text[columns].to_numpy(), detector, text[[*numbers, "n"]].to_numpy(), strict=True
    ):
        shown.add_row(*map(screen.text, (*labels, scorer, *values)))
    screen.out.print(shown)


def _is_study(folder: Path) -> bool:
    """Return whether a folder of results is of one study."""
    return (folder / "rows").is_dir() or (folder / "plan.json").is_file()


def _of_studies(other: Path) -> list[Path]:
    found = [other] if _is_study(other) else [each for each in sorted(other.glob("*")) if _is_study(each)]
    if not found:
        raise UserError(f"{other}: there are no results in it; wanted is a folder such as results or results/STUDY")
    return found


def _say_merged(folder: Path, found: Merged) -> None:
    """Say what was taken into a study's results, what is in conflict, and what lies apart by how much it differs."""
    from oodbench.cli import tables
    from oodbench.report.machines import variance
    from oodbench.store.rows import Results

    screen.say(f"{folder}: {found.rows} rows and {found.runs} trainings taken, {found.same} rows were there")
    for line in [*found.notes, *found.damaged]:
        screen.warn(line)
    for line in found.conflicts[:CONFLICTS]:
        screen.complain("[yellow]conflict:[/]", line)
    if len(found.conflicts) > CONFLICTS:
        screen.say(f"and {len(found.conflicts) - CONFLICTS} conflicts more")
    for apart, count in found.apart.items():
        said = "another machine made these trainings in other numbers; they lie apart, in no table of the study"
        screen.say(f"{count} new rows in {apart}: {said}")
        here, there = Results(folder).current(), Results(apart).current()
        with suppress(UserError):  # nothing in common to compare
            tables.publish(variance(here, there), here, apart)


def _studies(folder: Path) -> list[Path]:
    files = [folder] if folder.is_file() else sorted({*folder.rglob("*.yaml"), *folder.rglob("*.yml")})
    if not files:
        raise UserError(f"there is no study (*.yaml or *.yml) in {folder}")
    return files
