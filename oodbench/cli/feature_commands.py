"""Commands on features and scores as files: score those that a user brings, export those of a study."""

from __future__ import annotations

import webbrowser
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oodbench.cli import arguments, screen, store_commands, tables
from oodbench.cli.arguments import Device, Memory, StudyFile, Top, Without
from oodbench.cli.progress import Board
from oodbench.errors import UserError

if TYPE_CHECKING:
    from oodbench.execution.score_features import Given

NAMED = "NAME=FILE, as often as there are sets"
Train = Annotated[Path, typer.Option(help="Training features: .npy, .npz, .safetensors, .pt, .parquet or .csv.")]
IdTest = Annotated[str, typer.Option("--id", help="ID test features: FILE, or NAME=FILE to name the set.")]
Ood = Annotated[list[str] | None, typer.Option(help=f"OOD test features: {NAMED}.")]
Near = Annotated[list[str] | None, typer.Option(help=f"The same, of near OOD: {NAMED}.")]
Far = Annotated[list[str] | None, typer.Option(help=f"The same, of far OOD: {NAMED}.")]
Val = Annotated[Path | None, typer.Option(help="Held-out ID features; default: a share of the training ones.")]
Validation = Annotated[list[str] | None, typer.Option(help=f"OOD that thresholds and choices may see: {NAMED}.")]
Grid = Annotated[Path | None, typer.Option(help="Detectors, as in a study; default: every plugin as it is.")]
Name = Annotated[str, typer.Option(help="Folder of results; calls of one name share their tables.")]
Encoder = Annotated[str, typer.Option(help="What tables call the encoder; default: the training file.")]
Seed = Annotated[int, typer.Option(help="Of clusterings, and of the held-out share.", min=0, max=2**63 - 1)]
Recommend = Annotated[bool, typer.Option("--recommend", help="Say which detector to take, as `oodbench recommend`.")]
Page = Annotated[bool, typer.Option("--page", help="Write the page, too, as `oodbench report` does of a study.")]
Open = Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")]
Redo = Annotated[str, typer.Option(help="Score again what has rows: score, or failed for error rows alone.")]
ToFile = Annotated[Path, typer.Option("--to", help="File to write: .csv, .csv.gz or .parquet.")]
To = Annotated[Path, typer.Option(help="Folder to write to: it gets a folder for each training.")]


def score(
    train: Train,
    id_: IdTest,
    ood: Ood = None,
    near: Near = None,
    far: Far = None,
    val: Val = None,
    validation: Validation = None,
    grid: Grid = None,
    name: Name = "features",
    training: Encoder = "",
    seed: Seed = 0,
    redo: Redo = "",
    device: Device = "auto",
    memory: Memory = "2GB",
    top: Top = 20,
    recommend: Recommend = False,
    page: Page = False,
) -> None:
    """Run the detector grid on features that you bring: no training, no images; the same tables."""
    arguments.check_stage(redo, "score", "failed")
    arguments.number_of_bytes(memory)
    from oodbench.study.study import UNGROUPED

    groups = (("near", near), ("far", far), (UNGROUPED, ood))
    sets = [(group, *each) for group, files in groups for each in _named(f"--{group}", files).items()]
    id_set = _one_named("--id", id_) if "=" in id_ and not Path(id_).is_file() else (Path(id_).stem, Path(id_))
    seen = _named("--validation", validation)
    if recommend and len(sets) < 2 and not seen:
        raise UserError("--recommend: give a second OOD set, or --validation, for a choice to be judged on another set")
    from oodbench.execution.score_features import Given  # which takes seconds

    given = Given(
        train=train,
        id=id_set,
        ood=sets,
        val=val,
        validation=seen,
        grid=grid,
        name=name,
        training=training or train.stem,
        seed=seed,
        redo=redo,
    )
    _score(given, grid, device, memory, top, recommend, page)


def demo(device: Device = "auto", top: Top = 10, open_: Open = True) -> None:
    """See it at work in a minute: the grid on features that come with oodbench, one recommendation, one page."""
    from oodbench.execution.score_features import Given

    folder = Path(str(resources.files("oodbench"))) / "demo"
    sets = [("near", "held_out"), ("far", "photographs"), ("far", "noise")]
    given = Given(
        train=folder / "train.safetensors",
        id=("digits", folder / "id.safetensors"),
        ood=[(group, name, folder / f"ood-{name}.safetensors") for group, name in sets],
        val=folder / "val.safetensors",
        name="demo",
        training="cross_entropy",
    )
    page = _score(given, None, device, "2GB", top, recommend=True, page=True)
    if page and open_ and not webbrowser.open(page.resolve().as_uri()):
        screen.warn(f"there is no browser to open {page}")


def _score(
    given: Given, grid: Path | None, device: str, memory: str, top: int, recommend: bool, page: bool
) -> Path | None:
    """Score features, write and print what is asked of them, and return the file of the page, if one is wanted."""
    from oodbench.cli.report_commands import written_of_features
    from oodbench.execution import score_features
    from oodbench.execution.pipeline import pick_device
    from oodbench.report.tables import counted
    from oodbench.scoring.detectors import How

    with Board(screen.err) as board:
        outcome = score_features.score(given, How(pick_device(device), arguments.number_of_bytes(memory)), board)
    folder = given.folder
    tables.write(grid, folder, outcome.rows, top)
    screen.say(f"\n{counted(outcome.scored, 'cell')} scored, {counted(len(outcome.rows), 'row')}")
    arguments.say_left_out(outcome.left_out, f"{folder / 'plan.json'} has all, under left_out")
    arguments.say_warnings(outcome.rows, "the page" if page else "a page (--page)")
    if recommend:
        tables.recommend(folder, outcome.rows)
    file = written_of_features(folder, outcome.rows) if page else None
    if file:
        screen.say(f"\n{file}")
    if outcome.failed:
        arguments.say_failures(outcome.rows)
    return file


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


def export_features(study: StudyFile, to: To, device: Device = "auto", without_missing_sets: Without = False) -> None:
    """Write the features of a study's trained encoders as files that `oodbench score` reads; trains nothing."""
    from oodbench.execution.exports import Exported, export

    found = []
    with arguments.at_work(study, device, without_missing_sets) as pipeline:
        for each in export(pipeline, to):
            found.append(each)
            if isinstance(each, Exported):
                screen.say(f"\n{each.folder}\n    {each.command}")
    written = sum(isinstance(each, Exported) for each in found)
    if not written:
        raise UserError(f"none of the {len(found)} trainings of {study} is trained; run the study first")
    screen.say(f"\n{written} of {len(found)} trainings exported to {to}")
    if written < len(found):
        screen.warn(f"{len(found) - written} trainings are missing: they are not trained")


def scores(
    study: StudyFile,
    cell: store_commands.Which,
    to: ToFile,
    device: Device = "auto",
    without_missing_sets: Without = False,
) -> None:
    """Write the scores of a cell by image, of ID test, ID reference and every OOD set; trains nothing."""
    from oodbench.cli.kept import results
    from oodbench.execution import exports

    exports.check_ending(to)
    with arguments.at_work(study, device, without_missing_sets) as pipeline:
        which = cell[0]
        if len(cell) > 1 or not exports.cells(pipeline.study, which):  # a hash may be of a cell without rows, too
            found = store_commands.one_cell(study, cell, results(study, screen.warn), "scores")
            which = str(found["cell"].iloc[0])
        rows = exports.scores(pipeline, which)
        exports.write_scores(rows, to)
    counts = ", ".join(f"{count:,} {role}" for role, count in rows["role"].value_counts(sort=False).items())
    screen.say(f"cell {which}: {counts} in {to}")
