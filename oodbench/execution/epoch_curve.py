"""The course of trainings: ID accuracy, cluster quality and AUROC of chosen cells at each epoch that a study keeps.

Rows are in `curve.csv` in the study's folder of results: one for each training, kept epoch (the last one included),
chosen cell and OOD set. A row is made again where its cell's key has changed, or where it failed; those of the last
epoch are the study's own where they are there. It never trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from oodbench.execution.cluster_survey import epoch_of, survey
from oodbench.execution.runner import Runner
from oodbench.report import formats, tables
from oodbench.scoring.cluster_quality import MEASURES
from oodbench.store import columns
from oodbench.store.files import write_whole
from oodbench.store.rows import read_table
from oodbench.study.declarations import CurveSpec
from oodbench.study.grid import NONE, Cell, Work

NAME = "curve"
IDENTITY = ("cell", "key", "train_key", "ood_data")
SCORED = (*columns.ACCURACIES[1:], "auroc", "fpr95_id", "fpr95_ood")
COLUMNS = (*IDENTITY, *columns.LABELS, "epoch", *SCORED, *MEASURES, "error")
TYPES: Any = {
    name: "Int64" if name in ("seed", "epoch") else "float64" if name in ("level", *SCORED, *MEASURES) else "str"
    for name in COLUMNS
}
SHOWN = ("class_separation", "global_separation", "cluster_purity", "silhouette")  # in the table
Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]  # by cell and OOD set


@dataclass(frozen=True)
class Curve:
    """What following a study's trainings over their epochs came to."""

    rows: pd.DataFrame  # COLUMNS
    scored: int  # cells, of one epoch each
    missing: list[str]  # titles of trainings and epochs that are not in the store


def curve(runner: Runner) -> Curve:
    """Score and measure what is not there yet, keep it, and return everything that there is."""
    study, pipeline = runner.study, runner.pipeline
    if not study.keep:
        study.document.fail(("keep",), "says no epochs to follow, such as keep: [0, 10, last]")
    runner.check_tables()
    path = study.results / f"{NAME}.csv"
    rows = _of_the_study(runner) | _read(path, pipeline.watch.warn)
    course = list(_course(runner))
    scored, missing = 0, []
    for work in course:
        todo = runner.pending(work, _known(rows))
        if todo.cells and pipeline.store.read("train", pipeline.encoders.train_key(work.run)) is None:
            missing.append(work.run.title)
        elif todo.cells:
            made = [row | {"epoch": epoch_of(work.run)} for row in runner.rows(todo)]
            rows |= _by_cell(made)
            scored += len(todo.cells)
            _write(path, _frame(_in_order(runner, course, rows)))  # one that is killed goes on after this epoch
    places = {(cell.detector.space, cell.detector.clustering) for work in course for cell in work.cells}
    found = _measured(_frame(_in_order(runner, course, rows)), survey(pipeline, places).rows)
    _write(path, found)
    return Curve(found, scored, missing)


# ---- what is followed --------------------------------------------------------------------------------


def _course(runner: Runner) -> Iterator[Work]:
    """Yield the chosen cells of each training at each kept epoch, the last one being the training itself."""
    chosen = [dataclasses.replace(work, cells=_chosen(runner.study.curve, work)) for work in runner.plan.work]
    if not any(work.cells for work in chosen):
        runner.fail(("curve",), "no cell has all of these labels")
    for work in chosen:
        for run in (*runner.pipeline.encoders.kept(work.run), work.run):
            yield Work(run, [dataclasses.replace(cell, run=run) for cell in work.cells])


def _chosen(spec: CurveSpec, work: Work) -> list[Cell]:
    if not spec.of:
        return _one_of_each_distance(work.cells)
    wanted = {name: {str(each) for each in (v if isinstance(v, list) else [v])} for name, v in spec.of.items()}

    def fits(cell: Cell) -> bool:
        labels = cell.run.labels | cell.detector.labels
        return all(str(labels[name]) in allowed for name, allowed in wanted.items())

    return [cell for cell in work.cells if fits(cell)]


def _one_of_each_distance(cells: list[Cell]) -> list[Cell]:
    """Return the first cell of each distance, on clusters that are the classes if it can; baselines if there is none.

    The first has the first space, threshold and setting of the distance in the study that make sense.
    """

    def by_classes(cell: Cell) -> bool:
        return cell.detector.clustering is not None and cell.detector.clustering.labels

    followed = [cell for cell in cells if cell.detector.distance] or cells
    found: dict[str, Cell] = {}
    for cell in sorted(followed, key=by_classes, reverse=True):  # stable: else in the order of the study
        found.setdefault(cell.detector.scorer.name, cell)
    return [cell for cell in followed if cell in found.values()]


# ---- rows --------------------------------------------------------------------------------------------


def _of_the_study(runner: Runner) -> Rows:
    """Return the rows that the study itself has of its last epochs."""
    rows = runner.results.read()
    last = {cell.id: epoch_of(work.run) for work in runner.plan.work for cell in work.cells}
    rows = rows[(rows["status"] == "ok") & rows["cell"].isin(list(last))]
    return _by_cell(rows.assign(epoch=rows["cell"].map(last)).to_dict("records"))  # type: ignore[arg-type]


def _known(rows: Rows) -> dict[tuple[str, str], tuple[str, str]]:
    return {each: (row["key"], row["ood_data"]) for each, row in rows.items()}


def _by_cell(rows: Iterable[Row]) -> Rows:
    return {(row["cell"], row["ood"]): row for row in rows}


def _in_order(runner: Runner, course: list[Work], rows: Rows) -> Iterator[Row]:
    """Yield the rows of cells that are up to date."""
    known = _known(rows)
    for work in course:
        left = {cell.id for cell in runner.pending(work, known).cells}
        yield from (rows[cell.id, ood] for cell in work.cells if cell.id not in left for ood in work.run.sets)


def _measured(rows: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the measures of their clusters on ID test features."""
    place = ["train_key", "space", "clustering"]
    measures = quality.loc[quality["split"] == "test", [*place, *MEASURES]]
    return rows.drop(columns=[*MEASURES]).merge(measures, on=place, how="left")[[*COLUMNS]]


def _frame(rows: Iterable[Row]) -> pd.DataFrame:
    return pd.DataFrame.from_records(list(rows), columns=list(COLUMNS)).astype(TYPES).fillna({"error": ""})


def _read(path: Path, warn: Callable[[str], None]) -> Rows:
    """Return the rows of a file but those that failed; of one with other columns or of no file, none."""
    table = read_table(path, TYPES, warn)
    if table is None or tuple(table.columns) != COLUMNS:
        return {}
    return _by_cell(table[table["error"] == ""].to_dict("records"))  # type: ignore[arg-type]


def _write(path: Path, rows: pd.DataFrame) -> None:
    write_whole(path, rows.to_csv(index=False).encode())


# ---- table -------------------------------------------------------------------------------------------


def table(rows: pd.DataFrame) -> tables.Table:
    """Return means over runs, epoch by epoch for each method, times 100."""
    done = tables.named(rows[rows["error"] == ""]).assign(run=rows["id"] + " " + rows["seed"].astype(str))
    by = [name for name in tables.METHOD if name in ("training", "distance") or tables.varies(done[name])]
    done = done.assign(method=done.groupby(by, sort=False).ngroup()).sort_values(["method", "epoch"], kind="stable")
    of_run = done.groupby([*by, "epoch", "run"], sort=False)
    numbers = {("ID", "probe accuracy"): of_run["accuracy_linear"].first()}
    numbers |= {("clusters", name): of_run[name].first() for name in SHOWN}
    auroc = done.set_index([*by, "epoch", "run", "ood"])["auroc"].unstack("ood", sort=False)
    numbers |= {(str(ood), "AUROC"): auroc[ood] for ood in done["ood"].unique()}
    wide = 100 * pd.DataFrame(numbers).dropna(axis=1, how="all").reindex(of_run.size().index)
    over = wide.groupby([*by, "epoch"], sort=False)
    caption = _caption(done)
    return tables.Table(
        NAME, caption, over.mean(), over.std(ddof=1), over.count(), dict.fromkeys(wide.columns, 0), details=()
    )


def _caption(done: pd.DataFrame) -> str:
    spaces, clusterings, thresholds = (
        ", ".join(each for each in done[name].unique() if each != NONE) for name in ("space", "clustering", "threshold")
    )
    runs = done["run"].nunique()
    return (
        f"Trainings at the epochs that were kept; epoch 0 is before the first step. Times 100, mean ± standard "
        f"deviation (ddof 1) over {runs} {'run' if runs == 1 else 'runs'}. Space {spaces or NONE}, clusters "
        f"{clusterings or NONE}, threshold {thresholds}. The accuracy is that of a linear probe. Measures are of ID "
        f"test features, each item in the cluster of the nearest centroid; separations and silhouettes go from -100 "
        f"to 100, class_separation is that of the classes themselves."
    )


def write(shown: tables.Table, folder: Path) -> None:
    """Write the table as .md, .tex and .html."""
    formats.write_table(shown.sheet(), folder, ("md", "tex", "html"))
