"""An engine that runs its tasks in this process, and what the tests of engines share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from command_line import call
from tiny import write

from oodbench.engines.asks import Asks
from oodbench.engines.cluster import Cluster, ScoringJob, TrainingJob
from oodbench.engines.driver import Driver
from oodbench.engines.seam import Ended, GivenTask, Ledger, Task
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.columns import COSTS
from oodbench.store.rows import Results
from oodbench.study import reader

HERE = Cluster(on="slurm", train=TrainingJob(gpus=0, cpus=1, memory="1GB", time="30min"), score=ScoringJob(cpus=1))
SHORT = {"clustering": "labels", "distance": "cosine", "threshold": "pooled"}  # one cell for each training
TIMES = [*COSTS, "scored_at", "commit"]


class InProcess:
    """Runs each task when somebody waits for it; `fate` may say instead how one ends, and `heard` is what came."""

    by = "slurm"

    def __init__(self, ledger: Ledger, fate: Callable[[Task], str] = lambda task: "") -> None:
        self.ledger, self.fate = ledger, fate
        self.heard: list[Task] = []

    def alive(self) -> dict[str, str]:
        return dict.fromkeys(self.ledger.read(), "pending")

    def submit(self, tasks: Sequence[Task]) -> None:
        self.heard += tasks
        self.ledger.add([GivenTask(task=task, job=task.name, by="slurm") for task in tasks])

    def ended(self, waiting: set[str]) -> Iterator[Ended]:
        while waiting:
            name = next(name for name in self.ledger.read() if name in waiting)
            task = self.ledger.read()[name].task
            error = self.fate(task)
            if not error:
                done = call(*task.words)
                error = "" if done.exit_code in (0, 1) else f"ended with exit code {done.exit_code}: {done.output}"
            waiting.discard(name)
            self.ledger.drop(name)
            yield Ended(name, error, f"{name}.log")

    def close(self) -> None:
        """Nothing is open."""

    def cancel(self) -> int:
        found = self.ledger.read()
        for name in found:
            self.ledger.drop(name)
        return len(found)


def driver(
    file: Path, engine: Any = None, cluster: Cluster = HERE, said: list[str] | None = None, **options: Any
) -> Driver:
    """Return the driver of a study on an engine, one in this process if none is given."""
    study = reader.load(file)
    runner = Runner(study, Options(device="cpu", **options))
    runner.begin()
    words = [each for name, value in options.items() for each in (f"--{name}", str(value))]
    given, asks = engine or InProcess(Ledger(study.results)), Asks(runner, cluster, None)
    say = [].append if said is None else said.append
    return Driver(runner, given, asks, lambda stage: ["--device", "cpu", *words], say)


def rows(file: Path) -> pd.DataFrame:
    """Return the rows of a study without what differs from one run to the next."""
    found = Results(reader.results_of(file)).current()
    return found.drop(columns=TIMES).sort_values(["cell", "ood"], ignore_index=True)


def plain_rows(file: Path, where: Path, monkeypatch: Any) -> pd.DataFrame:
    """Return the rows of a study that runs in this process, in a folder of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(where))
        Runner(reader.load(file), Options(device="cpu")).run()
        return rows(file)


def but(cluster: Cluster, **changes: Any) -> Cluster:
    return dataclasses.replace(cluster, **changes)


TOLD = '''
"""A training that tells of its steps and its card, and takes its time."""

import os
import time
from pathlib import Path

from torch import nn

from oodbench.api import Training


class Told(Training):
    """Cross-entropy that takes its time."""

    labels = True
    heads = {"logits": "linear"}
    folder: str  # where files tell
    pause: float = 0.0  # seconds of a step

    def init(self, f, y, seed):
        self.tell("card " + os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        return {}

    def loss(self, b, state):
        self.tell("step")
        time.sleep(self.pause)
        return nn.functional.cross_entropy(b.out["logits"][0], b.y), state

    def tell(self, what):
        Path(self.folder).mkdir(exist_ok=True)
        (Path(self.folder) / what).touch()
'''


def told_study(folder: Path, pause: float = 0.0, **changes: Any) -> Path:
    """Write a study whose training tells of its steps in the folder `told`, and return its file."""
    (folder / "told.py").write_text(TOLD)
    training = {"told": {"folder": str(folder / "told"), "pause": pause}}
    return write(folder / "s.yaml", **SHORT | {"plugins": ["told.py"], "training": training} | changes)


def slow_study(folder: Path) -> Path:
    """Write a study whose training takes 20 s, longer than Slurm lets a job live that it preempts, in 80 steps."""
    return told_study(folder, 0.25, recipe={"epochs": 40, "batch": 32, "lr": 0.05, "warmup": 0})
