"""Carries store and rows of a study over to the keys of today's code, where parameters and data are the same.

A key holds the code of plugins. After a change of code that changes no number, and on the author's word alone, what was
made under old keys is linked under new ones: an artifact whose fields are those of today but for its code and for what
it is made of, and the rows that the study counted as its own when it was last run. Nothing is removed; what was carried
over says so in its manifest and in `runs`, which `oodbench show` prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from oodbench.api import Dataset
from oodbench.data.library import Split
from oodbench.errors import UserError
from oodbench.execution.runner import Runner
from oodbench.store.memo import NUMBER, Fields, digest
from oodbench.store.provenance import commit, now, version
from oodbench.study.grid import Run

CODE = ("source", "encoder_source")  # the fields of a key that are code
MADE = ("bank", "probe")  # kinds that are made of a training


@dataclass
class Rekeyed:
    """What was carried over."""

    artifacts: dict[str, int] = field(default_factory=dict)  # kind -> how many
    rows: int = 0
    left: int = 0  # rows of the study as it was last run that are of other parameters or data now


def rekey(runner: Runner) -> Rekeyed:
    """Carry over everything of a study. Raises UserError where no plan says which rows are its own."""
    found = Rekeyed()
    was = runner.results.plan()
    rows = runner.results.read()
    if len(rows) and was is None:
        raise UserError(f"{runner.results.folder} has rows, and no plan.json beside them says which are the study's")
    runs = [each for work in runner.plan.work for each in (*runner.encoders.kept(work.run), work.run)]
    there = _by_content(runner, "data")
    for dataset, split in dict.fromkeys(_sets(runs)):
        fields = runner.library.data_fields(dataset, split)
        _adopt(runner, found, "data", fields, _newest(runner, "data", there.get(_content(fields), [])))
    used = dict(zip(rows["train_key"], rows["scored_at"], strict=True))
    keys = {old: digest(fields) for fields, old in _trainings(runner, found, runs, used)}
    for kind in MADE:
        for key in runner.pipeline.store.keys(kind):
            fields = runner.pipeline.store.fields(kind, key)
            if fields.get("train") in keys and fields.get("number") == NUMBER[kind]:
                _adopt(runner, found, kind, fields | {"train": keys[fields["train"]]}, key)
    if was is not None:
        _carry_rows(runner, found, rows, was)
    return found


def _sets(runs: list[Run]) -> Iterator[tuple[Dataset, Split]]:
    """Yield every set and split that the runs read."""
    for run in runs:
        yield from ((run.id, "train"), (run.id, "test"))
        yield from ((each, "test") for each in run.sets.values())
        yield from ((each, "train") for each in run.validation)
        if run.outliers is not None:
            yield run.outliers, "train"
        if run.reference.held_out is not None:
            yield run.reference.held_out, "test"


def _trainings(runner: Runner, found: Rekeyed, runs: list[Run], used: dict[str, str]) -> Iterator[tuple[Fields, str]]:
    """Carry over the trainings; yield the fields of each and its old key: that of the newest rows, else the newest."""
    there = _by_content(runner, "train")
    for run in runs:
        fields = runner.encoders.train_fields(run)
        same = there.get(_content(fields), [])
        last = [key for key in same if used.get(key) == max(used.get(each, "") for each in same)]
        if old := _newest(runner, "train", last):
            _adopt(runner, found, "train", fields, old)
            yield fields, old


def _by_content(runner: Runner, kind: str) -> dict[str, list[str]]:
    """Return the keys of all artifacts of a kind by what they hold but for code."""
    found: dict[str, list[str]] = {}
    for key in runner.pipeline.store.keys(kind):
        found.setdefault(_content(runner.pipeline.store.fields(kind, key)), []).append(key)
    return found


def _content(fields: Fields) -> str:
    return digest({name: value for name, value in fields.items() if name not in CODE})


def _newest(runner: Runner, kind: str, keys: list[str]) -> str:
    return max(keys, key=lambda key: runner.pipeline.store.made_at(kind, key), default="")


def _adopt(runner: Runner, found: Rekeyed, kind: str, fields: Fields, old: str) -> None:
    new = digest(fields)
    if old and old != new and runner.pipeline.store.link(kind, old, new, fields, _word(old)):
        found.artifacts[kind] = found.artifacts.get(kind, 0) + 1


def _word(old: str) -> dict[str, Any]:
    return {"rekeyed": {"from": old, "at": now(), "version": version(), "commit": commit()}}


def _carry_rows(runner: Runner, found: Rekeyed, rows: pd.DataFrame, was: dict[str, Any]) -> None:
    """Write the rows that were the study's under today's keys, and what is known of their trainings; then the plan."""
    facts = runner.plan_facts()
    mine = rows[rows["cell"].map(was["cells"]) == rows["key"]]
    contents = {(id_, ood): content for id_, sets in facts["sets"].items() for ood, (_, content) in sets.items()}
    trains = {cell.id: work.run for work in runner.plan.work for cell in work.cells}
    ids = {run.id.label: runner.library.prepared(run.id, "train").content for run in trains.values()}
    columns = zip(mine["cell"], mine["id"], mine["ood"], mine["id_data"], mine["ood_data"], strict=True)
    same = [
        cell in trains and ids[id_] == id_data and contents.get((id_, ood)) == ood_data
        for cell, id_, ood, id_data, ood_data in columns
    ]
    found.left = len(mine) - sum(same)
    mine = mine[same]
    renamed = {cell: runner.encoders.train_key(trains[cell]) for cell in mine["cell"].unique()}
    new = mine.assign(key=mine["cell"].map(facts["cells"]), train_key=mine["cell"].map(renamed))
    changed = (new[["key", "train_key"]] != mine[["key", "train_key"]]).any(axis=1)
    old_keys = dict(zip(new["train_key"], mine["train_key"], strict=True))
    for train_key, old in old_keys.items():
        about = runner.results.run(old)
        if about is not None and old != train_key:
            runner.results.write_run(train_key, about | _word(old))
    if changed.any():
        runner.results.add(new[changed])
    found.rows = int(changed.sum())
    runner.results.write_plan(facts)
