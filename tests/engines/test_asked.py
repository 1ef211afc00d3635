"""What a cluster asks of a job before it ends it: a checkpoint, at which whoever comes next goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clusters import slow_study

from oodbench.engines.unit import asked
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.artifacts import Store
from oodbench.study import reader
from oodbench.training.checkpoints import KIND
from oodbench.training.encoders import WEIGHTS


def test_signals_ask(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with asked() as found:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (found.now, found.to_end) == (True, False)
        found.at_work = True
        os.kill(os.getpid(), signal.SIGUSR2)  # the training ends it
        assert found.to_end
        os.kill(os.getpid(), signal.SIGUSR2)
    with asked() as found, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGUSR2)  # nothing is trained
    assert signal.getsignal(signal.SIGTERM) is before


def checkpoint(store: Store) -> str:
    """Return the key of the checkpoint that there is, once there is one."""
    deadline = time.monotonic() + 120
    while not (keys := store.keys(KIND)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return keys[-1]


@pytest.mark.slow
def test_a_unit_that_is_asked_to_end_goes_on_where_it_was(tmp_path: Path) -> None:
    """It ends with the weights of a training that nobody interrupted."""
    file = slow_study(tmp_path)
    runner = Runner(reader.load(file), Options(device="cpu"))
    (work,) = runner.plan.work
    words = [sys.executable, "-m", "oodbench", "unit", file, work.run.named, "--device", "cpu"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as unit:
        store = runner.pipeline.store
        while not (tmp_path / "told" / "step").is_file():
            assert unit.poll() is None
            time.sleep(0.05)
        unit.send_signal(signal.SIGTERM)
        first = checkpoint(store)
        assert unit.poll() is None
        unit.send_signal(signal.SIGUSR2)
        said, _ = unit.communicate(timeout=60)
    assert unit.returncode == 130, said
    assert checkpoint(store) > first
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "failed" not in done.stderr
    artifact = runner.encoders.trained(work.run)
    assert artifact.meta["resumed_at_epoch"] + artifact.meta.get("resumed_at_step", 0) > 0
    assert store.keys(KIND) == []
    weights = artifact.file(WEIGHTS).read_bytes()
    store.remove("train", runner.encoders.train_key(work.run))
    again = runner.encoders.trained(work.run)
    assert again.meta["resumed_at_epoch"] == 0
    assert again.file(WEIGHTS).read_bytes() == weights
