"""Commands from a study's rows to its tables, page and figures: tables, report, verdict, quality, curve, plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.text import Text

from oodbench.cli import arguments, screen, tables
from oodbench.cli.arguments import Device, DryData, Memory, Only, Set, StudyFile, Top, Without
from oodbench.cli.progress import Board
from oodbench.errors import UserError, suggestion
from oodbench.store.columns import COLUMNS, COSTS

if TYPE_CHECKING:
    import pandas as pd

    from oodbench.store.artifacts import Store
    from oodbench.store.rows import Results
    from oodbench.study.reader import Source

PAGE = "report.html"  # in a folder of results
NAMED = ("roc", "histogram", "bank")  # figures of the rows that words name
PLOTS = ("heat", "near-far", "quality", "curve", "pareto", "ranks", "thresholds", *NAMED)

Against = Annotated[
    str, typer.Option(help="Published numbers to hold the rows against: a CSV, a folder of them, or `targets`, ours.")
]
Value = Annotated[str, typer.Option(help="The metric, a column of the rows, such as auroc or fpr95_id.")]
Group = Annotated[str, typer.Option(help="The OOD sets that count: near or far; default: all.")]


def tables_(
    study: StudyFile,
    top: Top = 20,
    against: Against = "",
    only: Only = None,
    set_: Set = None,
    dry_data: DryData = False,
) -> None:
    """Write the tables of a study again from its rows; needs neither torch nor a GPU."""
    source = arguments.changed(study, set_)
    if against and dry_data:
        raise UserError("--against: the numbers of a dry run mean nothing")
    given, rows = arguments.rows(source, dry_data, columns=COLUMNS if against else tables.columns(source))
    if only:
        from oodbench.store import named

        rows = named.only(rows, only)
    folder = given.folder.parent
    tables.write(source, folder, rows, top)
    if against:
        from oodbench.report.unmade import declared

        name = f"against-{Path(against).resolve().stem}"
        tables.hold(source, folder, tables.part(rows) + name, declared(rows), (against, Path()))


def report(
    study: StudyFile,
    to: Annotated[Path | None, typer.Option(help=f"The file to write; {PAGE} in the results, if not said.")] = None,
    dry_data: DryData = False,
) -> None:
    """Write a study as one page of HTML, which opens from disk without a network; needs neither torch nor a GPU."""
    file = written(study, to, screen.warn, dry_data)
    screen.say(f"{file} ({decimal(file.stat().st_size)})")


def written(study: Source, to: Path | None, warn: Callable[[str], None], dry_data: bool = False) -> Path:
    """Write the page of a study and return its file; `warn` hears what is missing of its rows."""
    from oodbench.cli.kept import current, judged, store
    from oodbench.figures.page import Material, page
    from oodbench.report import unmade
    from oodbench.store.files import write_whole
    from oodbench.study.reader import claims_of, tables_of

    warnings: list[str] = []
    given, found = current(study, warnings.append, dry_data)
    for message in warnings:
        warn(message)
    rows, claims, folder = unmade.declared(found), claims_of(study), given.folder.parent
    artifacts = store(study, given, dry_data)
    contents = Material(
        study=(given.plan() or {}).get("study", folder.name),
        file=folder.name if isinstance(study, Mapping) else str(study),
        rows=rows,
        claims=judged(study, given, rows, claims, artifacts) if len(rows) else [],
        runs={key: given.run(key) for key in rows["train_key"].unique()},
        plan=given.plan() or {},
        floor=tables_of(study)[2],
        remarks=tables.remarks(rows),
        warnings=warnings,
        clusters=given.clusters(),
        course=given.curve(),
        store=artifacts,
        against=tables.beside_published(study, folder, rows) if len(rows) else None,
    )
    file = to or folder / PAGE
    write_whole(file, page(contents).encode())
    return file


def written_of_features(folder: Path, rows: pd.DataFrame) -> Path:
    """Write the page of features that `oodbench score` scored to their folder of results, and return its file."""
    from oodbench.store.rows import Results

    return written_of_rows(folder / PAGE, folder.name, rows, Results(folder, screen.warn).plan() or {})


def written_of_rows(file: Path, name: str, rows: pd.DataFrame, plan: Mapping[str, Any]) -> Path:
    """Write the page of rows that no study made, under a name, and return its file."""
    from oodbench.figures.page import Material, page
    from oodbench.store.files import write_whole

    write_whole(file, page(Material(study=name, file="", rows=rows, plan=plan, remarks=tables.remarks(rows))).encode())
    return file


def verdict(study: StudyFile, dry_data: DryData = False) -> None:
    """Hold the claims of a study against its rows: each holds, fails, is open or lacks data; needs no torch."""
    from oodbench.cli.kept import judged, store
    from oodbench.report import formats, unmade
    from oodbench.report.claims import verdicts
    from oodbench.report.tables import counted
    from oodbench.study.reader import claims_of

    claims = claims_of(study)
    if not claims:
        raise UserError(f"{study} declares no claims; say what should hold with the key 'claims'")
    given, rows = arguments.rows(study, dry_data)
    folder = given.folder.parent
    rows = unmade.declared(rows)
    found = judged(study, given, rows, claims, store(study, given, dry_data))
    formats.write_table(verdicts.sheet(found, tables.remarks(rows)), folder)
    colours = {verdicts.HOLDS: "green", verdicts.FAILS: "red", verdicts.OPEN: "yellow"}
    shown = screen.columns("claim", "verdict", "evidence")
    shown.padding = (0, 1, 1, 1)  # claims are of several lines
    for each in found:
        state = Text(each.state, style=f"bold {colours.get(each.state, 'dim')}")
        shown.add_row(screen.text(f"{each.name}: {each.claim.says}"), state, screen.text(each.text()))
    screen.out.print(shown)
    counts = ", ".join(f"{state} {n}" for state, n in Counter(each.state for each in found).most_common())
    screen.say(f"\n{counted(len(found), 'claim')}: {counts}", "bold")
    screen.caption(f"\n{tables.remarks(rows)}{verdicts.caption(found)}")
    screen.say(f"\nas .md, .csv, .tex and .html: {folder}")


def effects(study: StudyFile, value: Value = "auroc", group: Group = "", dry_data: DryData = False) -> None:
    """Say what matters: shares of the variance of a metric by axis, and what each level adds; needs no torch."""
    from oodbench.cli.kept import of_machines
    from oodbench.report import effects as report
    from oodbench.report import formats
    from oodbench.study.reader import tables_of

    given, rows = arguments.rows(study, dry_data, ok=True)
    folder, floor = given.folder.parent, tables_of(study)[2]
    designs = report.effects(of_machines(given, rows, screen.warn), value, group, floor)
    caption = tables.remarks(rows) + report.caption(designs, value, group, floor)
    formats.write_table(report.sheet(designs, value, caption), folder)
    for design in designs:
        screen.prose(f"\n{report.about(design)}", "bold")
        screen.lines(report.share_table(design), 1)
        for axis, each in report.level_table(design).groupby("axis", sort=False):
            screen.lines(each.drop(columns="axis").rename(columns={"level": str(axis)}), 1)
    screen.caption(f"\n{caption}")
    screen.say(f"\nas .md, .csv, .tex and .html: {folder}")


def recommend(study: StudyFile, dry_data: DryData = False) -> None:
    """Name one detector of a study, what it is expected to cost on another OOD set, and what is as good or cheaper."""
    from oodbench.study.reader import tables_of

    given, rows = arguments.rows(study, dry_data, ok=True, columns=[*tables.columns(study), *COSTS, "val_auroc"])
    tables.recommend(given.folder.parent, rows, tables_of(study)[2])


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


def plot(
    study: StudyFile,
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(PLOTS)}.", show_default=False)],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Of roc and histogram: a CELL, or words as `show` takes them. Of bank: the words of a training.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="A .pdf, .svg or .png file; else figures/KIND.pdf of the results.")
    ] = None,
    column: Annotated[str, typer.Option(help="single (3.25 in wide) or double (6.75 in).")] = "single",
    dry_data: DryData = False,
) -> None:
    """Draw a figure of a study's rows for a paper of two columns; needs the extra `plots`, not torch."""
    ending = _checked(kind, words or [], to, column)
    try:
        from oodbench.figures import printed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise UserError("figures take matplotlib, which is not here: pip install 'oodbench[plots]'") from None
    from oodbench.cli.kept import store
    from oodbench.report import tables as making
    from oodbench.store.files import write_whole

    given, rows = arguments.rows(study, dry_data, ok=True)
    if words:
        found = _named(kind, store(study, given, dry_data), study, rows, words)
    else:
        found = _shown(kind, given, rows, str(study))
    files = making.file_names(list(found)) if len(found) > 1 or (words and not to) else dict.fromkeys(found, "")
    place = to or given.folder.parent / "figures" / f"{kind}.pdf"
    drawn = {
        place.with_stem("-".join(filter(None, (place.stem, files[board])))): printed.written(
            printed.drawn(kind, frame, printed.WIDTHS[column]), ending
        )
        for board, frame in found.items()
    }
    for path, content in drawn.items():
        write_whole(path, content)
        screen.say(f"{path}")
    if said := tables.remarks(rows):
        screen.warn(said.strip())


def _checked(kind: str, words: list[str], to: Path | None, column: str) -> str:
    """Return the ending of a figure's file. Raises UserError where what is asked for makes no figure."""
    for said, word, allowed in (("KIND", kind, PLOTS), ("--column", column, ("single", "double"))):
        if word not in allowed:
            raise UserError(f"{said} {word}: there is no such{suggestion(word, allowed)}")
    if bool(words) != (kind in NAMED):
        wanted = "a cell, or words of a table's line" if kind in NAMED else "no words: it is of all rows"
        raise UserError(f"plot {kind} {' '.join(words)}".strip() + f": it takes {wanted}")
    ending = to.suffix.lower().removeprefix(".") if to else "pdf"
    if ending not in ("pdf", "svg", "png"):
        raise UserError(f"--to {to}: the name of the file ends in .pdf, .svg or .png")
    return ending


def _named(
    kind: str, store: Store | None, study: Path, rows: pd.DataFrame, words: list[str]
) -> dict[str, pd.DataFrame]:
    """Return what a figure of the rows that words name shows, by these words."""
    from oodbench.figures import named_rows
    from oodbench.store import named

    found = named.rows(rows, words)
    if store is None:
        how = f"oodbench run {study} keeps features and scores in one, OODBENCH_STORE says where it is"
        raise UserError(f"plot {kind}: there is no store of {study}; {how}")
    return {" ".join(words): named_rows.NAMED[kind](found, store, str(study))}


def _shown(kind: str, given: Results, rows: pd.DataFrame, study: str) -> dict[str, pd.DataFrame]:
    """Return what a figure shows, by ID data set where a figure is of one."""
    from oodbench.figures import data
    from oodbench.report import tables as making
    from oodbench.report import unmade

    rows = unmade.declared(rows)
    if kind == "quality":
        return {"": data.quality(rows, given.clusters(), study)}
    if kind == "curve":
        return {"": data.curve(given.curve(), study)}
    if kind == "ranks":
        return {"": data.ranks(rows)}
    make = getattr(data, kind.replace("-", "_"))
    return {name: make(each) for name, each in making.boards(rows).items()}
