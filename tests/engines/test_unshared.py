"""Studies on hosts that share no file system: here each errand has a store and results of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from clusters import HERE, SHORT, TOLD, InProcess, but, driver, plain_rows, rows, told_study
from command_line import call
from pandas.testing import assert_frame_equal
from ruamel.yaml import YAML
from tiny import write

from oodbench.engines.cluster import load
from oodbench.engines.driver import Driver, measure, measuring
from oodbench.engines.errands import Errand
from oodbench.engines.parcels import FACTS, files_in, pack, unpack
from oodbench.engines.seam import Ended, Ledger, Needs, Task
from oodbench.engines.travelling import Luggage
from oodbench.engines.unit import measured
from oodbench.errors import UserError
from oodbench.store import scores
from oodbench.store.artifacts import Store
from oodbench.store.rows import Added, Results
from oodbench.study import reader

APART = but(HERE, on="dask", shared=False)
KEPT = {"threshold": "pooled", "clustering": "labels", "scores": {}}


class Away(InProcess):
    """Runs each task in this process as on a host of its own; `harm` changes what it sends back."""

    def __init__(self, file: Path, hosts: Path, harm: Callable[[Task, bytes], bytes] = lambda task, sent: sent) -> None:
        super().__init__(Ledger(reader.results_of(file)))
        self.files, self.hosts, self.harm = Luggage(reader.load(file)).packed(), hosts, harm

    def _run(self, words: Sequence[str], log: Path) -> str:
        with pytest.MonkeyPatch.context() as patch:
            folder = self.hosts / f"host-{len(list(self.hosts.glob('*')))}"
            patch.setenv("OODBENCH_RESULTS", str(folder / "results"))
            patch.delenv("OODBENCH_STORE", raising=False)
            done = call(*words)
        log.write_text(f"on {folder.name}: {done.output}")
        return "" if done.exit_code in (0, 1) else f"ended with exit code {done.exit_code}"

    def ended(self, waiting: set[str]) -> Any:
        while waiting:
            name = next(name for name in self.ledger.read() if name in waiting)
            task = self.ledger.read()[name].task
            sent = self.harm(task, Errand(task.words[2:])(self.files, self._run))
            waiting.discard(name)
            yield Ended(name, "", str(self.ledger.log(name)), sent)
            self.ledger.drop(name)


def away(file: Path, engine: Away, said: list[str] | None = None, retries: int = 2) -> Driver:
    made = driver(file, engine, but(APART, retries=retries), said)
    made.attend(made.submit())
    return made


def store(file: Path) -> Store:
    return Store(reader.store_of(file))


def test_rows_come_back_and_are_those_of_a_plain_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that are kept come with them, features and weights do not, and nothing is missing after that."""
    file = write(tmp_path / "s.yaml", **KEPT)
    engine = Away(file, tmp_path / "hosts")
    made = away(file, engine)
    assert [(task.stage, len(task.runs), task.after) for task in engine.heard] == [("all", 1, ())] * 2
    assert made.trained == 2
    assert len(list((tmp_path / "hosts").glob("*"))) == 2
    assert not {"train", "bank"} & {*store(file).kinds()}
    assert len(store(file).keys(scores.KIND)) > 0
    logs = [Path(engine.ledger.log(task.name)).read_text() for task in engine.heard]
    assert [log.partition(":")[0] for log in logs] == ["on host-0", "on host-1"]
    assert_frame_equal(rows(file), plain_rows(file, tmp_path / "plain", monkeypatch))
    runs = Results(reader.results_of(file)).runs()
    assert {each["parameters"]["training"]["name"] for each in runs} == {"cross_entropy", "simclr"}
    assert driver(file, Away(file, tmp_path / "hosts"), APART).submit() == set()


def test_what_is_damaged_is_refused_and_made_again(tmp_path: Path) -> None:
    """Of a parcel with one byte changed nothing is taken; one that stays so is error rows that name the log."""
    file, said = write(tmp_path / "s.yaml", **SHORT | {"training": "cross_entropy"}), []
    seen: list[int] = []

    def harm(task: Task, sent: bytes) -> bytes:
        seen.append(len(Results(reader.results_of(file)).read()))
        return sent[:900] + bytes([sent[900] ^ 1]) + sent[901:] if len(seen) != 2 else sent

    away(file, Away(file, tmp_path / "hosts", harm), said)
    assert seen == [0, 0]
    assert any("sent back nothing that can be taken: the parcel is damaged: " in line for line in said)
    assert rows(file)["status"].eq("ok").all()


def test_a_command_that_ends_badly_is_error_rows_whose_log_is_here(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **SHORT | {"training": "cross_entropy"})
    engine = Away(file, tmp_path / "hosts")
    engine.files = pack({"s.yaml": b"id: nothing"}, main="s.yaml")
    away(file, engine, retries=1)
    (error,) = set(rows(file)["error"])
    log = engine.ledger.log(engine.heard[-1].name)
    assert error == f"JobError: ended without a result 2 times, the last one ended with exit code 2; last log {log}"
    assert "the key 'image' is missing" in log.read_text()


def test_rows_of_other_data_are_not_taken(tmp_path: Path) -> None:
    """They would be the same the next time, so that it is not tried again."""
    file = write(tmp_path / "s.yaml", **SHORT | {"training": "cross_entropy"})
    engine = Away(file, tmp_path / "hosts")
    other = {"noise": {"count": 51, "size": 8}}
    write(tmp_path / "other" / "s.yaml", **SHORT | {"training": "cross_entropy", "ood": {"far": other}})
    engine.files = pack(files_in(tmp_path / "other"), main="s.yaml")
    away(file, engine)
    assert len(engine.heard) == 1
    assert rows(file)["error"].str.contains("sent back other rows than 2 that are wanted: oodbench, plugins,").all()


def test_what_is_measured_comes_back(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **SHORT | {"training": "cross_entropy"})
    engine = Away(file, tmp_path / "hosts")
    measure(engine, measuring(Needs(), str(file), "kind", ["--device", "cpu"]), reader.results_of(file))
    found = measured(reader.results_of(file), "kind")
    assert found is not None
    assert [rate > 0 for rate in found.rates.values()] == [True]
    engine.files = pack({"s.yaml": b""}, main="s.yaml")
    with pytest.raises(UserError, match=r"kind of training ended with exit code 2; see .*measure-kind\.log"):
        measure(engine, measuring(Needs(), str(file), "kind", []), reader.results_of(file))


def test_what_travels(tmp_path: Path) -> None:
    """The study's file, code beside it and its plugins, and what else it names from there; no more."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "told.py").write_text(TOLD)
    (tmp_path / "own" / "notes.txt").write_text("not named")
    (tmp_path / "encoders.py").write_text("")
    (tmp_path / "published.csv").write_text("a,b\n")
    table = {"rows": ["training"], "columns": ["ood"], "value": "auroc", "against": "../published.csv"}
    training = {"told": {"folder": str(tmp_path / "told")}}
    file = write(tmp_path / "studies" / "s.yaml", **SHORT, training=training, plugins=["../own"], tables={"t": table})
    (tmp_path / "studies" / "networks.py").write_text("")
    found = Luggage(reader.load(file))
    assert found.main == "studies/s.yaml"
    assert {*found.files} == {"studies/s.yaml", "studies/networks.py", "own/told.py", "published.csv"}
    assert found.said.startswith("to each host travel studies/s.yaml, own/told.py, published.csv, studies/net")
    there = tmp_path / "there"
    assert unpack(found.packed(), there, 10**6).main == found.main
    assert reader.stamp(reader.load(there / found.main).document) == reader.stamp(reader.load(file).document)


def test_what_cannot_travel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s\.yaml:\d+: data: sets is a path from the study's file, .* OODBENCH_DATA"):
        Luggage(reader.load(write(tmp_path / "s.yaml", data="sets")))
    file = write(tmp_path / "s.yaml")
    (tmp_path / "large.py").write_text("#" * 10_000_000)
    with pytest.raises(UserError, match=r"and 10\.0 MB at most travel; large\.py has 10\.0 MB: put what is large on"):
        Luggage(reader.load(file))
    (tmp_path / "large.py").unlink()
    Results(reader.results_of(file)).write_added(Added({"a": [3]}))
    with pytest.raises(UserError, match=r"seeds that --until-decided added are known here alone; write them under"):
        Luggage(reader.load(file))
    with pytest.raises(UserError, match=r"shared: false: jobs of Slurm .* results/STUDY/jobs, every node has to see"):
        load(None, {"on": "slurm", "shared": False})


@pytest.mark.parametrize("name", ["../out", "/out", "a//b", "a\\b", "a/../../out"])
def test_a_parcel_names_no_place_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no place in it"):
        unpack(pack({"fine": b"", name: b""}), tmp_path / "in", 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_parcel_is_whole_or_refused(tmp_path: Path) -> None:
    good = pack({"a": b"text" * 100}, error="it ended")
    with pytest.raises(UserError, match="it unpacks to 511 bytes, 300 at most are read"):
        unpack(good, tmp_path, 300)
    for end in range(0, len(good), 7):
        with pytest.raises(UserError, match="the parcel is damaged"):
            unpack(good[:end], tmp_path, 10**4)
    assert list(tmp_path.iterdir()) == []
    assert unpack(good, tmp_path, 10**4).error == "it ended"
    assert (tmp_path / "a").read_bytes() == b"text" * 100
    assert FACTS not in files_in(tmp_path)


@pytest.fixture
def hosts(tmp_path: Path) -> Any:
    """A scheduler and two workers of dask, each with a folder of its own for results and store."""
    distributed = pytest.importorskip("distributed")
    workers = {}
    for i in range(2):
        env = {"OODBENCH_RESULTS": str(tmp_path / f"host-{i}"), "OMP_NUM_THREADS": "1"}
        workers[i] = {"cls": distributed.Nanny, "options": {"nthreads": 1, "memory_limit": 0, "env": env}}
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard": False, "port": 0, "host": "127.0.0.1"}}
    with distributed.SpecCluster(workers, scheduler) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_of_dask_without_a_shared_folder(tmp_path: Path, hosts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is killed, and the command that gave its job has ended: the next command takes what comes back."""
    from distributed import Client

    file, cluster = told_study(tmp_path), tmp_path / "cluster.yaml"
    with cluster.open("w") as stream:
        train = {"gpus": 0, "cpus": 1, "time": "30min"}
        YAML().dump({"on": "dask", "address": hosts.scheduler_address, "shared": False, "train": train}, stream)
    words = ("run", file, "--cluster", cluster, "--rows-only")
    assert "to each host travel s.yaml, told.py (" in call("plan", file, "--cluster", cluster).stdout
    with Client(hosts.scheduler_address) as client:
        processes = client.run(os.getpid)
        begun = call(*words, "--no-wait")
        assert "jobs: 1 that train, embed and score; 0 run or wait already" in begun.output
        (job,) = client.list_datasets()
        until(lambda: any(job in tasks for tasks in client.processing().values()))
        os.kill(processes[next(each for each, tasks in client.processing().items() if job in tasks)], signal.SIGKILL)
        until(lambda: client.run_on_scheduler(_state, job) == "memory")
        assert "jobs on dask: 1 finished" in call("status", file).stdout
        done = call(*words)
        assert done.exit_code == 0, done.output
        assert "1 run or wait already" in done.output
        assert client.list_datasets() == ()
    assert not (tmp_path / "results" / "store" / "train").exists()
    assert_frame_equal(rows(file), plain_rows(file, tmp_path / "plain", monkeypatch))
    assert rows(file)["status"].tolist() == ["ok", "ok"]


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _state(job: str, dask_scheduler: Any = None) -> str:
    return str(dask_scheduler.tasks[job].state)
