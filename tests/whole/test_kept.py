"""The rows of a study as it stands: whatever made them, whatever was its last run, and whose the folder is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import careless
import pandas as pd
import pytest
from command_line import call
from places import ROOT
from tiny import TINY, write

import oodbench
from oodbench.errors import UserError
from oodbench.study import reader
from oodbench.study.document import file_of, read

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained")]


def study(folder: Path, **changes: Any) -> Path:
    return write(folder / "s.yaml", **{"training": "cross_entropy", "threshold": "pooled", **changes})


def leaderboard(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "leaderboard.csv")


def test_a_folder_of_results_is_of_one_study(tmp_path: Path) -> None:
    one, other = study(tmp_path / "a"), study(tmp_path / "b", distance="euclidean")
    assert call("run", one).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "results" / "s").rglob("*") if path.is_file()}
    commands = ("tables", "run", "plan", "prepare", "audit", "quality", "curve", "compact", "rekey")
    for words in (*([each, other] for each in commands), ["show", other, "a"]):
        done = call(*words)
        assert (done.exit_code, done.stdout) == (2, ""), words
        assert f"is of the study {one}, not of {other}; give one of them another `name:`" in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "c").mkdir()
    assert call("tables", shutil.copy(one, tmp_path / "c" / "s.yaml")).exit_code == 0  # it says the same
    for name in ("d", "e"):  # they say the same of data that is not
        (tmp_path / name / "own").mkdir(parents=True)
        file = write(tmp_path / name / "t.yaml", data="own")
        done = call("run", file)
        assert done.exit_code == (0 if name == "d" else 2)
    assert "is of the study" in done.stderr
    one.unlink()
    done = call("tables", other)
    assert (done.exit_code, "run the study first" in done.stderr) == (2, True)
    assert call("run", other).exit_code == 0
    assert set(oodbench.rows(other)["distance"]) == {"euclidean"}


def test_tables_are_of_the_study_as_it_stands(tmp_path: Path) -> None:
    folder, file = tmp_path / "results" / "s", study(tmp_path, distance=["cosine", "euclidean"])
    call("run", file)
    done = call("tables", study(tmp_path, distance="euclidean"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert set(leaderboard(folder)["distance"]) == {"euclidean"}
    done = call("tables", study(tmp_path, distance=["euclidean", "cosine"], seed=[0, 1]))
    assert "8 of 16 rows are there; n = 1 where 2 are declared; nothing of cross_entropy" in done.stderr
    assert "\n8 of 16 rows are there; n = 1 where 2 are declared; " in (folder / "leaderboard.md").read_text()
    assert set(leaderboard(folder)["distance"]) == {"euclidean", "cosine"}


def test_code_that_a_study_imports_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers in folders beside the study: of its encoder and of its plugin."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    careless.write(tmp_path / "mine" / "x.py", at_import="from .parts_s.more import f")
    for name, text in {"nets_s/net.py": "from nets_s.deep.blocks import f", "nets_s/deep/blocks.py": "f = 1"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "mine" / "parts_s").mkdir()
    (tmp_path / "mine" / "parts_s" / "more.py").write_text("f = 1")
    file = study(tmp_path, distance=["x"], plugins=["mine/x.py"], encoder="nets_s.net:f")
    stamps = {reader.stamp(read(file))}
    for helper in ("nets_s/deep/blocks.py", "mine/parts_s/more.py"):
        (tmp_path / helper).write_text("f = 22")
        stamps.add(reader.stamp(read(file)))
    assert len(stamps) == 3


def test_code_of_the_package_is_not_a_studys_own(tmp_path: Path) -> None:
    elsewhere = Path(shutil.copy(ROOT / "benchmark.yaml", tmp_path))
    assert reader.stamp(read(file_of("default"))) == reader.stamp(read(elsewhere))


def test_rows_of_another_machine_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = study(tmp_path, distance="cosine")
    call("run", file)
    study(tmp_path, distance="cosine", seed=[0, 1])
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "elsewhere"))
    call("run", file)
    monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / "results"))
    for part in (tmp_path / "elsewhere" / "s" / "rows").rglob("*.parquet"):
        shutil.copy(part, tmp_path / "results" / "s" / "rows")
    done = call("tables", file)
    assert (done.exit_code, done.stderr) == (0, "")
    assert set(leaderboard(tmp_path / "results" / "s")["near AUROC n"]) == {2}


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    file = study(tmp_path, training=["cross_entropy", "simclr"])
    call("run", file)
    parts = sorted((tmp_path / "results" / "s" / "rows").rglob("*.parquet"))
    parts[0].unlink()
    assert " rows are there; nothing of cross_entropy" in call("tables", file).stderr
    with pytest.warns(UserWarning, match="rows are there; nothing of cross_entropy"):
        assert set(oodbench.rows(file)["training"]) == {"simclr"}
    call("run", file)
    assert call("tables", file).stderr == ""


def test_without_the_data_the_rows_of_the_last_run_are_shown(tmp_path: Path) -> None:
    file = study(tmp_path, distance=["cosine", "euclidean"])
    call("run", file)
    done = call("tables", study(tmp_path, distance="euclidean", ood={"far": {"folder": {"path": "nowhere"}}}))
    assert done.exit_code == 0, done.stderr
    assert "plugins have changed since its last run, whose rows these are: folder(path=nowhere" in done.stderr
    assert set(leaderboard(tmp_path / "results" / "s")["distance"]) == {"cosine", "euclidean"}


def test_a_mapping_is_a_study(tmp_path: Path) -> None:
    said = TINY | {"name": "mine", "training": "cross_entropy", "distance": "cosine", "threshold": ("pooled",)}
    said.pop("outliers")
    assert len(oodbench.run(said, device="cpu")) == len(oodbench.rows(said)) == 4
    assert (tmp_path / "results" / "mine" / "plan.json").is_file()
    with pytest.warns(UserWarning, match="4 of 8 rows are there"):
        assert len(oodbench.rows(said | {"distance": ["euclidean", "cosine"]})) == 4
    with pytest.raises(UserError, match=r"study: training: there is no training 'simclrr'; did you mean 'simclr'"):
        oodbench.run(said | {"training": "simclrr"})


def test_a_study_of_a_suite_is_the_same_when_it_is_looked_at_again() -> None:
    file = ROOT / "studies" / "openood_cifar10.yaml"
    assert reader.stamp(reader.load(file).document) == reader.stamp(read(file))
