"""What a process at work says of itself, and what is seen of it when it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oodbench.store import heartbeat
from oodbench.store.heartbeat import FOLDER, Heartbeat, beats
from oodbench.store.memo import Watch


class Heard(Watch):
    def __init__(self) -> None:
        self.said: list[object] = []

    def stage(self, what: str, title: str) -> None:
        self.said.append((what, title))

    def training(self, epochs: int, done: int, images: int) -> None:
        self.said.append((epochs, done, images))

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        self.said.append((epoch, epochs, loss))


def test_a_file_is_kept_meanwhile_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(heartbeat.time, "time", lambda: now)
    heard = Heard()
    beat = Heartbeat(tmp_path, "cpu", heard)
    beat.stage("train", "before it begins")
    assert beats(tmp_path) == []
    with beat.beating():
        beat.stage("train", "x · seed 0")
        beat.training(10, 2, 100)
        beat.epoch(2, 10, 0.5)
        (one,) = beats(tmp_path)
        assert (one.pid, one.stage, one.title, one.epoch) == (os.getpid(), "train", "x · seed 0", 0)
        now += heartbeat.EVERY
        beat.epoch(3, 10, 0.4)
        (one,) = beats(tmp_path)
        assert (one.epoch, one.epochs, one.at, one.since) == (4, 10, now, 1000.0)
        assert one.is_here
        assert not one.is_gone
        assert len(list((tmp_path / FOLDER).iterdir())) == 1
    assert not (tmp_path / FOLDER).exists()
    assert heard.said[1:] == [("train", "x · seed 0"), (10, 2, 100), (2, 10, 0.5), (3, 10, 0.4)]


def test_writes_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, writes = 0.0, []
    monkeypatch.setattr(heartbeat.time, "time", lambda: now)
    monkeypatch.setattr(heartbeat, "write_whole", lambda path, content: writes.append(now))
    beat = Heartbeat(tmp_path, "cpu", Watch())
    with beat.beating():
        for row in range(1000):
            now += 0.01
            beat.scoring(row, 1000)
    assert len(writes) == 1 + int(10 / heartbeat.EVERY)


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with Heartbeat(tmp_path, "cpu", Watch()).beating():
        assert beats(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from oodbench.store.heartbeat import Heartbeat
from oodbench.store.memo import Watch
with Heartbeat(Path(sys.argv[1]), "cpu", Watch()).beating():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL")
def test_the_file_of_a_killed_process_says_so_until_the_next_run(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (one,) = beats(tmp_path)
    assert one.is_gone
    (tmp_path / FOLDER / "x.json").write_text("{")  # no file of ours
    with Heartbeat(tmp_path, "cpu", Watch()).beating():
        assert [each.pid for each in beats(tmp_path)] == [os.getpid()]


def test_another_process_of_the_same_number_is_not_it(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").is_file():
        pytest.skip("the system does not say when a process began")
    beat = Heartbeat(tmp_path, "cpu", Watch()).beat
    assert not beat.is_gone
    assert beat.model_copy(update={"born": "1"}).is_gone
    elsewhere = beat.model_copy(update={"host": "another", "pid": 2**22 + 1})
    assert not elsewhere.is_gone
    assert elsewhere.model_copy(update={"at": 0.0}).is_quiet
