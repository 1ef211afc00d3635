"""Carries store and rows of a study over to the keys of today's code, where parameters and data are the same.

A key holds the code of plugins. After a change of code that changes no number, and on the author's word alone, what was
made under old keys is linked under new ones: an artifact whose fields are those of today but for its code and for what
it is made of, and the rows that the study counted as its own when it was last run. Nothing is removed; what was carried
over says so in its manifest and in `runs`, which `oodbench show` prints.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from oodbench.errors import UserError
from oodbench.execution.garbage import needed
from oodbench.execution.runner import Runner
from oodbench.store import scores
from oodbench.store.artifacts import digest
from oodbench.store.columns import COLUMNS
from oodbench.store.memo import Fields
from oodbench.store.provenance import commit, now, version

CODE = ("source", "encoder_source")  # the fields of a key that are code
MADE = ("bank", "probe")  # kinds that are made of a training


@dataclass
class Rekeyed:
    """What was carried over."""

    artifacts: Counter[str] = field(default_factory=Counter)  # kind -> how many
    rows: int = 0
    left: int = 0  # rows of the study as it was last run that are of other parameters or data now


def rekey(runner: Runner) -> Rekeyed:
    """Carry over everything of a study. Raises UserError where no plan says which rows are its own."""
    found = Rekeyed()
    was = runner.results.plan()
    rows = runner.results.read()
    if len(rows) and was is None:
        raise UserError(f"{runner.results.folder} has rows, and no plan.json beside them says which are the study's")
    store, used = runner.pipeline.store, dict(zip(rows["train_key"], rows["scored_at"], strict=True))
    there = {kind: _by_content(runner, kind) for kind in ("data", "train")}
    trained: dict[str, str] = {}  # key of a training -> its old one
    for kind, fields in needed(runner):
        old = ""
        if kind in there:  # that of the newest rows, else the newest
            same = there[kind].get(_content(fields), [])
            old = max(same, key=lambda key: (used.get(key, ""), store.made_at(kind, key)), default="")
        elif kind in MADE and fields["train"] in trained:
            old = digest(fields | {"train": trained[fields["train"]]})
        if kind == "train" and old:
            trained[digest(fields)] = old
        if old and store.link(kind, old, digest(fields), fields, _word(old)):
            found.artifacts[kind] += 1
    if was is not None:
        _carry_rows(runner, found, rows, was)
    return found


def _by_content(runner: Runner, kind: str) -> dict[str, list[str]]:
    """Return the keys of all artifacts of a kind by what they hold but for code."""
    found: dict[str, list[str]] = {}
    for key in runner.pipeline.store.keys(kind):
        found.setdefault(_content(runner.pipeline.store.fields(kind, key)), []).append(key)
    return found


def _content(fields: Fields) -> str:
    return digest({name: value for name, value in fields.items() if name not in CODE})


def _word(old: str) -> dict[str, Any]:
    return {"rekeyed": {"from": old, "at": now(), "version": version(), "commit": commit()}}


def _carry_rows(runner: Runner, found: Rekeyed, rows: pd.DataFrame, was: dict[str, Any]) -> None:
    """Write the rows that were the study's under today's keys, and what is known of their trainings; then the plan."""
    sources = [runner.source(work) for work in runner.plan.work]
    today = [(each.cell, each.ood, each.key, of.key, each.ood_data, of.id_data) for of in sources for each in of.wanted]
    by = ["cell", "ood"]
    now = pd.DataFrame(today, columns=[*by, "key", "train_key", "ood_data", "id_data"])
    mine = rows[rows["cell"].map(was["cells"]) == rows["key"]].merge(
        now, "left", ["cell", "ood"], suffixes=("", " now")
    )
    same = (mine["ood_data"] == mine["ood_data now"]) & (mine["id_data"] == mine["id_data now"])
    found.left = int((~same).sum())
    mine = mine[same]
    for old, new in dict(zip(mine["train_key"], mine["train_key now"], strict=True)).items():
        about = runner.results.run(old)
        if about is not None and old != new:
            runner.results.write_run(new, about | _word(old))
    changed = mine[(mine["key"] != mine["key now"]) | (mine["train_key"] != mine["train_key now"])]
    if len(changed):
        renewed = changed.assign(key=changed["key now"], train_key=changed["train_key now"])
        runner.results.add(renewed[list(COLUMNS)])
    for key, key_now, *of in zip(*(changed[name] for name in ("key", "key now", "ood", "ood_data")), strict=True):
        old, new = (scores.name(each, *of) for each in (key, key_now))
        if runner.pipeline.store.link(scores.KIND, old, new, scores.fields(key_now), _word(old)):
            found.artifacts[scores.KIND] += 1
    found.rows = len(changed)
    runner.results.write_plan(runner.plan_facts())
