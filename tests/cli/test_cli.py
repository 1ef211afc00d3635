"""The command line as a user meets it: output, messages, exit codes."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import typer
from command_line import call
from filled_stubs import FILLED
from rich.console import Console
from tiny import write
from typer.testing import CliRunner
from warm import Command

from oodbench.cli import screen
from oodbench.cli.app import guarded
from oodbench.cli.progress import EVENT, Board
from oodbench.report.tables import Table

HEAVY = {"PIL", "datasets", "faiss", "pytorch_ood", "scipy.stats", "sklearn", "timm", "torch", "torchvision"}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write(tmp_path / "s.yaml", tables={"t": {"rows": ["training", "distance"], "columns": ["ood"]}})


@pytest.mark.slow
def test_run_prints_a_leaderboard_and_writes_every_table(study: Path, tmp_path: Path) -> None:
    done = call("run", study)
    assert done.exit_code == 0, done.output
    assert "leaderboard: 10 of 10 methods" in done.stdout
    assert "best: 2 of 2 methods" in done.stdout
    assert "2 trained, 10 cells scored, 20 rows" in done.stdout
    folder = tmp_path / "results" / "s"
    for name in ("leaderboard", "best", "tables/t"):
        for ending in ("md", "csv", "tex"):
            assert (folder / f"{name}.{ending}").stat().st_size > 100
    again = call("run", study)
    assert "0 trained, 0 cells scored, 20 rows" in again.stdout


def test_a_printed_table_keeps_what_a_threshold_saw(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets are no markup of the terminal, in labels, headings and captions alike."""
    index = pd.MultiIndex.from_tuples([("ce", "youden [saw noise]"), ("ce", "pooled")], names=["training", "threshold"])
    numbers = pd.DataFrame({("svhn [odd]", "AUROC"): [90.0, 80.0]}, index=index)
    table = Table("t", "Those of f1 [saw noise].", numbers, numbers * float("nan"), numbers, {numbers.columns[0]: 1})
    screen.show(table, "t", 2)
    said = capsys.readouterr().out
    assert all(each in said for each in ("youden [saw noise]", "svhn [odd]", "f1 [saw noise]"))


NASTY = "a[/b] [red]x[/red] \x1b[31mred\x07"
SHOWN = r"a[/b] [red]x[/red] \x1b[31mred\x07"


def test_what_is_printed_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the markup of rich nor a terminal's own codes are obeyed in a name, a path or a server's words."""
    index = pd.MultiIndex.from_tuples([(NASTY,)], names=["training"])
    numbers = pd.DataFrame({(NASTY, "AUROC"): [90.0]}, index=index)
    screen.show(Table("t", NASTY, numbers, numbers * float("nan"), numbers, {numbers.columns[0]: 1}), NASTY, 1)
    screen.say(NASTY)
    screen.warn(NASTY)
    table = screen.columns("a")
    table.add_row(screen.text(NASTY))
    table.add_row("a[/b]")
    screen.out.print(table)
    board = Board(screen.err)
    with board:
        board.stage("train", NASTY)
        board.failed(NASTY, NASTY)
        board.warn(NASTY)
        board.hear(2, NASTY)
        board.downloading(NASTY, 5, 5)
    said = capsys.readouterr()
    assert "\x1b[31m" not in said.out + said.err
    assert "\x07" not in said.out + said.err
    assert said.out.count(SHOWN) == 6
    assert said.err.count(SHOWN) == 7


def test_a_live_board_shows_titles_as_they_are() -> None:
    stream = io.StringIO()
    with Board(Console(file=stream, force_terminal=True, width=200)) as board:
        board.planned(1, 1, 0)
        board.stage("train", NASTY)
        board.epoch(0, 2, 0.5)
    assert SHOWN in stream.getvalue()


def test_terms_stand_beside_their_loss(capsys: pytest.CaptureFixture[str]) -> None:
    """Of this process, and of one that tells of them; the next training has none."""
    events = (("stage", "train", "t"), ("terms", {"open": 0.125, "closed": 0.375}), ("epoch", 0, 2, 0.5))
    with Board(screen.err) as board:
        for name, *given in (*events, ("stage", "train", "u"), ("epoch", 0, 2, 0.5), ("stage", "bank", "u")):
            getattr(board, name)(*given)
            board.hear(2, f"{EVENT}{json.dumps([name, *given])}")
    said = capsys.readouterr().err
    assert said.count("trained t: loss 0.5000 (open 0.1250, closed 0.3750), ") == 2
    assert said.count("trained u: loss 0.5000, ") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_tables_are_regenerated_byte_for_byte(study: Path, tmp_path: Path) -> None:
    call("run", study)
    folder = tmp_path / "results" / "s"
    files = sorted(path for path in folder.rglob("*.*") if path.suffix in (".md", ".csv", ".tex"))
    before = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
    done = call("tables", study)
    assert done.exit_code == 0
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.slow
def test_plan_says_what_is_there_and_what_is_to_do(study: Path) -> None:
    first = call("plan", study)
    assert first.exit_code == 0, first.output
    assert re.search(r"trainings +2 +0 +2", first.stdout)
    assert re.search(r"sets to embed +10 +0 +10", first.stdout)
    assert re.search(r"cells +10 +0 +10", first.stdout)
    assert re.search(r"left out: +4 cells: knn\(k=3\) ignores clusters", first.stdout)
    assert re.search(r"time: about \d+ s on cpu; disk: about \d+\.\d kB", first.stdout)
    call("run", study)
    assert re.search(
        r"cells +10 +10 +0 *\n.*time: about 0 s on cpu; disk: about 0 bytes", call("plan", study).stdout, re.S
    )


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_show_says_where_a_number_comes_from(study: Path, tmp_path: Path) -> None:
    call("run", study)
    import oodbench

    row = oodbench.rows(study).iloc[3]
    done = call("show", study, f"{row['cell'][:10]}/{row['ood']}")
    first, training = re.split("the training .* behind it:", done.stdout)
    shown = json.loads(first)
    assert shown["auroc"] == pytest.approx(row["auroc"])
    assert (shown["cell"], shown["ood"], shown["seed"]) == (row["cell"], row["ood"], 0)
    facts = json.loads(training)
    assert facts["parameters"]["recipe"]["lr"] == 0.05
    assert {"seconds", "device", "libraries", "commit", "losses", "trained_at"} <= set(facts)
    assert call("show", study, "zzz").exit_code == 2
    assert done.stderr == ""
    assert len(call("show", study, row["cell"]).stdout.split('"cell"')) == 3  # one row for each OOD set
    plan = tmp_path / "results" / "s" / "plan.json"
    facts = json.loads(plan.read_text())
    del facts["digest"]  # an altered plan is not read where there is one
    plan.write_text(json.dumps(facts | {"cells": facts["cells"] | {row["cell"]: "of other code"}}))
    outdated = call("show", study, row["cell"])
    assert len(outdated.stdout.split('"cell"')) == 3
    assert f"{row['cell']}/{row['ood']} is in no table: code or data have changed" in " ".join(outdated.stderr.split())


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_failed_cell_is_said_and_the_exit_code_is_1(tmp_path: Path) -> None:
    study = write(tmp_path / "s.yaml", distance=["cosine", {"knn": {"k": 500}}], training="simclr")
    done = call("run", study)
    assert done.exit_code == 1
    assert "2 rows, 1 cell, such as simclr" in done.stderr
    assert "knn(k=500) of 90 training items" in done.stderr
    assert "2 rows failed and are in no mean" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_study_of_failures_has_no_leaderboard(tmp_path: Path) -> None:
    done = call("run", write(tmp_path / "s.yaml", distance={"knn": {"k": 500}}, training="simclr"))
    assert done.exit_code == 1
    assert "leaderboard" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nowhere.yaml"], "there is no study file nowhere.yaml"),
        (["tables", "nowhere.yaml"], "there is no study file"),
        (["list", "distanse"], "there is no room 'distanse'; did you mean 'distance'?"),
        (["list", "mahalanobis"], "there is no room 'mahalanobis'; it is a plugin of distance"),
        (["check", "simclrr"], "plugin 'simclrr' is in no room"),
        (["new", "trainin", "x"], "did you mean 'training'?"),
        (["new", "training", "Big-Name"], "cannot name a plugin"),
        (["new", "distance", "class"], "no word of Python's own"),
        (["new", "distance", "x" * 300], "1 to 40 lower-case letters"),
        (
            ["run", "s.yaml", "--device", "x", "--workers", "0"],
            "--workers 0: give a number of processes from 1, cards or auto",
        ),
        (["run", "s.yaml", "--memory", "3XB"], "--memory 3XB: wanted is a number of bytes"),
        (["score", "--train", "t", "--id", "i", "--redo", "bank"], "no such stage; allowed: failed, score"),
        (["new", "training", "simclr"], "there is a training 'simclr' already"),
        (["gc", "."], "there is no study"),
        (
            ["list", "--markdown", "nowhere.md"],
            "nowhere.md has no <!-- oodbench list ROOM --> and <!-- end --> after it",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_options_that_mean_nothing(study: Path) -> None:
    assert "--redo trian: there is no such stage; did you mean 'train'?" in call("run", study, "--redo", "trian").stderr
    assert "cached only forbids" in call("run", study, "--redo", "train", "--cached-only").stderr
    done = call("run", study, "--device", "cuda:99")
    assert done.exit_code == 2
    assert "device 'cuda:99' cannot be used" in done.stderr
    assert "no device 'gpu'; give auto, cpu, cuda or cuda:1" in call("run", study, "--device", "gpu").stderr


def test_tables_of_a_study_that_never_ran(study: Path) -> None:
    done = call("tables", study)
    assert done.exit_code == 2
    assert "run the study first" in done.stderr


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"rows": ["trainings"]}, "tables.t.rows: rows have no label 'trainings'; did you mean 'training'?"),
        ({"rows": []}, "tables.t: has no rows; without them it is a table of every study"),
        ({"rows": ["training", "training"]}, "a label stands twice in rows and columns: training, training"),
        ({"rows": ["training"], "columns": ["training"]}, "a label stands twice"),
        ({"rows": ["training"], "of": {"distance": []}}, "tables.t.of.distance: is empty"),
        ({"rows": ["training"], "of": {"status": "error"}}, "rows have no label 'status'"),
        ({"rows": ["training"], "value": "aurocc"}, "rows have no number 'aurocc'; did you mean 'auroc'?"),
        ({"rows": ["training"], "value": "space"}, "rows have no number 'space'"),
        ({"rows": ["training"], "of": {"distance": "cosin"}}, "no row has distance 'cosin'; did you mean 'cosine'?"),
    ],
)
def test_a_table_of_what_is_not_there_is_refused_before_any_work(
    tmp_path: Path, spec: dict[str, object], said: str
) -> None:
    study = write(tmp_path / "s.yaml", training="simclr", tables={"t": spec})
    done = call("run", study)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "results" / "store" / "train").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_tables_import_no_heavy_library(study: Path) -> None:
    """So they take about a second; importing torch alone takes longer. Seconds would be those of a busy machine."""
    call("run", study)
    code = (
        f"import sys\nfrom oodbench.cli.app import app\nsys.argv = ['oodbench', 'tables', {str(study)!r}]\n"
        "try:\n    app()\nfinally:\n    print({*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(re.findall(r"'([\w.]+)'", done.stdout.splitlines()[-1]))
    assert "pandas" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("room", ["training", "clustering", "distance", "threshold", "posthoc", "dataset"])
def test_a_stub_is_a_plugin_that_says_what_to_fill_in(tmp_path: Path, room: str) -> None:
    done = call("new", room, "my_own", "--folder", tmp_path)
    assert done.exit_code == 0, done.output
    path = tmp_path / "my_own.py"
    place(tmp_path)
    checked = call("check", path)
    assert checked.exit_code == 1
    assert "passed  every parameter has a default" in checked.stdout
    assert "NotImplementedError" in checked.stdout
    assert "cannot be imported" not in checked.stdout
    assert call("new", room, "my_own", "--folder", tmp_path).exit_code == 2


def place(tmp_path: Path) -> None:
    """Put the file there that the stub of a data set would download."""
    (tmp_path / "data" / "my_own").mkdir(parents=True)
    (tmp_path / "data" / "my_own" / "my_own.npz").write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize("room", FILLED)
def test_a_filled_stub_passes_conformance(tmp_path: Path, room: str) -> None:
    call("new", room, "my_own", "--folder", tmp_path)
    path = tmp_path / "my_own.py"
    place(tmp_path)
    old, new = FILLED[room]
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = call("check", path)
    assert done.exit_code == 0, done.stdout
    assert ", 0 failed" in done.stdout


def test_list_names_every_room() -> None:
    done = call("list")
    for name in (
        "training",
        "supcon",
        "clustering",
        "gmm",
        "distance",
        "mahalanobis",
        "threshold",
        "dataset",
        "glyphs",
    ):
        assert re.search(rf"^ *{name}\b", done.stdout, re.M)
    assert "simclr" not in call("list", "distance").stdout


def test_list_of_one_room_has_parameters() -> None:
    said = call("list", "distance").stdout
    assert re.search(r"^ +knn .*\n +k: Size = 50 *\n +library: Literal\['torch', 'faiss'\] = 'torch'", said, re.M)
    assert "keep: tuple[int | str, ...] | None = None" in call("list", "dataset").stdout
    assert "k: Size" not in call("list").stdout


def test_list_names_every_recipe_with_its_source() -> None:
    lines = call("list", "recipes").stdout.splitlines()
    assert any(re.match(r" *cluster_game/supcon +SupCon .*main_supcon.py\)", line) for line in lines)
    assert any(re.match(r" *fast +Ours, .*our own choice, not tuned\)", line) for line in lines)
    assert not any("mahalanobis" in line for line in lines)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_verify_names_what_is_damaged(study: Path, tmp_path: Path) -> None:
    call("run", study)
    assert "0 damaged" in call("verify", study).stdout
    victim = next((tmp_path / "results" / "store" / "bank").glob("*/*/features.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-1])
    done = call("verify", study)
    assert done.exit_code == 1
    assert str(victim.parent) in done.stderr
    assert "1 damaged" in done.stdout


@pytest.mark.slow
def test_gc_frees_what_no_study_needs(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    first = write(folder / "a.yaml", training="simclr", seed=0)
    second = write(folder / "b.yaml", training="simclr", seed=1)
    call("run", first)
    call("run", second)
    store = tmp_path / "results" / "store"
    everything = sorted(store.glob("*/*/*/manifest.json"))
    assert "freed 0 artifacts" in call("gc", folder).stdout
    second.unlink()
    assert "would free 7 artifacts" in call("gc", folder, "--dry-run").stdout  # 1 training, 5 sets, 1 probe
    assert sorted(store.glob("*/*/*/manifest.json")) == everything
    assert "freed 7 artifacts" in call("gc", folder).stdout
    assert len(list(store.glob("*/*/*/manifest.json"))) == len(everything) - 7
    assert "0 trained, 0 cells" in call("run", first).stdout
    assert "1 trained" in call("run", write(folder / "deep" / "c.yml", training="simclr", seed=1)).stdout
    assert "freed 0 artifacts" in call("gc", folder).stdout
    assert "freed 7 artifacts" in call("gc", first, folder / "a.yaml").stdout


def test_gc_refuses_to_guess(tmp_path: Path) -> None:
    done = call("gc", write(tmp_path / "a.yaml"))
    assert done.exit_code == 2
    assert "is not prepared" in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_compact(study: Path, tmp_path: Path) -> None:
    assert "has no rows; run the study first" in call("compact", study).stderr
    call("run", study)
    folder = tmp_path / "results" / "s" / "rows"
    assert len(list(folder.iterdir())) == 2
    assert "2 part files are one now" in call("compact", study).stdout
    assert len(list(folder.iterdir())) == 1
    assert "in one part file already" in call("compact", study).stdout
    assert "0 trained, 0 cells scored, 20 rows" in call("run", study).stdout


@pytest.mark.slow
def test_numbers_of_the_csv_are_means_over_seeds(tmp_path: Path) -> None:
    study = write(tmp_path / "s.yaml", training="simclr", seed=[0, 1, 2])
    call("run", study)
    import oodbench

    rows = oodbench.rows(study)
    board = pd.read_csv(tmp_path / "results" / "s" / "leaderboard.csv")
    line = board[
        (board["clustering"] == "labels") & (board["distance"] == "cosine") & (board["threshold"] == "pooled")
    ].iloc[0]
    mine = rows[(rows["clustering"] == "labels") & (rows["distance"] == "cosine") & (rows["threshold"] == "pooled")]
    near = 100 * mine[mine["group"] == "near"]["auroc"]
    assert line["near AUROC mean"] == pytest.approx(near.mean())
    assert line["near AUROC std"] == pytest.approx(near.std(ddof=1))
    assert line["near AUROC n"] == 3


@pytest.mark.slow
def test_a_run_says_what_it_does_where_nobody_watches(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = Command(tmp_path / "results", "run", study).finished()
    assert "10 cells; 2 trainings to look at" in said
    assert re.search(r"trained simclr · .*: loss \d\.\d+, \d+\.\d s", said)


def ended(how: Callable[[], None]) -> tuple[int, str]:
    """Return exit code and errors of a command that ends so."""
    command = typer.Typer()

    def words() -> None:
        how()

    command.command()(guarded(words))
    done = CliRunner().invoke(command, [])
    return done.exit_code, done.stderr


def test_an_end_without_a_word_is_none(tmp_path: Path) -> None:
    for how in (lambda: sys.exit(0), lambda: os._exit(0), lambda: sys.exit(3)):
        code, said = ended(how)
        assert code == 1
        assert "a plugin ended the program, with code" in said
    code, said = ended((tmp_path / "nowhere").rmdir)
    assert code == 1
    assert "No such file or directory" in said


def test_nobody_who_stops_reading_is_told_of_plugins() -> None:
    """As after `| head`: the console ends the program where its reader is gone."""

    def unread() -> None:
        try:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 - as rich does

    assert ended(unread) == (1, "")
