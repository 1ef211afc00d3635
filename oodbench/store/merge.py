"""Rows, runs and artifacts of other machines, taken into a folder of results. Nothing of the others is changed.

Of rows that agree in cell, set, key and content the newest counts. A training is one machine's: the one whose it was
first. What another machine made of the same training, in other numbers, lies apart, in `machines/MACHINE`, a folder of
results itself: rows of two encoders are never mixed. It knows bytes and rows, no ML.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from oodbench.errors import UserError
from oodbench.store.artifacts import MANIFEST, Store, digest, sha256
from oodbench.store.columns import MEASURED
from oodbench.store.rows import SAME, Added, Results

MACHINES = "machines"  # in a folder of results
TRAIN = "train"  # the kind of an encoder's weights
SHORT = 10  # signs of a hash that is shown


@dataclass
class Merged:
    """What was taken of the results of other machines."""

    rows: int = 0  # that are new, or newer
    same: int = 0  # that were there in the same numbers
    runs: int = 0
    conflicts: list[str] = field(default_factory=list)  # rows of one machine in two numbers
    apart: dict[Path, int] = field(default_factory=dict)  # folder of another machine's results -> new rows in it
    apart_keys: set[str] = field(default_factory=set)  # of trainings and rows that lie apart
    damaged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def merge(others: Sequence[Path], into: Path, store: Store, training: str | None = None) -> Merged:
    """Take rows, runs, plan and added seeds of folders of results of a study into one, whose artifacts `store` has.

    Of a training alone, by its key, if one is said: no row of another is read. Rows come last: what they say of a
    training is there with them. Raises UserError where a folder holds no rows, or those of another study.
    """
    merged = Merged()
    here = Results(into, merged.damaged.append)
    every = [part for other in others for part in (other, *sorted(other.glob(f"{MACHINES}/*")))]
    _check(others, [*every, into])
    theirs = [(other, Results(other, merged.damaged.append)) for other in every]
    read = [(other, there, there.read(training=training)) for other, there in theirs]
    if lost := [other for other, _, found in read if found.empty and other in others]:
        raise UserError(f"{lost[0]}: no row of it can be read; nothing is taken")
    for other, there, found in read:
        _take_plan(there, here, other, merged)
        mine, away = _parted(found, here.read(training=training), store)
        for machine, rows in away.groupby(_machine(away)):
            folder = into / MACHINES / _folder_name(str(machine))
            apart = Results(folder, merged.damaged.append)
            if plan := here.plan():
                apart.write_plan(plan)
            _take_runs(rows, there, apart)
            count = _take(rows, apart, Merged(), training)
            merged.apart[folder] = merged.apart.get(folder, 0) + count
            merged.apart_keys |= {*rows["train_key"], *rows["key"]}
        merged.runs += _take_runs(mine, there, here)
        merged.rows += _take(mine, here, merged, training)
    return merged


def _check(others: Sequence[Path], every: Sequence[Path]) -> None:
    """Raise UserError where a folder is no folder of results, or where they are of several studies."""
    for other in others:
        if not (other / "rows").is_dir():
            wanted = "wanted is a folder of a study's results, with rows/ and plan.json"
            raise UserError(f"{other}: holds no rows; {wanted}")
    plans = {folder: plan for folder in every if (plan := Results(folder).plan())}
    studies = {folder: (plan.get("study"), "features" in plan) for folder, plan in plans.items()}
    for folder, (name, scored) in studies.items():
        first, its = next(iter(studies.items()))
        if (name, scored) != its:
            raise UserError(f"{first} is of the study {its[0]}, {folder} of {name}")


def _take_plan(there: Results, here: Results, other: Path, merged: Merged) -> None:
    """Take the plan where there is none, of parts what another planned, and seeds that were added to a study's own."""
    plan, its = here.plan(), there.plan()
    if its and plan is None:
        here.write_plan(its)
    elif its and plan and its.get("of") != plan.get("of"):
        said = "the study's file or plugins were others there: rows count as far as their keys are those of the study"
        merged.notes.append(f"{other}: {said}")
    elif its and plan and plan.get("unplanned"):
        here.write_plan(_united(plan, its))
    elif its and plan and "features" in plan:  # each scored files of its own
        here.write_plan(its | plan | {part: _joined(its[part], plan[part]) for part in ("cells", "sets", "features")})
    mine, more = here.added(), there.added()
    seeds = {key: sorted({*mine.seeds.get(key, []), *more.seeds.get(key, [])}) for key in mine.seeds | more.seeds}
    looks = {name: max(mine.looks.get(name, 0), more.looks.get(name, 0)) for name in mine.looks | more.looks}
    if (both := Added(seeds, looks)) != mine:
        here.write_added(both)


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return two mappings as one, and mappings in them; of what both have, the other's counts."""
    both = {key: _joined(one[key], value) for key, value in other.items() if isinstance(one.get(key), dict)}
    return one | other | both


def _united(plan: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the plan of a part of a study with what the plan of another part has of the trainings that it lacks."""
    cells, work, its = dict(plan["cells"]), list(plan["work"]), iter(other["cells"].items())
    for title, id_, seed, count in other["work"]:
        own = [next(its) for _ in range(count)]
        if title in plan["unplanned"]:
            cells |= dict(own)
            work.append((title, id_, seed, count))
    planned = {title for title, *_ in work}
    left = [title for title in plan["unplanned"] if title not in planned]
    whole = {name: value for name, value in plan.items() if name != "unplanned"}
    found = whole | {"cells": cells, "work": work, "sets": other["sets"] | plan["sets"]}
    return found | ({"unplanned": left} if left else {})


def _parted(found: pd.DataFrame, mine: pd.DataFrame, store: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return which rows are for the same folder as mine, and which are another machine's of what is there."""
    owner = _owners(pd.concat([mine, found]))
    for key in {*found["train_key"]} - {*mine.loc[mine["status"] == "ok", "train_key"]}:
        if store.has(TRAIN, key) and (artifact := store.read(TRAIN, key)):
            owner[key] = ", ".join(artifact.meta.get("machine", {}).values())
    here = _beside(found, mine)
    done = found["status"] == "ok"
    shared = done & (here["status"] == "ok")
    differ = shared & ~_alike(found, here)
    moved = found["train_key"].isin(found.loc[differ, "train_key"])
    proved = found["train_key"].isin(found.loc[shared, "train_key"]) & ~moved  # wherever both have numbers, the same
    foreign = done & (found["train_key"].map(owner) != found["trained_on"]) & ~proved
    foreign |= differ & (found["scored_on"] != here["scored_on"])
    return found[~foreign], found[foreign]


def _owners(rows: pd.DataFrame) -> dict[str, str]:
    """Return the machine of each training: that of the first row with numbers."""
    done = rows[rows["status"] == "ok"].drop_duplicates("train_key")
    return dict(zip(done["train_key"], done["trained_on"], strict=True))


def _beside(found: pd.DataFrame, mine: pd.DataFrame) -> pd.DataFrame:
    """Return for each row the one of mine that is the same in cell, set, key and content; empty where there is none."""
    return mine.set_index(SAME).reindex(pd.MultiIndex.from_frame(found[SAME])).set_axis(found.index)


def _alike(found: pd.DataFrame, here: pd.DataFrame) -> pd.Series[bool]:
    """Return which rows have the same numbers as those beside them."""
    one, other = (rows[[*MEASURED]].to_numpy(float) for rows in (found, here))
    return pd.Series(((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1), found.index)


def _machine(rows: pd.DataFrame) -> pd.Series[str]:
    """Return what made each row: the machine that trained, and that which scored where it is another."""
    scored = ("; scored on " + rows["scored_on"]).where(rows["scored_on"] != rows["trained_on"], "")
    return rows["trained_on"] + scored


def _folder_name(machine: str) -> str:
    """Return the folder of a machine's results: what can be read of its name, and a hash of it."""
    return f"{re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')[:60]}-{digest([machine])[:8]}"


def _take(found: pd.DataFrame, here: Results, merged: Merged, training: str | None) -> int:
    """Add rows that are new or newer, name those in other numbers, and return how many were added."""
    before = _beside(found, here.read(training=training))
    there = before["status"].notna()
    done, done_before = found["status"] == "ok", before["status"] == "ok"
    same = there & (done == done_before) & _alike(found, before)
    newer = (found["scored_at"] > before["scored_at"].fillna("")) & (done == done_before)
    taken = ~there | (~same & (newer | (done & ~done_before)))
    for i in found.index[there & ~same & done & done_before]:
        row, old = found.loc[i], before.loc[i]
        numbers = f"AUROC {100 * row['auroc']:.4f} of {row['scored_at']} and {100 * old['auroc']:.4f} of"
        label = f"{row['training']} seed {row['seed']}, {row['cell'][:SHORT]}/{row['ood']}"
        merged.conflicts.append(f"{label}: {numbers} {old['scored_at']}; the newer one counts")
    merged.same += int(same.sum())
    if taken.any():
        here.add(found[taken])
    return int(taken.sum())


def _take_runs(rows: pd.DataFrame, there: Results, here: Results) -> int:
    """Take what is kept of the trainings of rows where nothing is, and return of how many."""
    count = 0
    for key in rows["train_key"].unique():
        if here.run(key) is None and (facts := there.run(key)) is not None:
            here.write_run(key, facts)
            count += 1
    return count


def artifacts(other: Path, store: Store, without: Collection[str], damaged: Callable[[str], None]) -> Counter[str]:
    """Copy the artifacts of another store that are whole and not there, and return how many of each kind.

    Left are those of trainings and rows whose keys are in `without`, and of trainings that are there in other weights:
    they are another machine's. `damaged` hears of those that do not match their manifests.
    """
    there, taken, left = Store(other), Counter[str](), {*without}
    trained = {key: there.fields(TRAIN, key) for key in there.keys(TRAIN)}
    left |= {key for key in trained if store.has(TRAIN, key) and _files(there, key) != _files(store, key)}
    whole = {key: digest({name: each for name, each in of.items() if name != "epoch"}) for key, of in trained.items()}
    left |= {key for key in trained if whole[key] in left}  # kept epochs of these trainings
    for kind in there.kinds():
        for key in there.keys(kind):
            fields = there.fields(kind, key)
            text = f"{key} {json.dumps(fields)}"
            if store.has(kind, key) or any(each in text for each in left):
                continue
            try:
                store.write(kind, key, fields, partial(_copied, there.path(kind, key)))
            except ValueError as error:  # of a manifest as well: it may be no JSON, or another's
                damaged(f"{there.path(kind, key)}: {error}; it is not taken")
            else:
                taken[kind] += 1
    return taken


def _files(store: Store, key: str) -> Any:
    """Return the hashes of a training's files; None where they cannot be read."""
    try:
        return json.loads((store.path(TRAIN, key) / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _copied(path: Path, folder: Path) -> dict[str, Any]:
    """Copy the files of an artifact and return the facts about it. Raises ValueError where they are not its own."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    try:
        files, meta = dict(manifest["files"]), dict(manifest["meta"])
    except (KeyError, TypeError) as error:
        raise ValueError("its manifest cannot be read") from error
    for name, wanted in files.items():
        if Path(name).name != name or not (path / name).is_file():
            raise ValueError(f"{name} is missing")
        shutil.copyfile(path / name, folder / name)
        if sha256(folder / name) != wanted:
            raise ValueError(f"{name} was altered or cut short")
    return meta
