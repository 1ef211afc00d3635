"""Part files of rows: round trip, newest of each row, damage, compaction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from oodbench.store.columns import COLUMNS, FLOATS, INTEGERS
from oodbench.store.rows import Results


@pytest.fixture
def rows(tmp_path: Path) -> Results:
    return Results(tmp_path / "study")


def test_every_column_survives_a_round_trip(rows: Results) -> None:
    row = {name: f'a "{name}", with\na line – and ±' for name in COLUMNS}
    row |= {name: 2**40 + i for i, name in enumerate(INTEGERS)}
    row |= {name: math.pi / (i + 1) * 10.0 ** (i - 5) for i, name in enumerate(FLOATS)}
    rows.write([row])
    table = rows.read()
    assert table.columns.tolist() == list(COLUMNS)
    assert table.iloc[0].to_dict() == row


def test_what_is_missing_is_empty(rows: Results) -> None:
    rows.write([{"cell": "a", "seed": 3, "auroc": 0.5}, {"cell": "b"}])
    table = rows.read().set_index("cell")
    assert table.loc["b", "training"] == ""
    assert table["seed"].isna().tolist() == [False, True]
    assert math.isnan(table.loc["b", "auroc"])
    assert table.loc["a", "seed"] == 3


def test_no_rows(rows: Results) -> None:
    assert rows.read().empty
    assert rows.read().columns.tolist() == list(COLUMNS)


def test_the_newest_of_each_row_counts(rows: Results) -> None:
    rows.write([{"cell": "a", "auroc": 0.1}, {"cell": "b", "auroc": 0.2}])
    rows.write([{"cell": "a", "auroc": 0.3}])
    assert dict(zip(rows.read()["cell"], rows.read()["auroc"], strict=True)) == {"b": 0.2, "a": 0.3}


@pytest.mark.parametrize("cut", [1, 50])
def test_a_damaged_part_is_named_and_not_used(rows: Results, cut: int) -> None:
    rows.write([{"cell": "a"}])
    rows.write([{"cell": "b"}])
    part = sorted(rows.folder.iterdir())[0]
    part.write_bytes(part.read_bytes()[:-cut])
    heard: list[str] = []
    assert Results(rows.folder.parent, heard.append).read()["cell"].tolist() == ["b"]
    assert len(heard) == 1
    assert str(part) in heard[0]


def test_other_files_are_no_parts(rows: Results) -> None:
    rows.write([{"cell": "a"}])
    (rows.folder / ".part-x").write_bytes(b"half")
    (rows.folder / "notes.csv.gz").write_bytes(b"mine")
    assert rows.read()["cell"].tolist() == ["a"]


def test_compaction_keeps_every_row_and_one_part(rows: Results) -> None:
    for i in range(3):
        rows.write([{"cell": "a", "auroc": i / 10}, {"cell": f"b{i}"}])
    before = rows.read()
    rows.compact()
    rows.compact()
    assert len(list(rows.folder.iterdir())) == 1
    assert rows.read().equals(before)


def test_compaction_keeps_a_newest_part_that_holds_all_rows(rows: Results) -> None:
    """The whole then has the name of that part: its bytes and its stamp."""
    for auroc in (0.1, 0.2):
        rows.write([{"cell": "a", "auroc": auroc}, {"cell": "b", "auroc": auroc}])
    before = rows.read()
    assert rows.compact() == 2
    assert len(list(rows.folder.iterdir())) == 1
    assert rows.read().equals(before)
    assert set(before["auroc"]) == {0.2}


def plan(cells: dict[str, str], **sets: tuple[str, str]) -> dict[str, Any]:
    return {"cells": cells, "sets": {"digits": sets}}


def test_rows_without_a_plan_are_said_to_be_all(tmp_path: Path) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    assert (len(rows.current()), heard) == (0, [])
    rows.write([{"cell": "a", "id": "digits", "ood": "noise", "key": "k", "ood_data": "d"}])
    assert len(rows.current()) == 1
    assert "plan.json is not there to say which rows are the study's: all are taken" in heard[0]


def test_current_rows_are_those_of_the_study_as_it_is(rows: Results) -> None:
    base = {"id": "digits", "ood": "noise", "group": "far", "key": "k", "ood_data": "d"}
    rows.write([base | {"cell": "a"}, base | {"cell": "b"}, base | {"cell": "b", "ood": "gone"}])
    assert len(rows.current()) == 3
    rows.write_plan(plan({"b": "k"}, noise=("near", "d")))
    assert rows.current()[["cell", "ood", "group"]].to_numpy().tolist() == [["b", "noise", "near"]]
    assert len(rows.read()) == 3


def test_rows_are_in_the_order_of_the_study_whoever_made_them_first(rows: Results) -> None:
    made = [{"cell": cell, "key": "k", "id": "i", "ood": ood, "ood_data": "x"} for cell in "bca" for ood in ("n", "m")]
    for row in made:
        rows.write([row])
    sets = {"i": {"m": ["near", "x"], "n": ["far", "x"]}}
    rows.write_plan({"cells": dict.fromkeys("acb", "k"), "sets": sets})
    found = rows.current()
    assert (found["cell"] + found["ood"]).tolist() == ["am", "an", "cm", "cn", "bm", "bn"]


@pytest.mark.parametrize(("key", "content"), [("other", "d"), ("k", "other")])
def test_rows_of_other_code_or_data_are_left_out_and_said(tmp_path: Path, key: str, content: str) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    rows.write([{"cell": "a", "id": "digits", "ood": "noise", "key": "k", "ood_data": "d"}])
    rows.write_plan(plan({"a": key}, noise=("far", content)))
    assert rows.current().empty
    assert heard == ["1 rows were made by other code or from other data; run the study to renew them"]


def test_damaged_facts_are_named_and_not_used(tmp_path: Path) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    rows.write_plan({"cells": {}})
    rows.write_run("k", {})
    for path in (tmp_path / "study" / "plan.json", tmp_path / "study" / "runs" / "k.json"):
        path.write_text("{" if path.stem == "k" else "[]")
    assert (rows.plan(), rows.run("k")) == (None, None)
    assert [message.partition(" is damaged")[0].rpartition("/")[2] for message in heard] == ["plan.json", "k.json"]


def test_runs_are_kept_by_key(rows: Results) -> None:
    assert rows.run("k") is None
    rows.write_run("k", {"seconds": 3.5, "title": "é"})
    assert rows.run("k") == {"seconds": 3.5, "title": "é"}
