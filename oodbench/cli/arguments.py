"""What several commands take, and what they make of it: a study, its rows, the memory of scoring."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.filesize import decimal
from typer.core import TyperCommand

from oodbench.cli import screen
from oodbench.cli.progress import Board
from oodbench.cli.reference import completion
from oodbench.errors import UserError, suggestion
from oodbench.store.columns import COLUMNS
from oodbench.study.document import file_of

if TYPE_CHECKING:
    from oodbench.execution.pipeline import Pipeline
    from oodbench.store.rows import Results
    from oodbench.study.document import Changed
    from oodbench.study.study import Study

StudyFile = Annotated[
    Path,
    typer.Argument(
        help="A study file, such as benchmark.yaml, or the name of one that comes with oodbench, such as default.",
        show_default=False,
        autocompletion=completion.study_files,
        callback=file_of,
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:1.", autocompletion=completion.of("auto", "cpu", "cuda"))
]
Memory = Annotated[str, typer.Option(help="What scoring may take beside mapped files, such as 500MB or 2GB.")]
Workers = Annotated[
    str, typer.Option(help="Processes that share the trainings; cards: one a GPU, else one; auto: else one a CPU core.")
]
DryData = Annotated[
    bool, typer.Option("--dry-data", help="On generated data, in seconds: does it run? Results go to STUDY.dry.")
]
Without = Annotated[
    bool, typer.Option("--without-missing-sets", help="Go on without OOD test sets whose files are not here.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="AXIS=LABEL …: only rows called so, such as training=simclr seed=1.", show_default=False),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE …: as if the file said so, such as recipe.epochs=2.", show_default=False),
]
Plugins = Annotated[
    list[Path] | None, typer.Option(help="A file or folder of your own plugins, where it is made of some; repeatable.")
]
Top = Annotated[int, typer.Option(help="Rows of the leaderboard to print; all are in the files.", min=0)]
SPREAD = ("--only", "--set")  # options that take several words
AUTO, CARDS = "auto", "cards"  # workers
LESSER_CPU = "lesser_cpu"  # where in a folder of results those of `variance: machine` are
KINDS = 8  # of warnings, or of reasons, that are printed
LEAST_MEMORY = 50_000_000  # bytes: what the smallest blocks of wide features take


def number_of_bytes(memory: str) -> int:
    """Return what `--memory` says, such as 500MB or 2GiB, in bytes."""
    wanted = f"--memory {memory}: wanted is a number of bytes, such as 500MB, 2GB or 2GiB"
    try:
        found = TypeAdapter(ByteSize).validate_python(memory)
    except ValidationError:
        raise UserError(wanted) from None
    if found < LEAST_MEMORY:
        raise UserError(f"{wanted}, {decimal(LEAST_MEMORY)} at least")
    return found


def seconds(budget: str) -> float:
    """Return what `--budget` says, such as 90s, 30min or 8h, in seconds; nothing said is no end."""
    if not budget:
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", budget)
    if not found:
        raise UserError(f"--budget {budget}: wanted is a time such as 90s, 30min or 8h")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


def check_workers(text: str) -> None:
    """Raise UserError where this is no number of workers; nothing is imported for it."""
    if text not in (AUTO, CARDS) and not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise UserError(f"--workers {text}: give a number of processes from 1, {CARDS} or {AUTO}")


def check_stage(text: str, *allowed: str) -> None:
    """Raise UserError where this is no stage to make again; nothing is imported for it."""
    if text and text not in allowed:
        raise UserError(f"--redo {text}: there is no such stage{suggestion(text, allowed)}")


def changed(study: Path, changes: list[str] | None) -> Path | Changed:
    """Return a study's file, with the changes that `--set` says."""
    from oodbench.study.document import Changed

    return Changed(study, tuple(changes)) if changes else study


class SeveralWords(TyperCommand):
    """A command whose options `--only` and `--set` take every word that follows and has a `=` in it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread, option = [], ""
        for before, word in pairwise(["", *args]):
            if before not in SPREAD and option and re.match(r"[\w./:-]+=", word) and not word.startswith("-"):
                spread.append(option)
            elif before not in SPREAD:
                option = word if word in SPREAD else ""
            spread.append(word)
        return super().parse_args(ctx, spread)


def load(study: Path | Changed) -> Study:
    """Return a study. Raises UserError where its folder of results is another study's."""
    from oodbench.store.rows import Results
    from oodbench.study import reader

    loaded = reader.load(study)
    reader.check_owner(loaded.document, loaded.results, Results(loaded.results).plan() or {})
    return loaded


def made(study: Path | Changed, dry_data: bool) -> Study:
    """Return a study, or what stands in for it, which is said."""
    loaded = load(study)
    if not dry_data:
        return loaded
    from oodbench.execution.dry_run import dry

    found = dry(loaded)
    screen.say(f"dry run, whose numbers mean nothing, in {found.study.results}. In place of")
    for what, by in found.replaced.items():
        screen.say(f"  {what}: {by}")
    return found.study


def rows(
    study: Path | Changed, dry_data: bool = False, ok: bool = False, columns: Iterable[str] = COLUMNS
) -> tuple[Results, Any]:
    """Return what is kept of a study's rows, and those in its tables, of which there is one; an `ok` one if wanted."""
    from oodbench.cli.kept import current

    given, found = current(study, screen.warn, dry_data, columns)
    if found.empty or (ok and not (found["status"] == "ok").any()):
        raise without_rows(given)
    return given, found


def without_rows(given: Results) -> UserError:
    where = f"there are no rows in {given.folder.absolute()}"
    return UserError(f"{where}; run the study first, or say with OODBENCH_RESULTS in which folder of results they are")


@contextmanager
def at_work(study: Path | Study, device: str = "cpu", without_missing_sets: bool | None = None) -> Iterator[Pipeline]:
    """Give the pipeline of a study, whose board is shown meanwhile; None: the command knows no such flag."""
    loaded = load(study) if isinstance(study, Path) else study  # first: what is wrong with it is said without torch
    from oodbench.data.missing_sets import hinted
    from oodbench.execution.pipeline import Options, Pipeline

    with Board(screen.err) as board, nullcontext() if without_missing_sets is None else hinted(loaded):
        yield Pipeline(loaded, Options(device, without_missing_sets=bool(without_missing_sets)), board)


def say_unkept(study: Path | Changed, count: int) -> None:
    if count:
        again = f"oodbench run {study} --redo train keeps them"
        screen.warn(f"{count} epochs to keep are of trainings that are done; {again}")


def say_warnings(rows: Any, where: str) -> None:
    """Name what rows warn of, each kind once, and say `where` every warning is; nothing without their column."""
    from oodbench.report.gathered import warned

    found = warned(rows) if "warnings" in rows else []
    for line in found[:KINDS]:
        screen.complain("[yellow]rows warn:[/]", line)
    if found:
        more = f"{len(found) - KINDS} kinds of warnings more; " if len(found) > KINDS else ""
        screen.say(f"{more}{where} lists every warning of rows")


def say_left_out(left_out: Mapping[str, int], where: str = "") -> None:
    """Say why cells are left out, most first; where it is said `where` all are, the rest of many is a count."""
    from oodbench.report.gathered import reasons
    from oodbench.report.tables import counted

    found = reasons(left_out)
    shown = found[:KINDS] if where else found
    for reason, count in shown:
        screen.say(f"left out: {count:>5} cells: {reason}")
    if more := found[len(shown) :]:
        cells = sum(count for _, count in more)
        screen.say(f"left out: {cells:>5} cells for {counted(len(more), 'other reason')}; {where}")


def say_failures(rows: Any) -> None:
    """Name each error of rows once, with how many rows and cells it befell and one of them; exit with 1."""
    from oodbench.report.tables import counted
    from oodbench.study.grid import NONE

    parts = ("training", "id", "space", "clustering", "distance", "posthoc", "threshold")
    for error, members in rows[rows["status"] == "error"].groupby("error", sort=False):
        where = " · ".join(str(each) for each in members.iloc[0][[*parts]] if each != NONE)
        counts = f"{counted(len(members), 'row')}, {counted(members['cell'].nunique(), 'cell')}"
        screen.complain("[bold red]failed:[/]", f"{counts}, such as {where}: {error}")
    raise typer.Exit(1)
