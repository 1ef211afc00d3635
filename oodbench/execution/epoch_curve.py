"""The course of trainings: ID accuracy, cluster quality and AUROC of chosen cells at each epoch that a study keeps.

A row is of a training, a kept epoch (the last one included), a chosen cell and an OOD set. Its numbers are an artifact
of the store; those of the last epoch are the study's own where they are there. `curve.csv` in the study's folder of
results is an export of them. It never trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from oodbench.execution.cluster_survey import Where, epoch_of, survey
from oodbench.execution.runner import Runner
from oodbench.scoring.cluster_quality import MEASURES
from oodbench.store import columns
from oodbench.store.artifacts import digest
from oodbench.store.files import write_sealed
from oodbench.store.memo import Fields
from oodbench.store.rows import CURVE, frame
from oodbench.study.grid import Work

KIND = "curve"
IDENTITY = ("cell", "key", "train_key", "ood_data")
SCORED = (*columns.ACCURACIES[1:], "auroc", "fpr95_id", "fpr95_ood")
COLUMNS = (*IDENTITY, *columns.LABELS, "epoch", *SCORED, *MEASURES, "error")
Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]  # SCORED, by cell and OOD set


@dataclass(frozen=True)
class Course:
    """What following a study's trainings over their epochs came to."""

    rows: pd.DataFrame  # COLUMNS
    scored: int  # cells, of one epoch each
    missing: list[str]  # titles of trainings and epochs that are not in the store


def curve(runner: Runner) -> Course:
    """Score and measure what is not there yet, and export and return everything that there is."""
    study, pipeline = runner.study, runner.pipeline
    if not study.keep:
        study.document.fail(("keep",), "says no epochs to follow, such as keep: [0, 10, last]")
    runner.checks.check_tables()
    own, rows, missing, scored = _of_the_study(runner), list[Row](), list[str](), 0
    places: set[Where] = set()
    for work in _course(runner):
        places |= {(cell.detector.space, cell.detector.clustering) for cell in work.cells}
        fields = artifacts(runner, work)
        known = runner.library.memo.facts
        there = {at: own.get((each["cell"], each["set"])) or known(KIND, each) for at, each in fields.items()}
        found = {at: numbers for at, numbers in there.items() if numbers}
        todo = [cell for cell in work.cells if any((cell.id, name) not in found for name in work.run.sets)]
        if todo and pipeline.store.read("train", pipeline.encoders.train_key(work.run)) is None:
            missing.append(work.run.title)
        elif todo:
            found |= _scored(runner, dataclasses.replace(work, cells=todo), fields)
            scored += len(todo)
        rows += _rows(runner, work, fields, found)
    table = _measured(rows, survey(pipeline, places).rows)
    if rows:  # else what another store came to may lie there
        write_sealed(study.results / CURVE, table.to_csv(index=False).encode())
    return Course(table, scored, missing)


# ---- what is followed --------------------------------------------------------------------------------


def _course(runner: Runner) -> Iterator[Work]:
    """Yield the chosen cells of each training at each kept epoch, the last one being the training itself."""
    chosen = [work.of(runner.study.curve) for work in runner.plan.work]
    if not any(work.cells for work in chosen):
        runner.fail(("curve",), "no cell has all of these labels")
    for work in chosen:
        for run in runner.encoders.course(work.run):
            yield Work(run, [dataclasses.replace(cell, run=run) for cell in work.cells])


# ---- rows --------------------------------------------------------------------------------------------


def artifacts(runner: Runner, work: Work) -> dict[tuple[str, str], Fields]:
    """Return what the numbers of each cell and OOD set depend on."""
    probe = digest(runner.pipeline.banks.probe_fields(work.run))
    return {
        (each.cell, each.ood): {"cell": each.key, "set": each.ood_data, "probe": probe}
        for each in runner.source(work).wanted
    }


def _of_the_study(runner: Runner) -> Rows:
    """Return the numbers that the study itself has, by the key of a cell and the content of an OOD set."""
    rows = runner.results.read([*SCORED, "status"])
    rows = rows[rows["status"] == "ok"]
    places = zip(rows["key"], rows["ood_data"], strict=True)
    return dict(zip(places, rows[[*SCORED]].to_dict("records"), strict=True))  # type: ignore[arg-type]


def _scored(runner: Runner, work: Work, fields: dict[tuple[str, str], Fields]) -> Rows:
    """Return the numbers of cells on every OOD set, and remember those that have no error."""
    found: Rows = {}
    for row in runner.rows(work):
        place, numbers = (row["cell"], row["ood"]), {name: row.get(name) for name in SCORED}
        if row["error"]:  # it is tried again
            found[place] = numbers | {"error": row["error"]}
        else:
            found[place] = runner.library.memo.keep(KIND, fields[place], numbers, work.run.title)
    return found


def _rows(runner: Runner, work: Work, fields: dict[tuple[str, str], Fields], found: Rows) -> Iterator[Row]:
    """Yield the rows of cells that have numbers on every OOD set."""
    run, encoders = work.run, runner.encoders
    shared = run.labels | {"precision": encoders.precision(run), "train_key": encoders.train_key(run)}
    groups = {name: group for group, members in run.ood.items() for name in members}
    for cell in work.cells:
        if all((cell.id, name) in found for name in groups):
            for name, group in groups.items():
                of = fields[cell.id, name]
                identity = {"cell": cell.id, "key": of["cell"], "ood": name, "group": group, "ood_data": of["set"]}
                yield shared | cell.detector.labels | identity | {"epoch": epoch_of(run)} | found[cell.id, name]


def _measured(rows: list[Row], quality: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the measures of their clusters on ID test features."""
    place = ["train_key", "space", "clustering"]
    measures = quality.loc[quality["split"] == "test", [*place, *MEASURES]]
    return frame(rows, COLUMNS).drop(columns=[*MEASURES]).merge(measures, on=place, how="left")[[*COLUMNS]]
