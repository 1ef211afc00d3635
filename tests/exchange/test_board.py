"""A board of several people's results: verified, forged rows named and left out, each submission in its own lines."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import Result, call
from grids import of_html, of_markdown
from places import ROOT
from pytorch_ood.metrics import OODMetrics
from safetensors.numpy import load_file, save_file
from tiny import write

import oodbench
from oodbench.exchange import archive
from oodbench.exchange.archive import PLAN, ROWS, RUNS, STUDY, Archive
from oodbench.store.artifacts import digest

pytestmark = pytest.mark.slow
SIDES = {"left": {"distance": "cosine"}, "right": {"distance": "knn(k=3)"}}
CLAIMS = {"first": {"says": "They are near.", "relation": "near", "margin": 100, **SIDES}}
Alter = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("board")


@pytest.fixture(scope="module")
def sent(root: Path) -> Iterator[Path]:
    """A submission of the tiny study with its features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(root / "results"))
        changes: dict[str, Any] = {"training": "cross_entropy", "posthoc": ["msp", "vim"], "seed": [0, 1, 2]}
        study = write(root / "s.yaml", **changes, claims=CLAIMS, validation={"glyphs": {"count": 40, "size": 8}})
        assert (oodbench.run(study, device="cpu")["status"] == "ok").all()
        done = call("submit", study, "--to", root / "ann.zip", "--who", "Ann", "--features")
        assert done.exit_code == 0, done.output
        assert "as Ann: 42 rows of 3 trainings" in done.stdout
        assert "features of 1" in done.stdout
        yield root / "ann.zip"


def altered(sent: Path, to: Path, who: str = "Eve", **change: Any) -> Path:
    """Write a submission again with some of its members changed; every hash fits."""
    to.parent.mkdir(exist_ok=True)
    with Archive(sent) as found:
        facts = found.facts.model_dump(exclude={"files"}) | {"who": who} | change.pop("facts", {})
        members: dict[str, bytes | Path] = {name: found.read(name) for name in (STUDY, PLAN, ROWS, RUNS)}
        if alter := change.pop("rows", None):
            members[ROWS] = gzip.compress(alter(found.rows).to_csv(index=False).encode())
        for name in found.facts.files.keys() - members.keys():
            members[name] = to.with_name(f"{name.replace('/', '-')}-{to.stem}")
            Path(members[name]).unlink(missing_ok=True)  # type: ignore[arg-type]
            found.extract(name, members[name])  # type: ignore[arg-type]
    archive.write(to, facts, members | change)
    return to


def board(folder: Path, *words: object) -> Result:
    return call("board", folder, *words)


def one(folder: Path, sent: Path, **change: Any) -> Result:
    altered(sent, folder / "eve.zip", **change)
    return board(folder, "--sample", 100)


def test_two_people_have_lines_of_their_own(sent: Path, tmp_path: Path) -> None:
    altered(sent, tmp_path / "in" / "ann.zip", who="Ann")
    other = altered(sent, tmp_path / "in" / "bob.zip", who="Bob", rows=lambda rows: rows[rows["seed"] == 1])
    assert other.is_file()
    done = board(tmp_path / "in", "--sample", 3)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "in" / "board.csv")
    assert set(table["who"]) == {"Ann", "Bob"}
    assert table.set_index("who")["near AUROC n"].to_dict() == {"Ann": 3, "Bob": 1}
    assert table["data"].nunique() == 1
    said = table.set_index("who")["verified"]
    assert said["Ann"] == "keys fit; code as here; 1 of 1 claim hold, by runs alone; 3 of 3 cells scored again agree"
    assert "no cell could be scored again" in said["Bob"]  # the features are of seed 0
    texts = {ending: (tmp_path / "in" / f"board.{ending}").read_text() for ending in ("md", "html")}
    grids = [of_markdown(texts["md"]), of_html(texts["html"])]
    assert len({tuple(tuple(cell.text for cell in line) for line in grid) for grid in grids}) == 1
    assert {"who", "machine", "date", "commit", "verified", "n"} <= {cell.text for cell in grids[0][0]}


def test_every_cell_with_features_agrees(sent: Path, tmp_path: Path) -> None:
    done = one(tmp_path / "in", sent)
    assert done.exit_code == 0, done.output
    assert "7 of 7 cells scored again agree" in done.stdout


def test_a_forged_row_is_named_and_left_out(sent: Path, tmp_path: Path) -> None:
    def forge(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.copy()
        at = rows.index[(rows["seed"] == 0) & (rows["posthoc"] == "msp") & (rows["group"] == "near")][0]
        rows.loc[at, "auroc"] = rows.loc[at, "auroc"] - 1e-5
        return rows

    with Archive(sent) as found:
        row = found.rows.query("seed == 0 and posthoc == 'msp' and group == 'near'").iloc[0]
    done = one(tmp_path / "in", sent, rows=forge)
    assert done.exit_code == 1
    assert f"warning: eve.zip: {row['cell'][:10]}/{row['ood']}: AUROC {row['auroc'] - 1e-5:.6f} stated" in done.stderr
    assert "6 of 7 cells scored again agree" in done.stdout
    assert "1 row left out" in done.stdout
    assert f"{row['cell'][:10]}/{row['ood']}" in (tmp_path / "in" / "board.md").read_text()
    assert board(tmp_path / "in", "--sample", 100, "--tolerance", 1e-4).exit_code == 0


def shifted(column: str, value: Any) -> Alter:
    def alter(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.copy()
        rows.loc[0, column] = value
        return rows

    return alter


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (shifted("key", "f" * 16), "its key is not that of the plan"),
        (shifted("cell", "f" * 16), "its key is not that of the plan"),
        (shifted("detector", json.dumps({"posthoc": {"name": "vim"}})), "its cell is not the hash of its parameters"),
        (shifted("detector", "[" * 100_000), "its cell is not the hash of its parameters"),
        (shifted("seed", 7), "its cell is not the hash of its parameters"),
        (shifted("train_key", "f" * 16), "its cell is not the hash of its parameters"),
        (shifted("auroc", 1.7), "its numbers are no shares from 0 to 1"),
        (shifted("fpr95_id", -0.1), "its numbers are no shares from 0 to 1"),
        (shifted("auroc", np.nan), "its numbers are no shares from 0 to 1"),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "the row is there twice"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_named(sent: Path, tmp_path: Path, rows: Alter, said: str) -> None:
    done = one(tmp_path / "in", sent, rows=rows)
    assert done.exit_code == 1
    assert re.search(rf"warning: eve\.zip: [0-9a-f]{{10}}/.*: {re.escape(said)}; left out", done.stderr)


def test_names_are_made_of_parameters(sent: Path, tmp_path: Path) -> None:
    names = {"training": "=mine()", "space": "<b>best</b>", "posthoc": "other", "threshold": "|"}
    done = one(tmp_path / "in", sent, rows=lambda rows: rows.assign(**names))
    assert done.exit_code == 0, done.output
    text = (tmp_path / "in" / "board.md").read_text()
    assert "cross_entropy" in text
    assert not re.search("mine|best</b>|other \\|", text)


def test_what_a_stranger_is_called_is_text(sent: Path, tmp_path: Path) -> None:
    done = one(tmp_path / "in", sent, who="<script>alert(1)</script> | **x** \x1b[31m", facts={"study": "=cmd()"})
    assert done.exit_code == 0, done.output
    name = "<script>alert(1)</script> | **x** \\x1b[31m"
    for ending, grid in (("md", of_markdown), ("html", of_html)):
        assert grid((tmp_path / "in" / f"board.{ending}").read_text())[1][0].text == name
    assert "'=cmd()" in (tmp_path / "in" / "board.csv").read_text()
    assert "\x1b" not in done.output


def test_other_code_and_plugins_that_are_not_here_are_said(sent: Path, tmp_path: Path) -> None:
    with Archive(sent) as found:
        plugins = found.facts.plugins
    other = {**plugins, "distance": {**plugins["distance"], "knn": "0" * 16, "mine": "1" * 16}}
    done = one(tmp_path / "in", sent, facts={"plugins": other})
    assert done.exit_code == 0, done.output
    assert "other code than here: knn, mine" in done.stdout


def test_a_study_that_names_code_is_not_run(sent: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with Archive(sent) as found:
        study = found.read(STUDY) + b"plugins: [evil.py, ../in]\n"
    study = study.replace(b"resnet18:", b"evil:main:")
    done = one(tmp_path / "in", sent, **{STUDY: study})
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "ran").exists()


def test_own_plugins_are_said_and_not_imported(sent: Path, tmp_path: Path) -> None:
    def own(rows: pd.DataFrame) -> pd.DataFrame:
        given = [json.loads(each) for each in rows["detector"]]
        for each in given:
            if each.get("distance"):
                each["distance"] = {"name": "os"}
        cells = [
            digest({"run": runs[key]["parameters"], "detector": each})
            for key, each in zip(rows["train_key"], given, strict=True)
        ]
        return rows.assign(detector=[json.dumps(each) for each in given], cell=cells).drop_duplicates(["cell", "ood"])

    with Archive(sent) as found:
        runs, rows, plan = found.json(RUNS), found.rows, found.json(PLAN)
    made = own(rows)
    plan["cells"] = dict(zip(made["cell"], made["key"], strict=True))
    done = one(tmp_path / "in", sent, rows=own, **{PLAN: json.dumps(plan).encode()})
    assert "could not be scored again: its plugins are not here: there is no distance 'os'" in done.stderr
    assert "2 of 2 cells scored again agree" in done.stdout


def test_plugins_of_ones_own_are_given_to_a_board(tmp_path: Path) -> None:
    norm = (ROOT / "methods" / "distance" / "norm.py").read_text(encoding="utf-8")
    (tmp_path / "length.py").write_text(norm)
    own = {"plugins": ["length.py"], "distance": "length", "training": "simclr", "outliers": None}
    study = write(tmp_path / "s.yaml", **own)
    oodbench.run(study, device="cpu")
    (tmp_path / "in").mkdir()
    done = call("submit", study, "--to", tmp_path / "in" / "ann.zip", "--features")
    assert done.exit_code == 0, done.output
    without = board(tmp_path / "in")
    assert "there is no distance 'length'" in without.stderr
    assert "give yours with --plugins" in without.stderr
    assert "other code than here: length" in without.stdout
    found = board(tmp_path / "in", "--plugins", tmp_path / "length.py")
    assert found.exit_code == 0, found.output
    assert "keys fit; code as here; 1 of 1 cells scored again agree" in found.stdout


def test_damaged_features_are_named(sent: Path, tmp_path: Path) -> None:
    with Archive(sent) as found:
        (key,) = found.facts.features
        found.extract(f"features/{key}/id.safetensors", tmp_path / "id")
    arrays = load_file(tmp_path / "id")
    arrays["features"][0] = np.nan
    save_file(arrays, tmp_path / "nan")
    done = one(tmp_path / "in", sent, **{f"features/{key}/id.safetensors": tmp_path / "nan"})
    assert done.exit_code == 1
    assert "id.safetensors: `features` has NaN or infinity in 1 of" in done.stderr
    (tmp_path / "junk").write_bytes(b"\x80\x04junk")
    done = one(tmp_path / "in", sent, **{f"features/{key}/train.safetensors": tmp_path / "junk"})
    assert "train.safetensors: cannot be read" in done.stderr


def test_a_damaged_submission_leaves_the_others(sent: Path, tmp_path: Path) -> None:
    path = altered(sent, tmp_path / "in" / "eve.zip")
    (tmp_path / "in" / "cut.zip").write_bytes(path.read_bytes()[:-100])
    (tmp_path / "in" / "plan.zip").write_bytes(b"")
    done = board(tmp_path / "in", "--sample", 0)
    assert done.exit_code == 1
    assert "cut.zip: the zip is damaged: File is not a zip file; it has no line" in done.stderr
    assert "nothing scored again" in done.stdout
    assert "1 submission, 1 line:" in done.stdout


def test_copies_are_told(sent: Path, tmp_path: Path) -> None:
    altered(sent, tmp_path / "in" / "a.zip", who="Ann")
    altered(sent, tmp_path / "in" / "b.zip", who="Bob")
    assert "the same rows as a.zip" in board(tmp_path / "in", "--sample", 0).stdout


def test_without_submissions_there_is_no_board(tmp_path: Path) -> None:
    done = board(tmp_path)
    assert (done.exit_code, "there is no submission (*.zip) in it" in done.stderr) == (2, True)


def test_values_that_no_run_writes_leave_the_others(sent: Path, tmp_path: Path) -> None:
    altered(sent, tmp_path / "in" / "ann.zip", who="Ann")
    with Archive(sent) as found:
        plan, runs = found.json(PLAN), found.json(RUNS)
    nowhere = {"id": "", "family": "", "group": "x", "ood": "y"}
    odd: list[dict[str, Any]] = [
        {PLAN: json.dumps(plan | {"sets": [[1]]}).encode()},
        {PLAN: json.dumps(plan | {"sets": {"a": {"b": "c"}}}).encode()},
        {RUNS: json.dumps({key: [] for key in runs}).encode()},
        {ROWS: gzip.compress(b"a,b\n1,2\n")},
        {ROWS: gzip.compress(b"")},
        {"rows": shifted("detector", "null")},
        {"rows": lambda rows: rows.assign(**nowhere)},
    ]
    for i, change in enumerate(odd):
        altered(sent, tmp_path / "in" / f"eve{i}.zip", **change)
    done = board(tmp_path / "in", "--sample", 1)
    assert (done.exit_code, "Traceback" in done.output) == (1, False), done.output
    assert all(f"eve{i}.zip" in done.stderr for i in range(len(odd))), done.stderr
    assert "Ann" in done.stdout


def test_tables_of_other_codebases_stand_beside_and_are_marked(sent: Path, tmp_path: Path) -> None:
    """Written as OpenOOD's script does, with pandas; and as pytorch-ood's benchmark does, of its metrics."""
    altered(sent, tmp_path / "in" / "ann.zip", who="Ann")
    alone = board(tmp_path / "in", "--sample", 0)
    ours = pd.read_csv(tmp_path / "in" / "board.csv").dropna(axis=1, how="all")
    values = [["48.17 ± 3.92", "88.03 ± 0.25", "86.5 ± 0.1", "85.1 ± 0.1", "95.06 ± 0.30"]]
    frame = pd.DataFrame(
        3 * values, index=["cifar100", "tin", "nearood"], columns=["FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT", "ACC"]
    )
    for folder, auroc in (("ood", "88.03 ± 0.25"), ("fsood", "61.00 ± 1.50")):
        (tmp_path / "theirs" / folder).mkdir(parents=True)
        frame.assign(AUROC=auroc).to_csv(tmp_path / "theirs" / folder / "msp.csv")
    metrics = OODMetrics()
    metrics.update(torch.tensor([0.1, 0.4, 0.3, 0.9]), torch.tensor([1, 1, -1, -1]))  # AUROC 3/4
    made = [{**metrics.compute(), "Dataset": name, "Detector": "ODIN"} for name in ("MNIST", "Textures")]
    text = (pd.DataFrame(made).set_index(["Dataset", "Detector"]) * 100).to_csv(float_format="%.2f")
    (tmp_path / "theirs" / "pytorch.csv").write_text(text)
    (tmp_path / "notes.csv").write_text("method,auroc\nmsp,88\n")
    done = board(tmp_path / "in", "--sample", 0, "--beside", tmp_path / "theirs", "--beside", tmp_path / "notes.csv")
    assert done.exit_code == 1
    assert "notes.csv: its columns are method, auroc: it is no table of OpenOOD" in done.stderr
    found = pd.read_csv(tmp_path / "in" / "board.csv")
    theirs = found[found["data"] == "not told"].set_index("study")
    assert theirs["who"].to_dict() == {"msp.csv": "OpenOOD", "pytorch.csv": "pytorch-ood"}
    assert theirs["verified"].str.startswith("not verified: ").all()
    assert theirs["verified"].str.contains("theirs/").all()
    plain, full = (theirs[theirs["verified"].str.contains(f"/{each}/")].iloc[0] for each in ("ood", "fsood"))
    assert (plain["near AUROC mean"], plain["near AUROC std"], plain["ID accuracy mean"]) == (88.03, 0.25, 95.06)
    assert (full["near FS AUROC mean"], full["cifar100 FS AUROC std"]) == (61.0, 1.5)
    assert np.isnan(full["near AUROC mean"])
    assert np.isnan(full["ID accuracy mean"])  # there it is of clean and shifted images together
    assert plain["near FPR@95 of OpenOOD mean"] == 48.17
    assert theirs.loc["pytorch.csv", ["posthoc", "MNIST AUROC mean", "Textures AUROC mean"]].tolist() == [
        "ODIN",
        75,
        75,
    ]
    again = found[found["data"] != "not told"][list(ours)].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, ours, check_dtype=False)  # our lines, and claims, are what they were
    assert "1 of 1 claim hold" in again["verified"].iloc[0]
    assert "1 submission, 4 lines" in done.stdout
    assert "not verified" not in alone.output
    texts = (tmp_path / "in" / "board.md").read_text()
    assert "decide no claim" in texts
    assert "88.0 ± 0.2" in texts
