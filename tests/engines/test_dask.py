"""The engine of dask: a scheduler and workers on this machine, one of which is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import HERE, but, driver, rows, slow_study, told_study
from command_line import call
from ruamel.yaml import YAML

from oodbench.engines.cluster import TrainingJob, engine
from oodbench.engines.seam import Task
from oodbench.errors import UserError
from oodbench.store.rows import Results
from oodbench.study import reader

pytestmark = pytest.mark.timeout(600)  # several processes start one after the other
GONE = "tcp://127.0.0.1:9"
distributed: Any = pytest.importorskip("distributed")


@pytest.fixture
def scheduler() -> Iterator[Any]:
    """Two worker processes with a card each."""
    how = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "resources": {"GPU": 1}}
    with distributed.LocalCluster(dashboard_address=None, memory_limit=0, **how) as found:
        yield found


def dask(file: Path, address: str) -> Any:
    return engine(but(HERE, on="dask", address=address), "s", reader.results_of(file))


@pytest.mark.slow
def test_a_training_whose_worker_is_killed_goes_on_elsewhere(tmp_path: Path, scheduler: Any) -> None:
    """Its process ends with the worker; rows, jobs and what they are at are asked for meanwhile."""
    file, cluster = slow_study(tmp_path), tmp_path / "cluster.yaml"
    with cluster.open("w") as stream:
        job = {"cpus": 1, "memory": "1GB"}
        YAML().dump({"on": "dask", "train": {"gpus": 1, "time": "30min", **job}, "score": job}, stream)
    words = ("run", file, "--cluster", cluster, "--address", scheduler.scheduler_address, "--checkpoint-epochs", 5)
    begun = call(*words, "--no-wait")
    assert begun.exit_code == 0, begun.output
    step = tmp_path / "told" / "step"
    deadline = time.monotonic() + 120
    while not step.is_file() or not list((tmp_path / "results" / "store").glob("checkpoint/*")):
        assert time.monotonic() < deadline, call("status", file).output
        time.sleep(0.1)
    assert "jobs on dask: " in call("status", file).stdout
    with distributed.Client(scheduler.scheduler_address) as client:
        (busy,) = (address for address, tasks in client.processing().items() if tasks)
        os.kill(client.run(os.getpid, workers=[busy])[busy], signal.SIGKILL)
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert "2 run or wait already" in done.output
    assert rows(file)["status"].tolist() == ["ok", "ok"]
    (run,) = Results(reader.results_of(file)).runs()
    assert run["resumed_at_epoch"] > 0


@pytest.mark.slow
def test_what_no_worker_has_is_refused(tmp_path: Path, scheduler: Any) -> None:
    file = told_study(tmp_path)
    asked = but(HERE, train=TrainingJob(gpus=2, cpus=1, time="30min"))
    with dask(file, scheduler.scheduler_address) as jobs:
        made = driver(file, jobs, cluster=asked)
        with pytest.raises(UserError, match="a job asks for 2 of the resource GPU, a worker has 1 at most"):
            made.submit()
        assert jobs.alive() == {}


@pytest.mark.slow
def test_tasks_are_cancelled_and_the_lost_are_named(tmp_path: Path, scheduler: Any) -> None:
    file = told_study(tmp_path)
    tasks = [Task(name=f"train-{i}", stage="train", runs=(), words=("list",)) for i in range(2)]
    with dask(file, scheduler.scheduler_address) as jobs:
        jobs.submit(tasks)
        assert jobs.alive().keys() == {"train-0", "train-1"}
        (one, other) = jobs.ended({"train-0", "train-1"})
        assert (one.error, other.error) == ("", "")
        jobs.submit(tasks)
        assert jobs.cancel() == 2
        assert jobs.alive() == {}


def test_a_scheduler_that_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oodbench.engines import dask as module

    monkeypatch.setattr(module, "PATIENCE", 1)
    file = told_study(tmp_path)
    with pytest.raises(UserError, match=r"no scheduler of dask answers at tcp://127\.0\.0\.1:9: "), dask(file, GONE):
        pass
    with pytest.raises(UserError, match="say where the scheduler is, with --address"), dask(file, ""):
        pass
