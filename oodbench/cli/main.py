"""The command line. It and the board are the only files that print."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from oodbench.errors import UserError, suggestion

if TYPE_CHECKING:
    from oodbench.data.needs import Need, Supply
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner
    from oodbench.report.tables import Table
    from oodbench.study.grid import Work

app = typer.Typer(
    help="What really makes an out-of-distribution detector work: trainings x clusterings x distances x thresholds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)  # a file has no width to fit
err = Console(stderr=True, highlight=False)

StudyFile = Annotated[Path, typer.Argument(help="A study file, such as benchmark.yaml.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
DryData = Annotated[
    bool, typer.Option("--dry-data", help="On generated data, in seconds: does it run? Results go to STUDY.dry.")
]
LEAST_MEMORY = 50_000_000  # bytes: what the smallest blocks of wide features take
Memory = Annotated[str, typer.Option(help="What scoring may take beside mapped files, such as 500MB or 2GB.")]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Add a command, named as the function (_ is -), in which a user's mistake is one message and exit code 2."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except UserError as error:
            err.print("[bold red]error:[/] ", end="")
            err.print(str(error), markup=False, soft_wrap=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            err.print("stopped; what is finished is kept, the same command goes on")
            raise typer.Exit(130) from None

    return app.command(function.__name__.rstrip("_").replace("_", "-"))(wrapped)


# ---- running --------------------------------------------------------------------------------------------


@command
def run(
    study: StudyFile,
    device: Device = "auto",
    redo: Annotated[str, typer.Option(help="Make again: train, bank or score with what follows, or failed rows.")] = "",
    cached_only: Annotated[bool, typer.Option("--cached-only", help="Train nothing; score what is trained.")] = False,
    top: Annotated[int, typer.Option(help="Rows of the leaderboard to print; all are in the files.")] = 20,
    checkpoint_minutes: Annotated[float, typer.Option(help="Between two checkpoints of a training.", min=0)] = 5.0,
    checkpoint_epochs: Annotated[
        int | None, typer.Option(help="The same in epochs, beside the minutes.", min=1, show_default=False)
    ] = None,
    workers: Annotated[
        str, typer.Option(help="Processes that share the trainings; auto: one for each CPU core.")
    ] = "1",
    rows_only: Annotated[bool, typer.Option("--rows-only", help="Write and print no tables.")] = False,
    memory: Memory = "2GB",
    dry_data: DryData = False,
) -> None:
    """Run a study: make every row that is missing, write its tables, print its leaderboard."""
    from oodbench.cli import workers as processes
    from oodbench.cli.progress import Board
    from oodbench.execution.runner import Runner

    loaded = _made(study, dry_data)
    with Board(err) as board:
        options = _options(device, redo, cached_only, checkpoint_minutes, memory, checkpoint_epochs)
        runner = Runner(loaded, options, board)
        others = min(processes.count(workers, runner.pipeline.device), max(1, len(runner.plan.work))) - 1
        if others and redo:
            raise UserError("--redo is for one process: others could not tell what is old from what is made again")
        words = [
            "run",
            str(study),
            "--rows-only",
            "--memory",
            memory,
            "--device",
            device,
            "--checkpoint-minutes",
            str(checkpoint_minutes),
        ]
        words += ["--cached-only"] if cached_only else []
        words += ["--dry-data"] if dry_data else []
        words += ["--checkpoint-epochs", str(checkpoint_epochs)] if checkpoint_epochs else []
        with processes.helped(words, others, board.others):
            outcome = runner.run()
    if not rows_only:
        _tables(study, runner.study.results, outcome.rows, top)
    by = f" by this process of {others + 1}" if others else ""
    out.print(f"\n{outcome.trained} trained, {outcome.scored} cells scored{by}, {len(outcome.rows)} rows")
    _say_unkept(study, outcome.unkept)
    if outcome.missing:
        out.print(f"{outcome.missing} cells left undone: their encoders are not trained (--cached-only)")
    _show_unlearned(outcome.rows, runner.study.settings.learned)
    if outcome.failed:
        _show_failures(outcome.rows)
        raise typer.Exit(1)


@command
def prepare(
    study: StudyFile,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download nothing; OODBENCH_OFFLINE=1 says so to every command.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is there and what is not, do nothing.")] = False,
) -> None:
    """Say which data a study needs and where it is from; download what is missing, and prepare it."""
    from oodbench.cli.progress import Board
    from oodbench.data import needs as preparation
    from oodbench.data.download import OFFLINE
    from oodbench.execution.pipeline import Pipeline

    if offline:
        os.environ[OFFLINE] = "1"  # for whatever fetches
    loaded = _load(study)
    needs = preparation.needs(loaded)
    found = [preparation.supply(need, loaded.data) for need in needs]
    _show_supplies(needs, found)
    if dry_run:
        if any(each.state not in (preparation.HERE, preparation.TO_DOWNLOAD) for each in found):
            raise typer.Exit(1)
        return
    with Board(err) as board:
        problems = list(preparation.prepare(Pipeline(loaded, _options("cpu"), board).library, needs))
    for problem in problems:
        err.print("[bold red]missing:[/] ", end="")
        err.print(problem, markup=False, soft_wrap=True)
    out.print(f"\n{len(needs) - len(problems)} of {len(needs)} sets prepared in {loaded.store}", soft_wrap=True)
    out.print(f"their manifest: {loaded.results / preparation.FILE}", soft_wrap=True)
    if problems:
        raise typer.Exit(1)


@command
def plan(study: StudyFile, device: Device = "auto", dry_data: DryData = False) -> None:
    """Say what a study consists of, what is there already, and what the rest will cost; downloads nothing."""
    from oodbench.execution.estimate import counted, estimate
    from oodbench.execution.runner import Runner

    runner = Runner(_made(study, dry_data), _options(device))
    absent = runner.absent()
    if absent:
        runner.check_study()
    else:
        runner.check()
    _show_suites(runner.study.suites)
    _show_runs(runner, known=not absent)
    for reason, count in runner.plan.left_out.most_common():
        out.print(f"left out: {count:>5} cells: {reason}", soft_wrap=True)
    cost = counted(runner) if absent else estimate(runner)
    table = RichTable("", "in all", "there", "to do", box=None)
    for name, total, there in (
        ("trainings", cost.trainings, cost.trained),
        ("sets to embed", cost.banks, cost.embedded),
        ("cells", cost.cells, cost.done),
    ):
        table.add_row(name, str(total), *(("?", "?") if there is None else (str(there), str(total - there))))
    out.print(table)
    if absent:
        names = ", ".join(dict.fromkeys(each.name for each in absent))
        out.print(f"not here: {names}; oodbench prepare {study} gets them", soft_wrap=True)
        out.print("what is there, time and disk: unknown until the data is here")
    else:
        time = "unknown" if cost.seconds is None else f"about {_duration(cost.seconds)}"
        out.print(f"time: {time} on {runner.pipeline.device}; disk: about {_size(cost.bytes or 0)}")
        _say_unkept(study, len(runner.unkept()))
    out.print(f"store: {runner.pipeline.store.root}; results: {runner.study.results}")


@command
def tables(
    study: StudyFile,
    top: Annotated[int, typer.Option(help="Rows of the leaderboard to print.")] = 20,
    against: Annotated[
        str,
        typer.Option(help="Published numbers to hold the rows against: a CSV, a folder of them, or `targets`, ours."),
    ] = "",
    dry_data: DryData = False,
) -> None:
    """Write the tables of a study again from its rows; needs neither torch nor a GPU."""
    folder = _folder(study, dry_data)
    rows = _current(folder)
    if rows.empty:
        raise UserError(f"there are no rows in {folder / 'rows'}; run the study first")
    if against and dry_data:
        raise UserError("--against: the numbers of a dry run mean nothing")
    _tables(study, folder, rows, top)
    if against:
        name = Path(against).resolve().stem
        _held(study, folder, f"against-{name}", rows, (against, Path()))


@command
def verdict(study: StudyFile, dry_data: DryData = False) -> None:
    """Hold the claims of a study against its rows: each holds, fails, is open or lacks data; needs no torch."""
    from oodbench.report import formats
    from oodbench.report import verdicts as judging
    from oodbench.store.rows import Results
    from oodbench.study.reader import claims_of

    claims, folder = claims_of(study), _folder(study, dry_data)
    if not claims:
        raise UserError(f"{study} declares no claims; say what should hold with the key 'claims'")
    rows = _current(folder)
    if rows.empty:
        raise UserError(f"there are no rows in {folder / 'rows'}; run the study first")
    found, note = judging.verdicts(rows, claims, Results(folder).clusters(), str(study)), _note(rows)
    formats.write_table(judging.sheet(found, note), folder)
    colours = {judging.HOLDS: "green", judging.FAILS: "red", judging.OPEN: "yellow"}
    shown = RichTable("claim", "verdict", "evidence", box=None, header_style="bold", pad_edge=False)
    for each in found:
        state = Text(each.state, style=f"bold {colours.get(each.state, 'dim')}")
        shown.add_row(Text(f"{each.name}: {each.claim.says}"), state, Text(each.text()))
    out.print(shown)
    out.print(note + judging.caption(found), style="italic", soft_wrap=True)
    out.print(f"\nas .md, .csv, .tex and .html: {folder}", soft_wrap=True)


NAMED = "NAME=FILE, as often as there are sets"
LABEL = 16  # columns of the screen that a label keeps in a table that is too wide


@command
def score(
    train: Annotated[Path, typer.Option(help="Training features: .npy, .npz, .safetensors or .parquet.")],
    id_: Annotated[str, typer.Option("--id", help="ID test features: FILE, or NAME=FILE to name the set.")],
    ood: Annotated[list[str] | None, typer.Option(help=f"OOD test features: {NAMED}.")] = None,
    near: Annotated[list[str] | None, typer.Option(help=f"The same, of near OOD: {NAMED}.")] = None,
    far: Annotated[list[str] | None, typer.Option(help=f"The same, of far OOD: {NAMED}.")] = None,
    val: Annotated[
        Path | None, typer.Option(help="Held-out ID features; default: a share of the training ones.")
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help=f"OOD that thresholds and choices may see: {NAMED}.")
    ] = None,
    grid: Annotated[Path | None, typer.Option(help="Detectors, as in a study; default: every plugin as it is.")] = None,
    name: Annotated[str, typer.Option(help="Folder of results; calls of one name share their tables.")] = "features",
    training: Annotated[str, typer.Option(help="What tables call the encoder; default: the training file.")] = "",
    seed: Annotated[int, typer.Option(help="Of clusterings, and of the held-out share.")] = 0,
    redo: Annotated[str, typer.Option(help="Score again what has rows: score, or failed for error rows alone.")] = "",
    device: Device = "auto",
    memory: Memory = "2GB",
    top: Annotated[int, typer.Option(help="Rows of the leaderboard to print; all are in the files.")] = 20,
) -> None:
    """Run the detector grid on features that you bring: no training, no images; the same tables."""
    from oodbench.cli.progress import Board
    from oodbench.execution.pipeline import pick_device
    from oodbench.execution.score_features import Given
    from oodbench.execution.score_features import score as scored
    from oodbench.scoring.detectors import How
    from oodbench.study.study import UNGROUPED

    groups = (("near", near), ("far", far), (UNGROUPED, ood))
    given = Given(
        train=train,
        id=_one_named("--id", id_) if "=" in id_ and not Path(id_).is_file() else (Path(id_).stem, Path(id_)),
        ood=[(group, *each) for group, files in groups for each in _named(f"--{group}", files).items()],
        val=val,
        validation=_named("--validation", validation),
        grid=grid,
        name=name,
        training=training or train.stem,
        seed=seed,
        redo=redo,
    )
    with Board(err) as board:
        outcome = scored(given, How(pick_device(device), _bytes(memory)), board)
    for reason, count in outcome.left_out.items():
        out.print(f"left out: {count:>5} cells: {reason}", soft_wrap=True)
    _tables(grid, outcome.results, outcome.rows, top)
    out.print(f"\n{outcome.scored} cells scored, {len(outcome.rows)} rows")
    if outcome.failed:
        _show_failures(outcome.rows)
        raise typer.Exit(1)


@command
def export_features(
    study: StudyFile,
    to: Annotated[Path, typer.Option(help="Folder to write to: it gets a folder for each training.")],
    device: Device = "auto",
) -> None:
    """Write the features of a study's trained encoders as files that `oodbench score` reads; trains nothing."""
    from oodbench.cli.progress import Board
    from oodbench.execution.export_features import Exported, export
    from oodbench.execution.pipeline import Pipeline

    found = []
    with Board(err) as board:
        for each in export(Pipeline(_load(study), _options(device), board), to):
            found.append(each)
            if isinstance(each, Exported):
                out.print(f"\n{each.folder}\n    {each.command}", markup=False, soft_wrap=True)
    written = sum(isinstance(each, Exported) for each in found)
    if not written:
        raise UserError(f"none of the {len(found)} trainings of {study} is trained; run the study first")
    out.print(f"\n{written} of {len(found)} trainings exported to {to}", soft_wrap=True)
    if written < len(found):
        _warn(f"{len(found) - written} trainings are missing: they are not trained")


@command
def quality(study: StudyFile, device: Device = "auto", dry_data: DryData = False) -> None:
    """Measure the clusters of a study, and say whether better ones go with better detection; trains nothing."""
    from oodbench.cli.progress import Board
    from oodbench.execution.cluster_survey import FILE, survey
    from oodbench.execution.pipeline import Pipeline
    from oodbench.report import correlation, formats

    folder = _folder(study, dry_data)
    rows = _current(folder)
    if not (rows["status"] == "ok").any():
        raise UserError(f"there are no rows in {folder / 'rows'}; run the study first")
    loaded = _made(study, dry_data)
    with Board(err) as board:
        pipeline = Pipeline(loaded, _options(device), board)
        found = survey(pipeline)
    if found.missing:
        _warn(f"the features of {found.missing} of {found.trainings} trainings are not in {pipeline.store.root}")
    _say_unkept(study, found.unkept)
    if found.rows.empty:
        raise UserError(
            f"{pipeline.store.root} has no features of {study}; run the study first, with this store and device"
        )
    for message in found.rows["error"][found.rows["error"] != ""].unique():
        _warn(f"clusters could not be measured: {message}")
    table = correlation.correlations(rows, found.rows)
    table = replace(table, caption=_note(rows) + table.caption)
    formats.write_table(table.sheet(), folder)
    shown = int((table.mean.index.get_level_values("trainings") == correlation.ALL).sum())
    _print(table, f"{table.name}: {shown} of {len(table.mean)} rows, those of all trainings", shown)
    out.print(f"\n{found.measured} rows measured, {len(found.rows)} in all: {folder / FILE}", soft_wrap=True)
    out.print(f"the table, as .md, .csv, .tex and .html: {folder}", soft_wrap=True)


@command
def curve(study: StudyFile, device: Device = "auto", memory: Memory = "2GB", dry_data: DryData = False) -> None:
    """Follow accuracy, cluster quality and AUROC over the epochs that a study keeps; trains nothing."""
    from oodbench.cli.progress import Board
    from oodbench.execution import epoch_curve as curves
    from oodbench.execution.runner import Runner

    loaded = _made(study, dry_data)
    with Board(err) as board:
        runner = Runner(loaded, _options(device, memory=memory), board)
        found = curves.curve(runner)
    folder = runner.study.results
    for title in found.missing:
        _warn(f"not in {runner.pipeline.store.root}: {title}")
    if found.missing:
        _warn(f"oodbench run {study} makes what is not trained, with --redo train the epochs of what is")
    if not (found.rows["error"] == "").any():
        raise UserError(f"{runner.pipeline.store.root} has nothing to follow of {study}; run the study first")
    for message in found.rows["error"][found.rows["error"] != ""].unique():
        _warn(f"a cell has no numbers at some epoch: {message}")
    table = curves.table(found.rows)
    table = replace(table, caption=_note(runner.results.current()) + table.caption)  # its own rows hold no warnings
    curves.write(table, folder)
    _print(table, "curve", len(table.mean))
    out.print(f"\n{found.scored} cells scored, {len(found.rows)} rows in all: {folder / 'curve.csv'}", soft_wrap=True)
    out.print(f"the table, as .md, .tex and .html: {folder}", soft_wrap=True)


@command
def audit(study: StudyFile) -> None:
    """List the images that a study's sets share, equal or nearly so, with their indices and a sheet; trains nothing."""
    from oodbench.cli.progress import Board
    from oodbench.execution import audit as auditing
    from oodbench.execution.pipeline import Pipeline
    from oodbench.training.weights import plan_of

    with Board(err) as board:
        pipeline = Pipeline(_load(study), _options("cpu"), board)
        found = auditing.audit(pipeline, [work.run for work in plan_of(pipeline.study).work])
        table, rows = auditing.write(pipeline, found, pipeline.study.results)
    _print(table, auditing.NAME, len(table.mean))
    kinds = rows["kind"].value_counts()
    counts = " and ".join(f"{kinds.get(kind, 0)} {kind}" for kind in auditing.KINDS)
    said = f"{counts} duplicates" if len(rows) else "no image is in two sets, equal or nearly so"
    endings = ".md, .tex and .png" if len(rows) else ".md and .tex"
    out.print(f"\n{said}: {pipeline.study.results / auditing.NAME}.csv, {endings}", soft_wrap=True)


@command
def show(
    study: StudyFile,
    which: Annotated[
        str, typer.Argument(help="A cell's hash, or its start; CELL/OOD for one row.", show_default=False)
    ],
) -> None:
    """Say where a number comes from: parameters, seed, data, commit, versions, device, seconds."""
    import json

    import pandas as pd

    from oodbench.store.rows import Results
    from oodbench.study.reader import results_of

    results = Results(results_of(study), _warn)
    table = results.read()
    if table.empty:
        raise UserError(f"there are no rows in {results.folder}; run the study first")
    cell, _, ood = which.partition("/")
    found = table[table["cell"].str.startswith(cell)]
    if found.empty:
        raise UserError(f"no cell of {study} starts with '{cell}'; the column `cell` of its rows has their hashes")
    if ood and ood not in set(found["ood"]):
        raise UserError(f"the cell {cell} has no OOD set '{ood}'{suggestion(ood, set(found['ood']))}")
    if ood:
        found = found[found["ood"] == ood]
    in_tables = set(results.current()[["cell", "ood"]].itertuples(index=False, name=None))
    for record in found.to_dict("records"):
        if (record["cell"], record["ood"]) not in in_tables:
            where = f"{record['cell']}/{record['ood']}"
            _warn(f"{where} is in no table: code or data have changed since, or the study no longer has this cell")
        shown = {name: value for name, value in record.items() if value != "" and pd.notna(value)}
        out.print_json(json.dumps(shown, default=str))
    for train_key in found["train_key"].unique():
        facts = results.run(train_key)
        if facts is not None:
            out.print(f"the training {train_key} behind it:")
            out.print_json(json.dumps(facts))


# ---- plugins ---------------------------------------------------------------------------------------------


@command
def list_(
    room: Annotated[
        str, typer.Argument(help="training, clustering, distance, threshold, posthoc or dataset; recipes, or suites.")
    ] = "",
) -> None:
    """List the plugins, recipes and suites by name, a line each; of `suites` alone, what they consist of."""
    from oodbench.study import recipes
    from oodbench.study import suites as suite
    from oodbench.study.registry import ROOMS, Registry, summary

    books = {
        "recipes": {name: f"{found.about} ({found.source})" for name, found in recipes.book().items()},
        "suites": {name: f"{found.says} ({found.source})" for name, found in suite.book().items()},
    }
    rooms = (*ROOMS, *books)
    if room and room not in rooms:
        raise UserError(f"there is no room '{room}'{suggestion(room, rooms)}")
    registry = Registry()
    table = RichTable(box=None, show_header=False, pad_edge=False)
    for each in [room] if room else rooms:
        table.add_row(f"[bold]{each}[/]", "")
        lines = books.get(each) or {name: summary(source) for name, source in registry.sources(each).items()}
        for name, line in lines.items():
            table.add_row(f"  {name}", Text(line))
            for details in _suite_lines(name) if room == "suites" else ():
                table.add_row("", Text(details))
    out.print(table)


def _suite_lines(name: str) -> list[str]:
    """Return what a suite consists of, and what of it is its own choice or not known."""
    from oodbench.study import suites as suite

    found = suite.find(name)
    return [*(f"{role}: {sets}" for role, sets in suite.told(found)), *(f"own: {each}" for each in found.own)]


@command
def new(
    room: Annotated[str, typer.Argument(help="training, clustering, distance, threshold, posthoc or dataset.")],
    name: Annotated[str, typer.Argument(help="The plugin's name: a file of this name is written.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
) -> None:
    """Write the stub of a plugin, to be filled in and checked with `oodbench check`."""
    from oodbench.conformance.templates import write

    path = write(room, name, folder)
    out.print(f"wrote {path}; fill it in, then: oodbench check {path}", soft_wrap=True)


@command
def check(
    plugin: Annotated[str, typer.Argument(help="A plugin's file, its name, or ROOM/NAME.")],
) -> None:
    """Run the conformance suite on one plugin."""
    from oodbench.conformance.suite import conform, find

    source = find(plugin)
    results = conform(source, Path(os.environ.get("OODBENCH_DATA") or "data"))
    for result in results:
        mark = "[red]failed[/]" if result.problem else "[yellow]skipped[/]" if result.skipped else "[green]passed[/]"
        out.print(f"{mark}  {result.check}", soft_wrap=True)
        if result.problem:
            out.print(f"        {result.problem}", markup=False, soft_wrap=True)
    failed = sum(bool(result.problem) for result in results)
    skipped = sum(result.skipped for result in results)
    passed = len(results) - failed - skipped
    out.print(f"{source.room} {source.name}: {passed} passed, {skipped} skipped, {failed} failed")
    if failed:
        raise typer.Exit(1)


# ---- keeping house ------------------------------------------------------------------------------------------


@command
def compact(study: StudyFile) -> None:
    """Put the part files of a study's rows into one."""
    from oodbench.store.rows import Results
    from oodbench.study.reader import results_of

    results = Results(results_of(study), _warn)
    parts = results.compact()
    if not parts:
        raise UserError(f"{results.folder} has no rows; run the study first")
    out.print(f"{parts} part files are one now" if parts > 1 else "the rows are in one part file already")


@command
def verify(study: StudyFile) -> None:
    """Check every artifact in a study's store against its hashes; damaged ones are set aside."""
    from oodbench.store.artifacts import Store

    damaged: list[str] = []
    store = Store(_load(study).store, damaged.append)
    checked = [store.read(kind, key) for kind in store.kinds() for key in store.keys(kind)]
    for message in damaged:
        _warn(message)
    out.print(f"{len(checked)} artifacts checked, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(1)


@command
def rekey(study: StudyFile) -> None:
    """Carry store and rows over to the keys of today's code, on your word that it changes no number; trains nothing."""
    from oodbench.cli.progress import Board
    from oodbench.execution.rekey import rekey as carried
    from oodbench.execution.runner import Runner

    with Board(err) as board:
        found = carried(Runner(_load(study), _options("cpu"), board))
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.artifacts.items()) or "no artifacts"
    out.print(f"{kinds}, {found.rows} rows have the keys of today's code; runs say what they were", soft_wrap=True)
    if found.left:
        _warn(f"{found.left} rows are of other parameters or data now, and were left")


@command
def gc(
    paths: Annotated[list[Path], typer.Argument(help="Studies, or folders of them: what any of them needs is kept.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed, free nothing.")] = False,
) -> None:
    """Free what no study in a folder needs any more from the store that they share."""
    from oodbench.execution.garbage import garbage

    store, found = garbage([_load(file) for path in paths for file in _studies(path)], _warn)
    freed = sum(store.size(kind, key) for kind, key in found)
    if not dry_run:
        for kind, key in found:
            store.remove(kind, key)
    out.print(f"{'would free' if dry_run else 'freed'} {len(found)} artifacts, {_size(freed)}, in {store.root}")


# ---- helpers ---------------------------------------------------------------------------------------------------


def _folder(study: Path, dry_data: bool = False) -> Path:
    from oodbench.study.reader import results_of
    from oodbench.study.study import DRY

    folder = results_of(study)
    return folder.with_name(folder.name + DRY) if dry_data else folder


def _current(folder: Path) -> Any:
    from oodbench.store.rows import Results

    return Results(folder, _warn).current()


def _note(rows: Any) -> str:
    """Return what a caption says first where rows are of stand-in data."""
    from oodbench.store.columns import STAND_IN

    return f"{STAND_IN}. ".capitalize() if rows["warnings"].str.contains(STAND_IN, regex=False).any() else ""


def _load(study: Path) -> Any:
    from oodbench.study import reader

    return reader.load(study)


def _made(study: Path, dry_data: bool) -> Any:
    """Return a study, or what stands in for it, which is said."""
    loaded = _load(study)
    if not dry_data:
        return loaded
    from oodbench.execution.dry_run import dry

    found = dry(loaded)
    out.print(f"dry run, whose numbers mean nothing, in {found.study.results}. In place of", soft_wrap=True)
    for what, by in found.replaced.items():
        out.print(f"  {what}: {by}", markup=False, soft_wrap=True)
    return found.study


def _options(
    device: str,
    redo: str = "",
    cached_only: bool = False,
    checkpoint_minutes: float | None = None,
    memory: str = "2GB",
    checkpoint_epochs: int | None = None,
) -> Options:
    from oodbench.execution.pipeline import Options

    options = Options(
        device=device,
        redo=redo,
        cached_only=cached_only,
        memory=_bytes(memory),
        checkpoint_epochs=checkpoint_epochs,
    )
    return options if checkpoint_minutes is None else replace(options, checkpoint_minutes=checkpoint_minutes)


def _bytes(size: str) -> int:
    wanted = f"--memory {size}: wanted is a number of bytes, such as 500MB, 2GB or 2GiB"
    try:
        found = TypeAdapter(ByteSize).validate_python(size)
    except ValidationError:
        raise UserError(wanted) from None
    if found < LEAST_MEMORY:
        raise UserError(f"{wanted}, {_size(LEAST_MEMORY)} at least")
    return found


def _studies(folder: Path) -> list[Path]:
    files = [folder] if folder.is_file() else sorted({*folder.rglob("*.yaml"), *folder.rglob("*.yml")})
    if not files:
        raise UserError(f"there is no study (*.yaml or *.yml) in {folder}")
    return files


def _warn(message: str) -> None:
    err.print("[yellow]warning:[/] ", end="")
    err.print(message, markup=False, soft_wrap=True)


def _say_unkept(study: Path, count: int) -> None:
    if count:
        _warn(f"{count} epochs to keep are of trainings that are done; oodbench run {study} --redo train keeps them")


def _named(option: str, given: list[str] | None) -> dict[str, Path]:
    """Return the files of NAME=FILE options by name."""
    found: dict[str, Path] = {}
    for each in given or []:
        name, file = _one_named(option, each)
        if name in found:
            raise UserError(f"{option} {each}: {name} is given twice")
        found[name] = file
    return found


def _one_named(option: str, given: str) -> tuple[str, Path]:
    """Return the name and the file of NAME=FILE; where both may hold a =, the first that leaves a file."""
    parts = given.split("=")
    found = [("=".join(parts[:i]), "=".join(parts[i:])) for i in range(1, len(parts))]
    found = [(name, file) for name, file in found if name and file]
    if not found:
        raise UserError(f"{option} {given}: wanted is NAME=FILE")
    name, file = next((each for each in found if Path(each[1]).is_file()), found[0])
    return name, Path(file)


def _tables(study: Path | None, folder: Path, rows: Any, top: int) -> None:
    from oodbench.report import formats
    from oodbench.report import tables as making
    from oodbench.study.reader import tables_of

    if (rows["status"] == "ok").sum() == 0:
        return
    specs, select, floor = tables_of(study) if study else ({}, None, None)
    boards = [
        each for board in making.leaderboards(rows, floor) for each in (board, making.best_of_each_training(board))
    ]
    note = _note(rows)
    for table in (replace(board, caption=note + board.caption) for board in boards):
        formats.write_table(table.sheet(), folder)
        _print(table, f"{table.name}: {min(top, len(table.mean))} of {len(table.mean)} methods", top)
    if select:
        from oodbench.report.selection import selection

        table = selection(rows, select, floor)
        table = replace(table, caption=note + table.caption)
        formats.write_table(table.sheet(), folder)
        _print(table, f"{table.name}: {min(top, len(table.mean))} of {len(table.mean)} methods", top)
    for name, spec in specs.items():
        table = making.declared(rows, name, spec, floor)
        table = replace(table, caption=note + table.caption)
        formats.write_table(table.sheet(), folder / "tables")
        _print(table, table.name, len(table.mean))
        if spec.against and note:
            out.print(f"not held against {spec.against}: {note.strip()}", soft_wrap=True)
        elif spec.against and study:
            given, kept = (spec.against, study.parent), making.kept(rows, spec.of)
            _held(study, folder, f"tables/{name}-against", kept, given, spec.values)
    out.print(f"\nall tables, as .md, .csv, .tex and .html: {folder}", soft_wrap=True)


def _held(
    study: Path, folder: Path, name: str, rows: Any, given: tuple[str, Path], metrics: tuple[str, ...] = ()
) -> None:
    """Hold rows in a folder of results against published numbers (of some metrics, or all), write and print it."""
    from oodbench.report import comparison as against
    from oodbench.report import formats, targets
    from oodbench.store.rows import Results
    from oodbench.study.reader import registry_of

    registry = registry_of(study)
    wanted = [each for each in targets.load(targets.find(*given), registry) if not metrics or each.metric in metrics]
    found = against.compare(rows, Results(folder, _warn).run, wanted, registry)
    file = folder / name
    formats.write_table(against.sheet(found, file.name), file.parent)
    colours = {against.REPRODUCED: "green", against.NEAR: "yellow", against.FAR: "red"}
    text = against.table(found)
    shown = RichTable(*text.columns, box=None, header_style="bold", pad_edge=False)
    for line, (_, cells) in zip(found.lines, text.iterrows(), strict=True):
        shown.add_row(*(Text(each, style=colours.get(line.state, "")) for each in cells))
    out.print(f"\n[bold]{file.name}[/]: {', '.join(f'{found.count(each)} {each}' for each in against.STATES)}")
    if found.lines:
        out.print(shown)
    out.print(found.caption, style="italic", markup=False, soft_wrap=True)
    out.print(f"as .md, .csv, .tex and .html: {file}.*", soft_wrap=True)


def _print(table: Table, title: str, top: int) -> None:
    """Print the first rows of a table; its details go first where it is too wide, and numbers are never cut."""
    text = table.sheet().tagged("[bold green]{}[/]", "[underline]{}[/]")
    labels = len(table.mean.index.names)
    for i in range(labels):
        text.isetitem(i, text.iloc[:, i].map(escape).to_list())  # youden [saw noise]
    details = list(table.details)
    while details and _width(_grid(text[:top], labels)) > out.width:
        text = text.drop(columns=details.pop(0))
    shown = _grid(text[:top], labels, folded=_width(_grid(text[:top], labels)) > out.width)
    out.print(f"\n[bold]{title}[/]")
    out.print(shown, width=max(out.width, shown.__rich_measure__(out, out.options).minimum))
    out.print("\n".join(table.below), style="italic", markup=False, soft_wrap=True)


def _width(table: RichTable) -> int:
    """Return how wide a table is where nothing is folded."""
    return table.__rich_measure__(out, out.options.update(width=10_000)).maximum


def _grid(text: Any, labels: int, folded: bool = False) -> RichTable:
    """Return a table whose labels may be folded, and whose headings are where it is too wide; cells never are."""
    shown = RichTable(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(text.columns):
        title = escape(column.replace(" ", "\n") if folded and i >= labels else column)
        least = max(map(_cells, [title, *text.iloc[:, i]]), default=0)
        least = least if i >= labels else min(least, LABEL)
        side: Any = "left" if i < labels else "right"
        shown.add_column(title, justify=side, overflow="fold", no_wrap=i >= labels, min_width=least)
    for row in text.itertuples(index=False):
        shown.add_row(*(str(each) for each in row))
    return shown


def _cells(markup: object) -> int:
    """Return the width of the longest line."""
    return max(Text(line).cell_len for line in Text.from_markup(str(markup)).plain.split("\n"))


def _show_suites(suites: list[str]) -> None:
    from oodbench.study import suites as suite

    for label in suites:
        found = suite.find(label.partition(" (")[0])
        out.print(f"suite {label}: {found.says}", markup=False, soft_wrap=True)
        for each in found.own:
            out.print(f"    own: {each}", markup=False, soft_wrap=True)


def _show_supplies(needs: list[Need], found: list[Supply]) -> None:
    table = RichTable("set", "role", "files", "licence", "from", box=None, header_style="bold", pad_edge=False)
    for need, each in zip(needs, found, strict=True):
        table.add_row(*(Text(part) for part in (need.dataset.label, ", ".join(need.roles), _files(each), *each[2:])))
    out.print(table)


def _files(supply: Supply) -> str:
    if not supply.downloads:
        return supply.state
    names = ", ".join(each.name for each in supply.downloads)
    size = "size unknown" if supply.size is None else _size(supply.size)
    return f"{supply.state}: {names} ({size})"


def _show_runs(runner: Runner, known: bool) -> None:
    table = RichTable("training", "ID", "encoder", "seeds", "epochs", "cells", "trained", box=None)
    groups: dict[tuple[str, str, str], list[Work]] = {}
    for work in runner.plan.work:
        run = work.run
        groups.setdefault((run.training.label, run.id.label, run.encoder.label), []).append(work)
    for labels, members in groups.items():
        seeds = ", ".join(str(seed) for seed in sorted({work.run.seed for work in members}))
        epochs = ", ".join(str(epochs) for epochs in sorted({work.run.recipe.epochs for work in members}))
        trained = str(sum(runner.pipeline.encoders.has_weights(work.run) for work in members)) if known else "?"
        cells = sum(len(work.cells) for work in members)
        table.add_row(*labels, seeds, epochs, str(cells), f"{trained} of {len(members)}")
    out.print(table)


def _show_unlearned(rows: Any, floor: float | None) -> None:
    """Name the trained encoders whose frozen probes are below the floor."""
    from oodbench.report.unlearned import NAME, encoders
    from oodbench.study.grid import NONE

    found = encoders(rows, floor)
    for _, each in found.iterrows():
        labels = ["training", "id", "encoder", "outliers", "recipe"]
        labels += ["precision"] if found["precision"].nunique() > 1 else []
        parts = [each[name] for name in labels if each[name] not in ("", NONE)]
        where = " · ".join([*parts, f"seed {each['seed']}"])
        accuracy = f"frozen-probe accuracy {100 * each['frozen']:.1f} %, below {100 * each['floor']:.1f} %"
        err.print(f"[yellow]{NAME}:[/] ", end="")
        err.print(f"{where}: {accuracy}", markup=False, soft_wrap=True)
    if len(found):
        out.print(f"{len(found)} of {rows['train_key'].nunique()} encoders {NAME}; tables mark them")


def _show_failures(rows: Any) -> None:
    from oodbench.study.grid import NONE

    failed = rows[rows["status"] == "error"]
    for error, members in failed.groupby("error", sort=False):
        first = members.iloc[0]
        where = " · ".join(
            str(first[name])
            for name in ("training", "id", "space", "clustering", "distance", "posthoc", "threshold")
            if first[name] != NONE
        )
        err.print("[bold red]failed:[/] ", end="")
        err.print(
            f"{len(members)} rows, {members['cell'].nunique()} cells, such as {where}: {error}",
            markup=False,
            soft_wrap=True,
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


if __name__ == "__main__":
    sys.exit(app())
