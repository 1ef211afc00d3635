"""Results of several machines in one folder: they are one store's, what is damaged or in conflict is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hand_made_rows import BASE

from oodbench.errors import UserError
from oodbench.store import merge as merging
from oodbench.store.artifacts import Store, digest
from oodbench.store.rows import SAME, Added, Results

PLAN: dict[str, Any] = {"study": "s", "of": "x", "cells": {}, "sets": {"digits": {"noise": ("far", "n")}}, "work": []}


def row(cell: str, seed: int = 0, **change: Any) -> dict[str, Any]:
    at = {"cell": cell, "key": f"k{cell}", "ood_data": "n", "seed": seed, "train_key": f"t{seed}"}
    made = {"trained_on": "A", "scored_on": "A", "scored_at": "2026-01-01T00:00:00Z"}
    return BASE | at | made | change


def results(folder: Path, *rows: dict[str, Any], plan: dict[str, Any] | None = None) -> Path:
    made = Results(folder)
    made.write(rows)
    made.write_plan(plan or PLAN | {"cells": {str(i): f"k{i}" for i in range(6)}})
    for each in rows:
        made.write_run(each["train_key"], {"title": each["train_key"], "machine": each["trained_on"]})
    return folder


@pytest.fixture
def merged(tmp_path: Path) -> Any:
    """Return what merges folders into `into`."""

    def do(*others: Path) -> merging.Merged:
        return merging.merge(others, tmp_path / "into", Store(tmp_path / "store"))

    return do


def sorted_rows(folder: Path) -> pd.DataFrame:
    return Results(folder).read().sort_values(SAME, ignore_index=True)


def test_rows_of_two_stores_are_those_of_one(tmp_path: Path, merged: Any) -> None:
    rows = [row(str(i), seed=i // 2, auroc=i / 10) for i in range(6)]
    one = results(tmp_path / "one", *rows)
    found = merged(results(tmp_path / "a", *rows[:3]), results(tmp_path / "b", *rows[2:]))
    assert (found.rows, found.same, found.runs) == (6, 1, 3)
    assert (found.conflicts, found.apart, found.damaged, found.notes) == ([], {}, [], [])
    pd.testing.assert_frame_equal(sorted_rows(tmp_path / "into"), sorted_rows(one))
    into = Results(tmp_path / "into")
    assert (into.plan(), into.runs()) == (Results(one).plan(), Results(one).runs())
    pd.testing.assert_frame_equal(into.current(), Results(one).current())


def test_a_second_time_takes_nothing(tmp_path: Path, merged: Any) -> None:
    a, b = results(tmp_path / "a", row("0")), results(tmp_path / "b", row("0", trained_on="B", auroc=0.1), row("1", 1))
    merged(a, b)
    before = {path: path.read_bytes() for path in (tmp_path / "into").rglob("*") if path.is_file()}
    found = merged(a, b)
    assert (found.rows, found.runs, [*found.apart.values()]) == (0, 0, [0])
    assert {path: path.read_bytes() for path in (tmp_path / "into").rglob("*") if path.is_file()} == before


def test_the_newest_of_one_machine_counts_and_both_are_named(tmp_path: Path, merged: Any) -> None:
    newer = {"scored_at": "2026-01-02T00:00:00Z", "auroc": 0.7}
    results(tmp_path / "into", row("0"), row("1", **newer))
    found = merged(results(tmp_path / "b", row("0", **newer), row("1"), row("2", key="other")))
    assert sorted_rows(tmp_path / "into")["auroc"].tolist() == [0.7, 0.7, 0.8]
    assert found.conflicts == [
        "simclr seed 0, 0/noise: AUROC 70.0000 of 2026-01-02T00:00:00Z and 80.0000 of 2026-01-01T00:00:00Z; "
        "the newer one counts",
        "simclr seed 0, 1/noise: AUROC 80.0000 of 2026-01-01T00:00:00Z and 70.0000 of 2026-01-02T00:00:00Z; "
        "the newer one counts",
    ]


def test_rows_of_another_key_stand_beside(tmp_path: Path, merged: Any) -> None:
    results(tmp_path / "into", row("0"))
    merged(results(tmp_path / "b", row("0", key="old", auroc=0.1)))
    assert len(Results(tmp_path / "into").read()) == 2
    assert Results(tmp_path / "into").current()["auroc"].tolist() == [0.8]  # the plan tells which is the study's


def test_a_number_goes_before_an_error_however_old(tmp_path: Path, merged: Any) -> None:
    error = {
        "status": "error",
        "error": "no memory",
        "auroc": None,
        "trained_on": "",
        "scored_at": "2026-02-01T00:00:00Z",
    }
    results(tmp_path / "into", row("0", **error), row("1"))
    found = merged(results(tmp_path / "b", row("0", trained_on="A"), row("1", **error), row("2", **error)))
    assert sorted_rows(tmp_path / "into")["status"].tolist() == ["ok", "ok", "error"]
    assert (found.rows, found.conflicts, found.apart) == (2, [], {})


def test_a_training_is_of_one_machine(tmp_path: Path, merged: Any) -> None:
    results(tmp_path / "into", row("0"), row("1"))
    theirs = [row("1", trained_on="B", scored_on="B", auroc=0.9), row("2", trained_on="B", scored_on="B")]
    found = merged(results(tmp_path / "b", *theirs, row("3", seed=1, trained_on="B", scored_on="B")))
    assert sorted_rows(tmp_path / "into")["cell"].tolist() == [
        "0",
        "1",
        "3",
    ]  # 2 is of the other's encoder of that training
    ((folder, count),) = found.apart.items()
    assert (count, folder.parent) == (2, tmp_path / "into" / "machines")
    assert Results(folder).current()["auroc"].tolist() == [0.9, 0.8]
    assert Results(folder).run("t0") == {"title": "t0", "machine": "B"}
    assert Results(tmp_path / "into").run("t0") == {"title": "t0", "machine": "A"}
    assert found.conflicts == []
    again = merging.merge([tmp_path / "into"], tmp_path / "third", Store(tmp_path / "store"))
    assert [*again.apart.values()] == [2]  # what lies apart comes along
    assert sorted_rows(tmp_path / "third")["cell"].tolist() == ["0", "1", "3"]


def test_two_machines_with_the_same_numbers_are_one(tmp_path: Path, merged: Any) -> None:
    results(tmp_path / "into", row("0"))
    found = merged(results(tmp_path / "b", row("0", trained_on="B"), row("1", trained_on="B")))
    assert (found.rows, found.same, found.apart) == (1, 1, {})


def test_another_machines_scoring_of_one_encoder_lies_apart_where_it_differs(tmp_path: Path, merged: Any) -> None:
    results(tmp_path / "into", row("0"))
    found = merged(results(tmp_path / "b", row("0", scored_on="B", auroc=0.81), row("1", scored_on="B")))
    assert sorted_rows(tmp_path / "into")["cell"].tolist() == ["0", "1"]
    assert [*found.apart.values()] == [1]


def test_weights_that_are_there_own_their_training(tmp_path: Path, merged: Any) -> None:
    fields = {"seed": 0}
    Store(tmp_path / "store").write("train", digest(fields), fields, lambda folder: {"machine": {"cpu": "A"}})
    found = merged(results(tmp_path / "b", row("0", train_key=digest(fields), trained_on="B")))
    assert [*found.apart.values()] == [1]


def test_what_is_damaged_is_named_and_the_rest_taken(tmp_path: Path, merged: Any) -> None:
    other = results(tmp_path / "b", row("0"), row("1", seed=1))
    Results(other).write([row("2", seed=2)])
    *parts, _ = sorted((other / "rows").rglob("*.parquet"), key=lambda path: path.name)
    for part in parts:
        part.write_bytes(part.read_bytes()[:-9])
    run = other / "runs" / "t1.json"
    run.write_text(run.read_text().replace("A", "B"))
    found = merged(other)
    assert sorted_rows(tmp_path / "into")["cell"].tolist() == ["2"]
    assert [part.name in said for part, said in zip(parts, found.damaged, strict=False)] == [True] * len(parts)
    assert "altered or cut short" in found.damaged[0]
    assert all(part.exists() for part in parts)


def test_what_is_no_results_or_another_studys_is_refused(tmp_path: Path, merged: Any) -> None:
    results(tmp_path / "into", row("0"))
    with pytest.raises(UserError, match="nowhere: holds no rows; wanted is a folder"):
        merged(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"b is of the study t, .*into of s"):
        merged(results(tmp_path / "b", row("1"), plan=PLAN | {"study": "t"}))
    assert len(Results(tmp_path / "into").read()) == 1


def test_two_others_of_two_studies_are_refused_before_anything_is_taken(tmp_path: Path, merged: Any) -> None:
    b = results(tmp_path / "b", row("1"), plan=PLAN | {"study": "t"})
    with pytest.raises(UserError, match=r"a is of the study s, .*b of t"):
        merged(results(tmp_path / "a", row("0")), b)
    c = results(tmp_path / "c", row("1"))
    next((c / "rows").rglob("*.parquet")).write_bytes(b"")
    with pytest.raises(UserError, match="no row of it can be read; nothing is taken"):
        merged(results(tmp_path / "a", row("0")), c)
    assert not (tmp_path / "into").exists()


def test_features_that_were_scored_are_joined(tmp_path: Path, merged: Any) -> None:
    def plan(cell: str, ood: str) -> dict[str, Any]:
        sets = {"digits": {ood: ("far", "")}}
        features = {"owner": {"files": {}, "ood": {ood: "n"}, "cells": {ood: [cell]}}}
        return {"study": "s", "cells": {cell: f"k{cell}"}, "sets": sets, "features": features}

    a = results(tmp_path / "a", row("0", ood="noise", ood_data=""), plan=plan("0", "noise"))
    b = results(tmp_path / "b", row("1", ood="svhn", ood_data=""), plan=plan("1", "svhn"))
    merged(a, b)
    found = Results(tmp_path / "into")
    assert found.current()["ood"].tolist() == ["svhn", "noise"]
    assert (found.plan() or {})["features"]["owner"]["cells"] == {"noise": ["0"], "svhn": ["1"]}


def test_added_seeds_come_along(tmp_path: Path, merged: Any) -> None:
    Results(results(tmp_path / "into", row("0"))).write_added(Added({"r": [3, 4]}, {"claim": 2}))
    Results(results(tmp_path / "b", row("0"))).write_added(Added({"r": [4, 5], "q": [3]}, {"claim": 1, "d": 1}))
    merged(tmp_path / "b")
    assert Results(tmp_path / "into").added() == Added({"r": [3, 4, 5], "q": [3]}, {"claim": 2, "d": 1})


def test_parts_that_were_planned_apart_are_the_whole_plan(tmp_path: Path, merged: Any) -> None:
    whole: list[Any] = [["a · seed 0", "digits", 0, 2], ["b · seed 0", "mnist", 0, 1]]
    sets = {"digits": {"noise": ("far", "n")}, "mnist": {"noise": ("far", "m")}}
    one = {"cells": {"0": "k0", "1": "k1"}, "work": whole[:1], "sets": {"digits": sets["digits"]}}
    other = {"cells": {"2": "k2"}, "work": whole[1:], "sets": {"mnist": sets["mnist"]}}
    a = results(tmp_path / "a", row("0"), plan=PLAN | one | {"unplanned": ["b · seed 0"]})
    b = results(tmp_path / "b", row("2", id="mnist", ood_data="m"), plan=PLAN | other | {"unplanned": ["a · seed 0"]})
    merged(a, b)
    plan = Results(tmp_path / "into").plan()
    wanted = PLAN | {"cells": {"0": "k0", "1": "k1", "2": "k2"}, "work": whole, "sets": sets}
    assert plan == json.loads(json.dumps(wanted))
    assert Results(tmp_path / "into").current()["cell"].tolist() == ["0", "2"]


# ---- artifacts -------------------------------------------------------------------------------------------------


def artifact(store: Store, kind: str, fields: dict[str, Any], content: bytes) -> str:
    def fill(folder: Path) -> dict[str, Any]:
        (folder / "a.bin").write_bytes(content)
        return {"n": len(content)}

    store.write(kind, digest(fields), fields, fill)
    return digest(fields)


def test_artifacts_are_copied_whole_or_named(tmp_path: Path) -> None:
    there, here, heard = Store(tmp_path / "there"), Store(tmp_path / "here"), list[str]()
    keys = [artifact(there, "bank", {"x": i}, bytes(9)) for i in range(4)]
    artifact(here, "bank", {"x": 0}, bytes(9))
    (there.path("bank", keys[1]) / "a.bin").write_bytes(bytes(8))
    (there.path("bank", keys[2]) / "manifest.json").write_text("{}")
    before = sorted(path.name for path in there.root.rglob("*"))
    assert merging.artifacts(there.root, here, (), heard.append) == {"bank": 1}
    assert here.read("bank", keys[3]) is not None
    assert [here.has("bank", key) for key in keys] == [True, False, False, True]
    assert len(heard) == 2
    assert any(keys[1] in each and "a.bin was altered or cut short; it is not taken" in each for each in heard)
    assert sorted(path.name for path in there.root.rglob("*")) == before  # nothing of the other store is touched


def test_a_manifest_names_no_file_elsewhere(tmp_path: Path) -> None:
    there, here, heard = Store(tmp_path / "there"), Store(tmp_path / "here"), list[str]()
    key = artifact(there, "bank", {"x": 1}, b"1")
    manifest = there.path("bank", key) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("a.bin", "../../../secret"))
    (tmp_path / "secret").write_bytes(b"1")
    assert merging.artifacts(there.root, here, (), heard.append) == {}
    assert "../../../secret is missing" in heard[0]
    assert not [path for path in here.root.rglob("*") if path.name == "secret"]


def test_features_of_another_machines_encoder_are_left(tmp_path: Path) -> None:
    there, here = Store(tmp_path / "there"), Store(tmp_path / "here")
    train, epoch, other = ({"seed": 0}, {"seed": 0, "epoch": 1}, {"seed": 1})
    artifact(here, "train", train, b"mine")
    for fields in (train, epoch, other):
        artifact(there, "bank", {"train": artifact(there, "train", fields, b"theirs")}, b"f")
    assert merging.artifacts(there.root, Store(shutil.copytree(here.root, tmp_path / "copy")), (), print) == {
        "train": 1,
        "bank": 1,
    }
    assert merging.artifacts(there.root, here, {digest(other)}, print) == {}
