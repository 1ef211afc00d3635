"""What tables look like on terminals that are too narrow for them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import call
from rich.console import Console
from tiny import write

from oodbench.cli import progress, screen
from oodbench.cli.progress import Board
from oodbench.report.tables import Table
from oodbench.store.provenance import version

METHODS = [
    ("cross_entropy", "resnet18", "penultimate unit", "kmeans(k=20)", "mahalanobis(shared, pinv)", "pooled"),
    ("pretrained(weights=a/b)", "resnet18", "penultimate unit", "kmeans(k=20)", "knn(k=5) [odd]", "youden [saw noise]"),
]
LABELS = ["training", "encoder", "space", "clustering", "distance", "threshold"]


@pytest.fixture(params=[40, 60, 80, 100, 132, 400])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(screen, "out", Console(file=io.StringIO(), width=request.param, highlight=False))
    return int(request.param)


def said() -> str:
    return screen.out.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_numbers_are_printed_at_any_width_and_labels_are_whole(width: int) -> None:
    index = pd.MultiIndex.from_tuples(METHODS, names=LABELS)
    columns = [("ID", "accuracy"), ("near", "AUROC"), ("far", "AUROC"), ("far", "FPR95_ood")]
    numbers = pd.DataFrame([[95.04, 91.2, 88.8, 20.0], [94.1, 83.3, 77.7, 30.5]], index=index)
    numbers.columns = pd.MultiIndex.from_tuples(columns)
    better = dict.fromkeys(columns, 1)
    table = Table("t", "Caption.", numbers, numbers * 0 + 0.5, numbers * 0 + 3, better, details=("far FPR95_ood",))
    screen.show(table, "t: 2 of 2 methods", 2)
    lines = said().splitlines()
    assert max(map(len, lines)) <= width
    assert all(f"{each} ± 0.5" in said() for each in ("95.0", "94.1"))
    assert all(f"{each} ± 0.5" in said() for each in ("91.2", "83.3", "88.8", "77.7")) is (width >= 60)
    for method in METHODS:
        for label in method:
            assert label.replace(" ", "") in "".join(said().split()) or width < 132, label
    assert ("all of resnet18 · penultimate unit · kmeans(k=20)" in " ".join(said().split())) is (width < 400)
    assert ("20.0" in said()) is (width == 400)


def test_one_row_keeps_its_first_label(width: int) -> None:
    numbers = pd.DataFrame({"noise": [95.04]}, index=pd.MultiIndex.from_tuples(METHODS[:1], names=LABELS))
    screen.show(Table("t", "", numbers, numbers * 0, numbers * 0 + 3, {"noise": 1}), "t", 1)
    assert "cross_entropy" in said()
    assert "95.0" in said()


@pytest.mark.parametrize("width", [80, 132], indirect=True)
def test_titles_of_numbers_break_before_labels_do(width: int) -> None:
    titles = ["AUROC of all sets", "training, s", "scoring, s", "fitting, s", "an item, µs", "memory, kB"]
    screen.lines(pd.DataFrame([["simclr · logits · knn(k=5)", *["12.3"] * 6]], columns=["front", *titles]), 1)
    assert "simclr · logits · knn(k=5)" in said()
    assert (" ".join(titles) in " ".join(said().split())) is (width == 132)


def test_control_characters_of_names_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[2Jb\x07\x9b31m [/b] [red]"
    shown = r"a\x1b[2Jb\x07\x9b31m [/b] [red]"
    screen.say(evil)
    screen.warn(evil)
    table = screen.columns("name")
    table.add_row(screen.text(evil))
    screen.out.print(table)
    board = Board(screen.err)
    board.warn(evil)
    board.stage("train", evil)
    board.failed(evil, evil)
    board.downloading(evil, 5, 5)
    out, err = capsys.readouterr()
    assert (out.count(shown[:16]), err.count(shown)) == (2, 6)
    assert not {"\x1b", "\x07", "\x9b"} & {*out, *err}


class Lines(io.StringIO):
    """What is written, by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


def test_off_a_terminal_a_training_is_heard_of_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Lines()
    board = Board(screen.Screen(file=file, width=80, markup=False))
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    board.where = "on a machine"
    board.planned(3, 12, 0)
    board.stage("train", "simclr · seed 0")
    board.training(10, 2, 400)  # it goes on after two epochs
    for epoch in range(2, 7):
        now += 20
        board.epoch(epoch, 10, 1 / (epoch + 1))
    board.stage("bank", "x")
    board.stage("score", "simclr · seed 0")
    for row in range(1, 5):
        now += 31
        board.scoring(row, 8)
    board.scored(4, 1)
    board.warn("w" * 200)
    assert [each for each in file.writes if each] == [
        *("on a machine\n", "12 cells; 3 trainings to look at\n"),
        "training 1, of at most 3: simclr · seed 0\n",
        "simclr · seed 0: epoch 4 of 10, loss 0.2500, 20 images/s, about 2 min left\n",
        "simclr · seed 0: epoch 6 of 10, loss 0.1667, 20 images/s, about 80 s left\n",
        "trained simclr · seed 0: loss 0.1429, 100.0 s\n",
        "scoring simclr · seed 0: 2 of 8 rows; 0 of 12 cells before\n",
        "scoring simclr · seed 0: 4 of 8 rows; 0 of 12 cells before\n",
        f"warning: {'w' * 200}\n",
    ]
    assert board.counts == "4 of 12 cells"


def test_workers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process that helps hears, the first one shows under its number; counts are of all."""
    told, shown = Lines(), Lines()
    monkeypatch.setattr(progress.sys, "stderr", told)
    monkeypatch.setenv("OODBENCH_WORKER", "2")
    helper = progress.board(screen.Screen(file=told, width=80))
    assert isinstance(helper, progress.Told)
    monkeypatch.delenv("OODBENCH_WORKER")
    board = progress.board(screen.Screen(file=shown, width=80, markup=False))
    board.workers = 2
    board.planned(5, 20, 2)
    board.stage("train", "a · seed 0")
    helper.where = "on a card"
    helper.planned(5, 20, 2)
    helper.stage("train", "b · seed 0")
    helper.training(2, 0, 100)
    for epoch in range(2):
        helper.epoch(epoch, 2, 0.5)
    helper.stage("score", "b · seed 0")
    helper.scored(6, 1)
    helper.warn("careful")
    helper.failed("c", "no memory")
    assert "".join(told.writes).count("\n") == len([each for each in told.writes if each])
    for line in "".join(told.writes).split("\n")[:-1]:
        board.hear(2, line)
    board.hear(2, "Traceback of its own")
    board.hear(2, f'{progress.EVENT}["warn", "of the data"]')
    board.warn("of the data")  # which both look at
    board.scored(4, 0)
    said = "".join(shown.writes)
    assert "worker 1: training 1, of at most 5: a · seed 0\n" in said
    assert f"worker 2: process {os.getpid()}, on a card\nworker 2: training 2, of at most 5: b · seed 0\n" in said
    assert "worker 2: trained b · seed 0: loss 0.5000, " in said
    assert said.splitlines()[-4:] == [
        *("warning: worker 2: careful", "failed: worker 2: c: no memory", "worker 2: Traceback of its own"),
        "warning: worker 2: of the data",
    ]
    assert board.counts == "12 of 20 cells"
    board.found(6)  # which is how this process meets the other's cells
    assert board.counts == "12 of 20 cells"
    board.found(3)  # of a process that it knows nothing of
    assert board.counts == "15 of 20 cells"


def test_a_terminal_has_a_bar_for_each_worker() -> None:
    stream = io.StringIO()
    with Board(Console(file=stream, force_terminal=True, width=80)) as board:
        board.workers = 2
        board.planned(2, 10, 0)
        board.stage("train", "a long title · " + "digits(keep=1+2+3) · " * 5 + "seed 7")
        board.training(8, 0, 10)
        board.epoch(2, 8, 0.5)
        board.hear(2, f'{progress.EVENT}["stage", "score", "b"]')
        board.hear(2, f'{progress.EVENT}["scoring", 3, 9]')
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", each) for each in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    title = next(each for each in lines if each.startswith("worker 1: train  a long title"))
    assert title.endswith("seed 7")
    assert any(re.search(r"epochs .* 3/8 .*loss 0.5000", each) for each in lines)
    assert any(re.search(r"rows .* 3/9", each) for each in lines)
    assert any(each.startswith("worker 2: score  b") for each in lines)


def test_the_version_is_said() -> None:
    done = call("--version")
    assert (done.exit_code, done.stdout) == (0, f"oodbench {version()}\n")


@pytest.mark.slow
def test_an_encoding_without_some_sign_ends_no_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "oodbench"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    run = subprocess.run([*words, "plan", write(tmp_path / "s.yaml")], env=ascii_only, capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (0, b"")
    absent = subprocess.run([*words, "plan", "狗.yaml"], env=ascii_only, capture_output=True, check=False)
    assert (absent.returncode, absent.stderr) == (2, b"error: there is no study file ?.yaml\n")


@pytest.mark.slow
def test_a_reader_that_has_had_enough_gets_no_error() -> None:
    code = (
        "import os\nfrom oodbench.cli.app import app\nread, write = os.pipe()\nos.dup2(write, 1)\nos.close(write)\n"
        "os.close(read)\napp(['list'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (141, b"")
