"""Part files of rows: round trip, newest of each row, damage, compaction."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import math
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from oodbench.errors import UserError
from oodbench.store.artifacts import digest
from oodbench.store.columns import COLUMNS, FLOATS, INTEGERS, TEXT, TRACE
from oodbench.store.files import write_whole
from oodbench.store.rows import Results, frame, row_groups


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


@pytest.mark.slow
def test_compaction_keeps_every_row_and_one_part(rows: Results) -> None:
    for i in range(3):
        rows.write([{"cell": "a", "auroc": i / 10}, {"cell": f"b{i}"}])
    before = rows.read()
    rows.compact()
    rows.compact()
    assert len(list(rows.folder.iterdir())) == 1
    assert rows.read().equals(before)


def test_rows_are_read_whole_while_another_process_compacts(rows: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        rows.write([{"cell": f"{i}", "auroc": 0.5}])
    whole = Path.open
    other, calls = Results(rows.folder.parent), []

    def late(path: Path, *how: Any) -> Any:
        calls.append(path)
        if len(calls) == 2:
            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(Path, "open", whole)
                assert other.compact() == 5
        return whole(path, *how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", late)
        assert sorted(Results(rows.folder.parent).read()["cell"]) == list("01234")
    assert len(calls) > 2


def test_what_one_training_has_is_read_of_its_own_parts(rows: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of a whole, of its row groups alone: here two of three, each of one training or of a few."""
    monkeypatch.setattr("oodbench.store.rows.GROUP", 2)
    keys = [digest(i) for i in range(4)]
    for key in keys:
        rows.write([{"cell": f"{key}-{i}", "train_key": key, "auroc": i / 10} for i in range(2)])
    rows.write([{"cell": f"{keys[0]}-0", "train_key": keys[0], "auroc": 0.9}])
    opened: list[str] = []
    whole = pq.ParquetFile

    def seen(path: Path, **how: Any) -> Any:
        opened.append(path.name)
        return whole(path, **how)

    monkeypatch.setattr("oodbench.store.rows.pq.ParquetFile", seen)
    before = rows.read(["auroc"], training=keys[0])
    assert before["auroc"].tolist() == [0.1, 0.9]
    assert len(opened) == 2
    assert all(f"-{keys[0]}-" in name for name in opened)
    assert rows.read(training=digest("another")).empty
    every = rows.read().sort_values("cell", ignore_index=True)
    assert rows.compact() == 5
    fresh = Results(rows.folder.parent)
    pd.testing.assert_frame_equal(fresh.read(["auroc"], training=keys[0]), before)
    pd.testing.assert_frame_equal(fresh.read().sort_values("cell", ignore_index=True), every)
    (part,) = rows.folder.rglob("*.parquet")
    groups = whole(part).metadata.num_row_groups
    assert groups == 4
    assert [len(row_groups(whole(part), key)) for key in (*keys, digest("another"))] == [1, 1, 1, 1, 0]


def test_columns_and_cells_that_are_asked_for(rows: Results) -> None:
    rows.write([{"cell": "a", "ood": ood, "auroc": 0.5, "train_key": "0" * 16} for ood in ("x", "y")])
    rows.write([{"cell": "b", "ood": "x", "auroc": 0.25, "train_key": "1" * 16}])
    assert rows.read(["auroc"]).columns.tolist() == ["cell", "key", "ood", "auroc", "ood_data"]
    assert rows.read(cells={"b"})["auroc"].tolist() == [0.25]
    assert rows.read(cells={"c"}).empty
    assert rows.read(cells={"c"}).columns.tolist() == list(COLUMNS)
    assert rows.cells("") == {"a": ["0" * 16], "b": ["1" * 16]}
    assert rows.cells("b") == {"b": ["1" * 16]}
    assert rows.cells("c") == {}
    assert rows.current(["auroc"], cells={"b"})["auroc"].tolist() == [0.25]


def old_part(rows: Results, stamp: str, *given: dict[str, Any]) -> Path:
    """Write a part as versions before 2026-12 did."""
    content = gzip.compress(frame(given).to_csv(index=False).encode(), mtime=0)
    path = rows.folder / f"{stamp}-{hashlib.sha256(content).hexdigest()[:16]}.csv.gz"
    write_whole(path, content)
    return path


def test_parts_of_older_versions_are_read_beside_new_ones(rows: Results) -> None:
    one, other = {"cell": "a", "train_key": "0" * 16}, {"cell": "b", "train_key": "1" * 16}
    old = old_part(rows, "20260101T000000000000", one | {"auroc": 1 / 3, "seed": 7}, other | {"auroc": 0.2})
    rows.write([other | {"auroc": 0.3, "warnings": "a, b"}])
    found = rows.read().set_index("cell")
    assert found["auroc"].to_dict() == {"a": 1 / 3, "b": 0.3}
    assert rows.read(["auroc"], training="0" * 16)["auroc"].tolist() == [1 / 3]
    assert rows.read(cells={"a"})["seed"].tolist() == [7]
    assert rows.compact() == 2
    assert not old.exists()
    pd.testing.assert_frame_equal(Results(rows.folder.parent).read().set_index("cell"), found)


def test_a_damaged_part_outlives_compaction_and_no_other_row_is_lost(tmp_path: Path) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    for i in range(3):
        rows.write([{"cell": f"{i}", "train_key": f"{i}" * 16}])
    bad = next(path for path in rows.folder.rglob("*.parquet") if f"-{'1' * 16}-" in path.name)
    bad.write_bytes(bad.read_bytes()[:-1])
    fresh = Results(rows.folder.parent, heard.append)
    assert fresh.compact() == 2
    assert bad.exists()
    assert len(heard) == 1
    assert Results(rows.folder.parent, heard.append).read()["cell"].tolist() == ["0", "2"]


def test_columns_that_a_part_does_not_have_are_empty(rows: Results) -> None:
    """As those that a later version adds."""
    rows.write([{"cell": "a", "auroc": 0.5}])
    (part,) = rows.folder.iterdir()
    table = pq.read_table(part).drop_columns(["warnings", "fpr95_id", "seed"])
    part.unlink()
    content = io.BytesIO()
    pq.write_table(table, content)
    name = f"20260101T000000000000-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.parquet"
    (rows.folder / name).write_bytes(content.getvalue())
    found = rows.read()
    assert found.dtypes.to_dict() == frame([]).dtypes.to_dict() | dict.fromkeys(TEXT + TRACE, found["cell"].dtype)
    assert (found["auroc"].tolist(), found["warnings"].tolist()) == ([0.5], [""])
    assert found[["fpr95_id", "seed"]].isna().all(axis=None)


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


def test_a_clock_that_goes_back_hides_no_row(rows: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """New rows are the last, whatever the clock says, and rows of another key stand in nobody's way."""
    base = {"id": "digits", "ood": "noise", "ood_data": "d", "cell": "a"}
    turn_clock(monkeypatch, 2031)
    rows.write([base | {"key": "old", "auroc": 0.1}, base | {"key": "new", "auroc": 0.2}])
    turn_clock(monkeypatch, 2026)
    rows.write([base | {"key": "new", "auroc": 0.3}])
    rows.write_plan(plan({"a": "new"}, noise=("far", "d")))
    assert rows.current()["auroc"].tolist() == [0.3]
    rows.compact()
    assert Results(rows.folder.parent).current()["auroc"].tolist() == [0.3]
    rows.write_plan(plan({"a": "old"}, noise=("far", "d")))
    assert rows.current()["auroc"].tolist() == [0.1]


def test_rows_of_a_machine_whose_clock_is_ahead_hide_none_of_another_key(rows: Results) -> None:
    """As where two machines with other code write at the same time, and neither sees the other's part."""
    base = {"id": "digits", "ood": "noise", "ood_data": "d", "cell": "a", "group": "far"}
    rows.write([base | {"key": "mine", "auroc": 0.3}])
    old_part(rows, "20990101T000000000000", base | {"key": "other", "auroc": 0.1})
    rows.write_plan(plan({"a": "mine"}, noise=("far", "d")))
    assert rows.current()["auroc"].tolist() == [0.3]


def turn_clock(patch: pytest.MonkeyPatch, year: int) -> None:
    class Turned(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(year, 1, 1, tzinfo=tz)

    patch.setattr("oodbench.store.rows.datetime", Turned)


def test_a_run_that_was_altered_or_exchanged_is_named_and_not_used(tmp_path: Path) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    for key in "ab":
        rows.write_run(key, {"parameters": {"seed": key}, "accuracies": {"linear": 0.5}})
    a, b = (tmp_path / "study" / "runs" / f"{key}.json" for key in "ab")
    texts = a.read_text(), b.read_text()
    a.write_text(texts[1])
    b.write_text(texts[1].replace("0.5", "0.6"))
    assert (rows.run("a"), rows.run("b")) == (None, None)
    assert ["altered, or is another file" in each for each in heard] == [True, True]
    a.write_text(texts[0])
    assert rows.run("a") == {"parameters": {"seed": "a"}, "accuracies": {"linear": 0.5}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "valid dictionary"),
        ("{}", "cells: Field required"),
        ('{"cells": {"a": 1}, "sets": {}}', "cells.a: Input should be a valid string"),
        ('{"cells": {}, "sets": {"digits": {"noise": "far"}}}', "sets.digits.noise"),
        ("[" * 100_000, "recursion"),
        (chr(0), "Expecting value"),
    ],
)
def test_a_plan_of_another_form_is_named_and_not_used(tmp_path: Path, text: str, said: str) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    rows.write([{"cell": "a", "ood": "noise"}])
    (tmp_path / "study" / "plan.json").write_text(text)
    assert len(rows.current()) == 1
    assert "plan.json is damaged and not used: " in heard[0]
    assert said in heard[0]


def test_a_plan_or_a_part_that_is_a_folder_is_named(tmp_path: Path) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    rows.write([{"cell": "a", "ood": "noise"}])
    part = rows.folder / f"20990101T000000000000-{'0' * 16}.csv.gz"
    part.mkdir()
    (tmp_path / "study" / "plan.json").mkdir()
    assert len(rows.current()) == 1
    assert str(part) in heard[0]
    assert "plan.json is damaged and not used: Is a directory" in heard[1]


PARTS = {"empty": b"", "text": b"no gzip", "no row": gzip.compress(b""), "no number": gzip.compress(b"seed\nmany\n")}


@pytest.mark.parametrize("content", PARTS.values(), ids=PARTS)
def test_a_part_of_another_form_is_named_and_not_used(tmp_path: Path, content: bytes) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    rows.write([{"cell": "a"}])
    name = f"20260101T000000000000-{hashlib.sha256(content).hexdigest()[:16]}.csv.gz"
    (rows.folder / name).write_bytes(content)
    assert rows.read()["cell"].tolist() == ["a"]
    assert name in heard[0]


def test_what_killed_writes_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    write = "import sys, time; from pathlib import Path; from oodbench.store import files\n"
    write += "with files._held_file(Path(sys.argv[1])) as stream: print(stream.name, flush=True); time.sleep(60)"
    writer = subprocess.Popen([sys.executable, "-c", write, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    part = Path(writer.stdout.readline().strip())
    try:
        write_whole(tmp_path / "a", b"1")
        assert part.is_file()
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert part.is_file()
    write_whole(tmp_path / "b", b"2")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_write_that_fails_leaves_nothing_and_says_where(
    rows: Results, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write([{"cell": "a"}])
    said = f"{re.escape(str(rows.folder))}.* cannot be written: {os.strerror(number)}"

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=said):
            rows.write([{"cell": "b"}])
    assert len(list(rows.folder.iterdir())) == 1
    assert rows.read()["cell"].tolist() == ["a"]


def test_a_results_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for folder in ("file", "loop"):
        with pytest.raises(UserError, match=rf"{folder}.* cannot be written"):
            Results(tmp_path / folder).write([{"cell": "a"}])


def test_rows_of_two_machines_are_said_to_be(tmp_path: Path) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    base = {"id": "digits", "group": "far", "key": "k", "ood_data": "d", "ood": "noise", "status": "ok"}
    rows.write([base | {"cell": "a", "trained_on": "X, AVX2", "scored_on": "X, AVX2"}])
    rows.write([base | {"cell": "d", "status": "error"}])  # has no numbers
    rows.write_plan(plan(dict.fromkeys("abcd", "k"), noise=("far", "d")))
    assert len(rows.current()) == 2
    assert heard == []
    rows.write([base | {"cell": "b", "trained_on": "X, AVX512", "scored_on": "X, AVX2"}, base | {"cell": "c"}])
    assert len(rows.current()) == 4
    (said,) = heard
    assert said == (
        "These rows are of 3 machines or numbers of threads, whose numbers may differ: 1 trained on X, AVX2; "
        "1 trained on X, AVX512, scored on X, AVX2; 1 trained on one that is not recorded."
    )


def test_quality_of_which_a_number_was_altered_is_not_used(tmp_path: Path) -> None:
    heard: list[str] = []
    rows = Results(tmp_path / "study", heard.append)
    rows.write_clusters(pd.DataFrame({"training": ["simclr"], "silhouette": [0.25]}))
    found = rows.clusters()
    assert found is not None
    assert found["silhouette"].tolist() == [0.25]
    file = tmp_path / "study" / "quality.csv"
    file.write_text(file.read_text().replace("0.25", "0.75"))
    assert rows.clusters() is None
    assert "altered or cut short" in heard[0]
