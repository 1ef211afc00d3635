"""Parts of a study by `--only`, and changes to it by `--set`: no key moves, and no table passes as the file's own."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from command_line import call
from tiny import write

import oodbench
from oodbench.store.columns import COSTS
from oodbench.store.rows import SAME, Results

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained")]
TIMES = [*COSTS, "scored_at"]


def rows(folder: Path) -> pd.DataFrame:
    return Results(folder / "s").read().drop(columns=TIMES).sort_values(SAME, ignore_index=True)


def caption(folder: Path, name: str = "leaderboard.md") -> str:
    return (folder / "s" / name).read_text().split("\n\n")[1]


def test_the_parts_together_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def results(name: str) -> Path:
        monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / name))
        return tmp_path / name

    study = write(tmp_path / "s.yaml", seed=[0, 1])
    whole = results("whole")
    assert call("run", study).exit_code == 0
    parts = results("parts")
    done = call("run", study, "--only", "training=simclr", "seed=1", "--rows-only")
    assert done.exit_code == 0, done.output
    some = rows(parts)
    assert set(zip(some["training"], some["seed"], strict=True)) == {("simclr", 1)}
    with pytest.warns(
        UserWarning, match=f"{len(some)} of {len(rows(whole))} rows are there; n = 1 where 2 are declared"
    ):
        oodbench.rows(study)
    assert call("run", study, "--only", "training=simclr", "seed=0", "ood=noise").exit_code == 0
    assert "nothing of cross_entropy" in caption(parts)
    assert call("run", study, "--only", "training=cross_entropy").exit_code == 0
    assert call("run", study, "--only", "group=near", "--workers", "2").exit_code == 0
    pd.testing.assert_frame_equal(rows(parts), rows(whole))
    part, all_ = ({**(Results(each / "s").plan() or {})} for each in (parts, whole))
    assert all_.pop("begun")["inputs"]  # what the last run of a whole study followed from
    assert part == all_
    for name in ("leaderboard.md", "best.csv", "thresholds.md"):
        assert (parts / "s" / name).read_bytes() == (whole / "s" / name).read_bytes()


def test_a_plan_says_what_is_left_out(tmp_path: Path) -> None:
    study = write(tmp_path / "s.yaml", seed=[0, 1])
    done = call("plan", study, "--only", "distance=knn", "ood=noise")
    assert done.exit_code == 0, done.output
    assert "left out:    16 cells: --only distance=knn ood=noise\n" in done.stdout
    assert "left out:     4 cells: --only distance=knn ood=noise, on blobs" in done.stdout
    assert re.search(r" cells +4 +0 +4 ", done.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "trainin=simclr"], "--only trainin=simclr: wanted is AXIS=LABEL; did you mean 'training'?"),
        (["--only", "training=simclrr"], "nothing has the training 'simclrr'; did you mean 'simclr'?"),
        (["--only", "simclr"], "--only simclr: wanted is AXIS=LABEL"),
        (["--only", "seed=0", "--until-decided"], "--only does something else"),
        (["--set", "recipe.epoch=2"], "--set recipe.epoch=2: recipe.epoch: there is no such parameter; did you mean"),
        (["--set", "recipe.epochs=two"], "--set recipe.epochs=two: recipe.epochs: is 'two', should be a valid integer"),
        (["--set", "trainings=ccl"], "--set trainings=ccl: trainings: there is no such key; did you mean 'training'?"),
        (["--set", "training.simclr.temprature=1"], "training.simclr.temprature: there is no such parameter; did you"),
        (["--set", "distance.knm.k=1"], "--set distance.knm.k=1: distance is a list without 'knm'; did you mean 'knn'"),
        (["--set", "recipe.epochs"], "--set recipe.epochs: wanted is KEY=VALUE"),
        (["--set", "seed=[1"], "--set seed=[1: is not YAML"),
        (["--set", "seed.0=1"], "seed is 0, which has no key '0'"),
    ],
)  # fmt: skip
def test_what_names_nothing_is_said_with_the_nearest(tmp_path: Path, words: list[str], said: str) -> None:
    done = call("run", write(tmp_path / "s.yaml", seed=0), *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "results" / "s").exists()


def test_set_counts_as_if_the_file_said_so(tmp_path: Path) -> None:
    other = {"training": ["cross_entropy", {"simclr": {"temperature": 0.3}}], "seed": [3, 4], "name": "other"}
    file, said = write(tmp_path / "s.yaml"), write(tmp_path / "o.yaml", **other)
    changes = ["seed=[3, 4]", "training.simclr.temperature=0.3", "name=third"]
    assert call("run", file, "--rows-only", "--set", *changes).exit_code == 0
    assert call("run", said, "--rows-only").exit_code == 0
    third, wanted = (Results(tmp_path / "results" / name).read() for name in ("third", "other"))
    assert third[SAME].equals(wanted[SAME])
    assert third["auroc"].equals(wanted["auroc"])


def test_no_table_of_a_changed_study_passes_as_the_files_own(tmp_path: Path) -> None:
    file, folder = write(tmp_path / "s.yaml", training="cross_entropy"), tmp_path / "results"
    assert call("run", file).exit_code == 0
    own = (folder / "s" / "leaderboard.md").read_text()
    assert call("run", file, "--set", "recipe.lr=0.02", "clustering=labels").exit_code == 0
    note = "Not the study as its file is: changed by --set recipe.lr=0.02 clustering=labels."
    assert caption(folder).startswith(note)
    assert Results(folder / "s").plan()["set"] == ["recipe.lr=0.02", "clustering=labels"]  # type: ignore[index]
    assert call("tables", file).exit_code == 0
    assert (folder / "s" / "leaderboard.md").read_text() == own
    assert call("tables", file, "--set", "recipe.lr=0.02", "clustering=labels").exit_code == 0
    assert caption(folder).startswith(note)
    assert call("tables", file, "--set", "learned=0.9").exit_code == 0  # no row depends on it
    assert caption(folder).startswith("Not the study as its file is: changed by --set learned=0.9.")
    assert call("tables", file).exit_code == 0
    assert (folder / "s" / "leaderboard.md").read_text() == own


def test_tables_of_a_part_leave_the_studys_own(tmp_path: Path) -> None:
    tables = {"t": {"rows": ["distance"], "of": {"distance": "cosine"}, "value": "auroc", "columns": ["ood"]}}
    file, folder = write(tmp_path / "s.yaml", training="cross_entropy", tables=tables), tmp_path / "results"
    assert call("run", file).exit_code == 0
    own = {path: path.read_bytes() for path in (folder / "s").glob("*.md")}
    done = call("tables", file, "--only", "distance=knn", "group=far")
    assert done.exit_code == 0, done.output
    assert "warning: table t: no row has distance 'cosine'" in done.stderr
    assert {path: path.read_bytes() for path in (folder / "s").glob("*.md")} == own
    assert caption(folder, "only/leaderboard.md").startswith(
        "A part of the study: 1 of 10 rows, --only distance=knn group="
    )
    assert "near" not in (folder / "s" / "only" / "leaderboard.csv").read_text().splitlines()[0]


def test_a_part_needs_no_data_of_the_others(tmp_path: Path) -> None:
    sets = {"blobs": {"groups": 3, "count": 120}, "arrays": {"path": str(tmp_path / "gone.npz"), "test_share": 0.5}}
    study = write(tmp_path / "s.yaml", id=sets, training="cross_entropy")
    assert call("plan", study, "--only", "id=blobs").exit_code == 0
    done = call("run", study, "--only", "id=blobs")
    assert done.exit_code == 0, done.output
    with pytest.warns(UserWarning, match="did not plan cross_entropy · arrays"):
        assert len(oodbench.rows(study)) == 10
    assert "did not plan" in call("tables", study).stderr
    assert call("run", study).exit_code == 2


def test_parts_of_two_machines_are_merged_into_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def results(name: str) -> Path:
        monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / name))
        return tmp_path / name

    study = write(tmp_path / "s.yaml")
    whole = results("results")
    assert call("run", study).exit_code == 0
    for name, training in (("a", "simclr"), ("b", "cross_entropy")):
        results(name)
        assert call("run", study, "--only", f"training={training}", "--rows-only").exit_code == 0
    done = call("merge", tmp_path / "a", tmp_path / "b", "--into", tmp_path / "both", "--artifacts")
    assert done.exit_code == 0, done.output
    assert "both/s: 20 rows and 2 trainings taken, 0 rows were there" in done.stdout
    both = results("both")
    pd.testing.assert_frame_equal(rows(both), rows(whole))
    done = call("run", study)
    assert "\n0 trained, 0 cells scored, 20 rows" in done.stdout
    assert (both / "s" / "best.md").read_bytes() == (whole / "s" / "best.md").read_bytes()
    assert "0 damaged" in call("verify", study).stdout


def test_another_machines_results_are_shown_beside(tmp_path: Path) -> None:
    study, here = write(tmp_path / "s.yaml", training="cross_entropy"), tmp_path / "results" / "s"
    assert call("run", study).exit_code == 0
    other = Results(tmp_path / "other" / "s")
    mine = Results(here).read()
    other.add(mine.assign(trained_on="another", scored_on="another", auroc=mine["auroc"] - 0.01))
    done = call("merge", tmp_path / "other", "--into", tmp_path / "results")
    assert done.exit_code == 0, done.output
    assert "10 new rows in" in done.stdout
    assert re.search(r"cross_entropy  near +1\.0 +1\.0 ", done.stdout)
    assert list((here / "machines").glob("another-*/machine.md"))
    pd.testing.assert_frame_equal(Results(here).read(), mine)
