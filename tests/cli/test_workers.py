"""Several processes on one study: how many, who waits for whom, what is heard of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write

from oodbench.cli import workers
from oodbench.cli.arguments import check_workers
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Bookkeeping, Runner, Wanted
from oodbench.scoring import detectors as scoring
from oodbench.store.artifacts import digest
from oodbench.store.memo import Watch
from oodbench.store.rows import Results
from oodbench.study import reader


def unheard(worker: int, line: str) -> None:
    """Hear nothing."""


def test_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert (workers.count("3", cpu), workers.count("auto", gpu)) == (3, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (workers.count("auto", gpu), workers.count("auto", torch.device("cuda:1"))) == (2, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8932f937")
    assert (workers.cards(gpu), workers.cards(cpu)) == (["5", "GPU-8932f937"], [])
    assert (workers.count("cards", gpu), workers.count("cards", cpu)) == (2, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,2,0,4")
    assert (workers.cards(gpu, 2), workers.count("auto", gpu, 2)) == (["3,1", "2,0"], 2)  # of trainings on two cards
    assert (workers.cards(gpu, 6), workers.count("cards", gpu, 6)) == ([], 1)
    assert workers.count("auto", cpu) == workers.cores()
    for wrong in ("0", "-1", "all", "1.5", "²", "٣", "9" * 5000, ""):
        with pytest.raises(UserError, match=f"workers {wrong}: give a number of processes from 1, cards or auto"):
            check_workers(wrong)


class Taken:
    """An encoder that another process works on, the first times that it is looked at."""

    trains, allowed, scores, seed = False, True, None, 0

    def __init__(self, title: str, looks: int) -> None:
        self.title, self.key, self.looks = title, digest(title), looks
        self.wanted = [Wanted(title, "noise", "far", title, "k")]  # type: ignore[arg-type]

    @contextmanager
    def lock(self) -> Iterator[bool]:
        self.looks -= 1
        yield self.looks < 0


def test_a_process_goes_on_to_whichever_training_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is taken the longest, and nobody waits for it while another is free."""
    made: list[str] = []
    paused: list[float] = []

    def rows(self: Bookkeeping, source: Any, wanted: Any) -> list[dict[str, Any]]:
        made.append(source.title)
        (each,) = wanted
        identity = {"cell": each.cell, "ood": each.ood, "key": each.key, "train_key": source.key}
        return [identity | {"status": "ok", "detector": source.title}]

    monkeypatch.setattr(Bookkeeping, "_whole", rows)
    monkeypatch.setattr(time, "sleep", paused.append)
    how = scoring.How(torch.device("cpu"), 10**9, False)
    keeping = Bookkeeping(Results(tmp_path / "study"), how, "", Watch())
    sources: Any = [Taken("longest", 4), Taken("free", 0), Taken("short", 1), Taken("long", 3)]
    assert keeping.run(sources).scored == 4
    assert made == ["free", "short", "long", "longest"]
    assert paused == [0.1, 0.1, 0.2, 0.1]
    assert keeping.run(sources).scored == 0


def test_each_process_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three helpers on two cards: this process has the first, and the third helper shares the second."""
    started: list[str | None] = []
    numbers: list[str] = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    class Started(subprocess.Popen):
        def __init__(self, command: list[str], env: dict[str, str], **more: Any) -> None:
            started.append(env.get("CUDA_VISIBLE_DEVICES"))
            numbers.append(env["OODBENCH_WORKER"])
            super().__init__([sys.executable, "-c", ""], env=env, **more)

    monkeypatch.setattr(subprocess, "Popen", Started)
    with workers.helped(["list"], 3, unheard, ["4", "7"]):
        pass
    with workers.helped(["list"], 1, unheard):
        pass
    assert started == ["7", "4", "7", None]
    assert numbers == ["2", "3", "4", "2"]


@pytest.mark.slow
def test_helpers_run_meanwhile_are_waited_for_and_heard(tmp_path: Path) -> None:
    heard: dict[int, list[str]] = {2: [], 3: []}
    threads = torch.get_num_threads()
    try:
        with workers.helped(
            ["tables", str(tmp_path / "nowhere.yaml")], 2, lambda worker, line: heard[worker].append(line)
        ):
            assert torch.get_num_threads() == max(1, workers.cores() // 3)
    finally:
        torch.set_num_threads(threads)
    assert all("there is no study file" in " ".join(lines) for lines in heard.values())


@pytest.mark.slow
def test_helpers_end_with_a_run_that_fails(tmp_path: Path) -> None:
    start = time.perf_counter()
    threads = torch.get_num_threads()
    try:
        with pytest.raises(KeyboardInterrupt), workers.helped(["list"], 1, unheard):
            raise KeyboardInterrupt
    finally:
        torch.set_num_threads(threads)
    assert time.perf_counter() - start < 60


KILLED = """
import os, signal, subprocess, sys, torch
from oodbench.cli import workers
class Told(subprocess.Popen):
    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        print(self.pid, flush=True)
workers.subprocess.Popen = Told
workers.cores = lambda: 2
with workers.helped(["run", sys.argv[1], "--rows-only"], 1, print):
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_no_helper_outlives_the_process_that_it_helps(tmp_path: Path, how: str) -> None:
    """The helper would wait for the lock of the only training, which this test holds."""
    file = write(tmp_path / "s.yaml", training="simclr")
    run = Runner(reader.load(file), Options(device="cpu"))
    (source,) = (run.source(work) for work in run.plan.work)
    with source.lock(wait=True):
        words = [sys.executable, "-c", KILLED, str(file), how]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == -getattr(signal, how), done.stderr
        deadline = time.monotonic() + 60
        while lives(int(done.stdout)):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def lives(pid: int) -> bool:
    """Return whether a process runs; one that nobody has asked for its end does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    about = Path(f"/proc/{pid}/stat")
    return not about.is_file() or about.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_helper_that_dies_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Kept(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            started.append(self)

    monkeypatch.setattr(workers.subprocess, "Popen", Kept)
    threads = torch.get_num_threads()
    try:
        with workers.helped(["list"], 1, unheard) as died:
            started[0].kill()
    finally:
        torch.set_num_threads(threads)
    assert died == ["was ended by SIGKILL"]


def test_nobody_helps_one_process() -> None:
    with workers.helped(["nonsense"], 0, unheard):
        assert torch.get_num_threads() >= 1
