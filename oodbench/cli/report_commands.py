"""Commands from a study's rows to its tables and page: tables, report, verdict, quality, curve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.text import Text

from oodbench.cli import arguments, screen, tables
from oodbench.cli.arguments import Device, DryData, Memory, StudyFile, Top, Without
from oodbench.cli.progress import Board
from oodbench.errors import UserError

Against = Annotated[
    str, typer.Option(help="Published numbers to hold the rows against: a CSV, a folder of them, or `targets`, ours.")
]


def tables_(
    study: StudyFile,
    top: Top = 20,
    against: Against = "",
    dry_data: DryData = False,
) -> None:
    """Write the tables of a study again from its rows; needs neither torch nor a GPU."""
    if against and dry_data:
        raise UserError("--against: the numbers of a dry run mean nothing")
    given, rows = arguments.rows(study, dry_data)
    folder = given.folder.parent
    tables.write(study, folder, rows, top)
    if against:
        from oodbench.report.unmade import declared

        tables.hold(study, folder, f"against-{Path(against).resolve().stem}", declared(rows), (against, Path()))


def report(
    study: StudyFile,
    to: Annotated[Path | None, typer.Option(help="The file to write; report.html in the results, if not said.")] = None,
    dry_data: DryData = False,
) -> None:
    """Write a study as one page of HTML, which opens from disk without a network; needs neither torch nor a GPU."""
    from oodbench.cli.kept import current
    from oodbench.figures.page import Material, page
    from oodbench.report import unmade, verdicts
    from oodbench.store.artifacts import Store
    from oodbench.store.files import write_whole
    from oodbench.study.reader import claims_of, store_of, tables_of

    warnings: list[str] = []
    given, found = current(study, warnings.append, dry_data)
    for message in warnings:
        screen.warn(message)
    rows, claims, folder = unmade.declared(found), claims_of(study), given.folder.parent
    store = store_of(study)
    contents = Material(
        study=(given.plan() or {}).get("study", study.stem),
        file=str(study),
        rows=rows,
        claims=verdicts.verdicts(rows, claims, given.clusters(), str(study)) if len(rows) else [],
        runs={key: given.run(key) for key in rows["train_key"].unique()},
        plan=given.plan() or {},
        floor=tables_of(study)[2],
        remarks=tables.remarks(rows),
        warnings=warnings,
        clusters=given.clusters(),
        course=given.curve(),
        store=Store(store) if store.is_dir() else None,
        against=tables.beside_published(study, folder, rows) if len(rows) else None,
    )
    file = to or folder / "report.html"
    write_whole(file, page(contents).encode())
    screen.say(f"{file} ({decimal(file.stat().st_size)})")


def verdict(study: StudyFile, dry_data: DryData = False) -> None:
    """Hold the claims of a study against its rows: each holds, fails, is open or lacks data; needs no torch."""
    from oodbench.report import formats, unmade, verdicts
    from oodbench.study.reader import claims_of

    claims = claims_of(study)
    if not claims:
        raise UserError(f"{study} declares no claims; say what should hold with the key 'claims'")
    given, rows = arguments.rows(study, dry_data)
    folder = given.folder.parent
    rows = unmade.declared(rows)
    found = verdicts.verdicts(rows, claims, given.clusters(), str(study))
    formats.write_table(verdicts.sheet(found, tables.remarks(rows)), folder)
    colours = {verdicts.HOLDS: "green", verdicts.FAILS: "red", verdicts.OPEN: "yellow"}
    shown = screen.columns("claim", "verdict", "evidence")
    for each in found:
        state = Text(each.state, style=f"bold {colours.get(each.state, 'dim')}")
        shown.add_row(screen.text(f"{each.name}: {each.claim.says}"), state, screen.text(each.text()))
    screen.out.print(shown)
    screen.say(tables.remarks(rows) + verdicts.caption(found), "italic")
    screen.say(f"\nas .md, .csv, .tex and .html: {folder}")


def quality(
    study: StudyFile, device: Device = "auto", dry_data: DryData = False, without_missing_sets: Without = False
) -> None:
    """Measure the clusters of a study, and say whether better ones go with better detection; trains nothing."""
    from oodbench.execution.cluster_survey import FILE, survey
    from oodbench.report import correlation, unmade

    given, rows = arguments.rows(study, dry_data, ok=True)
    folder = given.folder.parent
    with arguments.at_work(arguments.made(study, dry_data), device, without_missing_sets) as pipeline:
        found = survey(pipeline)
    if found.missing:
        screen.warn(f"the features of {found.missing} of {found.trainings} trainings are not in {pipeline.store.root}")
    arguments.say_unkept(study, found.unkept)
    if found.rows.empty:
        raise UserError(
            f"{pipeline.store.root} has no features of {study}; run the study first, with this store and device"
        )
    for message in found.rows["error"][found.rows["error"] != ""].unique():
        screen.warn(f"clusters could not be measured: {message}")
    table = correlation.correlations(unmade.declared(rows), found.rows)
    shown = int((table.mean.index.get_level_values("trainings") == correlation.ALL).sum())
    title = f"{table.name}: {shown} of {len(table.mean)} rows, those of all trainings"
    tables.publish(table, rows, folder, title, shown)
    measured = f"{found.measured} rows measured, {len(found.rows)} in all"
    screen.say(f"\n{measured}: {folder / FILE}")
    screen.say(f"the table, as .md, .csv, .tex and .html: {folder}")


def curve(
    study: StudyFile,
    device: Device = "auto",
    memory: Memory = "2GB",
    dry_data: DryData = False,
    without_missing_sets: Without = False,
) -> None:
    """Follow accuracy, cluster quality and AUROC over the epochs that a study keeps; trains nothing."""
    loaded = arguments.made(study, dry_data)
    from oodbench.data.missing_sets import hinted
    from oodbench.execution import epoch_curve
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner
    from oodbench.report import epochs

    size = arguments.number_of_bytes(memory)
    with Board(screen.err) as board, hinted(loaded):
        options = Options(device, memory=size, without_missing_sets=without_missing_sets)
        runner = Runner(loaded, options, board)
        found = epoch_curve.curve(runner)
    folder, store = runner.study.results, runner.pipeline.store.root
    for title in found.missing:
        screen.warn(f"not in {store}: {title}")
    if found.missing:
        screen.warn(f"oodbench run {study} makes what is not trained, with --redo train the epochs of what is")
    if not (found.rows["error"] == "").any():
        raise UserError(f"{store} has nothing to follow of {study}; run the study first")
    for message in found.rows["error"][found.rows["error"] != ""].unique():
        screen.warn(f"a cell has no numbers at some epoch: {message}")
    rows = runner.results.current()  # of the curve's own, none holds warnings
    tables.publish(epochs.table(found.rows), rows, folder, endings=epochs.ENDINGS)
    scored = f"{found.scored} cells scored, {len(found.rows)} rows in all"
    screen.say(f"\n{scored}: {folder / 'curve.csv'}")
    screen.say(f"the table, as .md, .tex and .html: {folder}")
