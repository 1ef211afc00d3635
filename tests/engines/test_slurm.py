"""The engine of Slurm: by submitit's local executor, and by a real Slurm of one node with two fake cards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from clusters import HERE, SHORT, plain_rows, rows, slow_study, told_study
from command_line import call
from pandas.testing import assert_frame_equal
from ruamel.yaml import YAML
from tiny import write
from tiny_slurm import TinySlurm, lacking, slurm

from oodbench.engines import slurm as engine
from oodbench.engines.seam import Ended, Ledger, Needs, Task
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.rows import Results
from oodbench.study import reader

PATIENCE = 120  # seconds for what takes a few

pytestmark = pytest.mark.timeout(600)  # several processes start one after the other
why = lacking() or "" if os.environ.get("OODBENCH_SLURM") else "`make slurm` runs it"
real = pytest.mark.skipif(bool(why), reason=why)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "POLL", 0.5)


def until(found: Callable[[], Any]) -> Any:
    """Return what is found, as soon as that is anything."""
    deadline = time.monotonic() + PATIENCE
    while not (what := found()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)
    return what


def goes_on(tiny_slurm: TinySlurm, job: str, step: Path) -> None:
    """Wait until a job that was requeued tells of a step again."""
    step.unlink()
    until(lambda: tiny_slurm.has_begun(job) and step.is_file())


# ---- submitit's local executor --------------------------------------------------------------------------------------

nobody_asks = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # for a process's end


class Local(engine.Slurm):
    """Jobs are processes of this machine, by number."""

    def states(self, jobs: set[str]) -> dict[str, str]:
        return {job: "running" for job in jobs if Path(f"/proc/{job}").exists() and not _is_over(int(job))}


def _is_over(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def local(file: Path) -> Local:
    return Local(HERE, "s", Ledger(reader.results_of(file)), "local")


def resumed(facts: dict[str, Any]) -> bool:
    """Return whether a training went on at a checkpoint."""
    return facts["resumed_at_epoch"] + facts.get("resumed_at_step", 0) > 0


def unit(file: Path, **needs: Any) -> Task:
    """Return the task of the first training of a study."""
    run = Runner(reader.load(file), Options(device="cpu")).plan.work[0].run.named
    words = ("unit", str(file), run, "--device", "cpu")
    return Task(name=f"train-{run}", stage="train", runs=(run,), words=words, needs=Needs(**needs))


@nobody_asks
@pytest.mark.slow
def test_a_job_that_is_asked_to_end_is_run_again_and_goes_on(tmp_path: Path) -> None:
    """As Slurm asks it shortly before its time is over; submitit runs it again."""
    file = slow_study(tmp_path)
    jobs, task = local(file), unit(file, seconds=3600)
    jobs.submit([task])
    assert jobs.alive() == {task.name: "running"}
    until((tmp_path / "told" / "step").is_file)
    (pid,) = (int(given.job) for given in jobs.ledger.read().values())
    child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    os.kill(int(child), signal.SIGUSR2)
    (ended,) = jobs.ended({task.name})
    assert ended == Ended(task.name, "", str(jobs.ledger.log(task.name)))
    runner = Runner(reader.load(file), Options(device="cpu"))
    assert resumed(runner.encoders.trained(runner.plan.work[0].run).meta)
    assert jobs.alive() == {}


@nobody_asks
@pytest.mark.slow
def test_a_command_that_fails_says_how_and_where(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **SHORT)
    jobs = local(file)
    task = unit(file).model_copy(update={"words": ("unit", str(file), "nowhere")})
    jobs.submit([task])
    (ended,) = jobs.ended({task.name})
    assert ended.error.startswith("ended with exit code 2: error: ")
    assert "has no training nowhere" in ended.error
    assert "has no training nowhere" in Path(ended.log).read_text()


@nobody_asks
@pytest.mark.slow
def test_a_job_that_is_killed_ended_without_a_word(tmp_path: Path) -> None:
    file = slow_study(tmp_path)
    jobs, task = local(file), unit(file)
    jobs.submit([task])
    until((tmp_path / "told" / "step").is_file)
    (pid,) = (int(given.job) for given in jobs.ledger.read().values())
    child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    (ended,) = jobs.ended({task.name})
    assert ended.error == engine.LOST
    until(lambda: not commands(str(file)))  # nothing outlives it


def commands(holding: str) -> list[str]:
    """Return the command lines of processes that hold a text."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [each for each in found if holding in each]


# ---- a real Slurm ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemons() -> Iterator[TinySlurm]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm(Path(folder) / "s") as found:
        yield found


@pytest.fixture
def tiny_slurm(daemons: TinySlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinySlurm]:
    for name, value in daemons.variables.items():
        monkeypatch.setenv(name, value)
    yield daemons
    daemons.mend()
    daemons.say("scancel", "--user=root")


def cluster(tmp_path: Path, **changes: Any) -> Path:
    """Write a cluster's file and return it."""
    job = {"cpus": 1, "memory": "2GB"}
    path = tmp_path / "cluster.yaml"
    with path.open("w") as stream:
        YAML().dump({"on": "slurm", "train": {"gpus": 1, **job}, "score": job} | changes, stream)
    return path


@real
@pytest.mark.slurm
@pytest.mark.slow
def test_a_study_runs_to_the_rows_of_a_plain_run(
    tmp_path: Path, tiny_slurm: TinySlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Precision and time are measured by a job; two trainings run at once, each with a card of its own."""
    file, where = told_study(tmp_path, seed=[0, 1], precision="auto"), cluster(tmp_path)
    planned = call("plan", file, "--cluster", where)
    assert planned.exit_code == 0, planned.output
    table = [line.split() for line in planned.stdout.splitlines() if line.startswith(("1 ", "2 "))]
    asked = ["1", "2.0", "GB", "20", "min", "2"]
    assert table == [["2", "train", "1", *asked], ["1", "score", "0", *asked]]
    assert "as measured on " in planned.stdout
    done = call("run", file, "--cluster", where)
    assert done.exit_code == 0, done.output
    assert "2 trained, 2 cells scored, 4 rows" in done.stdout
    assert {each.name for each in (tmp_path / "told").iterdir()} == {"card 0", "card 1", "step"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "none")
    assert_frame_equal(rows(file), plain_rows(file, tmp_path / "plain", monkeypatch))
    assert tiny_slurm.jobs() == {}
    assert "no job of" in call("cancel", file).stdout


@real
@pytest.mark.slurm
@pytest.mark.slow
def test_a_preempted_training_is_requeued_and_goes_on(tmp_path: Path, tiny_slurm: TinySlurm) -> None:
    file, where = slow_study(tmp_path), cluster(tmp_path)
    begun = call("run", file, "--cluster", where, "--time", "30min", "--no-wait")
    assert begun.exit_code == 0, begun.output
    until((tmp_path / "told" / "step").is_file)
    (job,) = (job for job, state in tiny_slurm.jobs().items() if state == "RUNNING")
    tiny_slurm.say("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    until(lambda: tiny_slurm.jobs()[job] == "PENDING")
    goes_on(tiny_slurm, job, tmp_path / "told" / "step")
    done = call("run", file, "--cluster", where, "--time", "30min")
    assert done.exit_code == 0, done.output
    assert "0 that train and embed, 0 that score; 2 run or wait already" in done.output
    (run,) = Results(reader.results_of(file)).runs()
    assert resumed(run)
    assert rows(file)["status"].tolist() == ["ok", "ok"]


@real
@pytest.mark.slurm
@pytest.mark.slow
def test_a_driver_that_was_stopped_leaves_the_jobs_which_outlive_their_node(
    tmp_path: Path, tiny_slurm: TinySlurm
) -> None:
    file, where = slow_study(tmp_path), cluster(tmp_path)
    words = ["run", str(file), "--cluster", str(where), "--time", "30min"]
    with subprocess.Popen([sys.executable, "-m", "oodbench", *words], stdout=subprocess.PIPE, text=True) as driver:
        until((tmp_path / "told" / "step").is_file)
        driver.send_signal(signal.SIGINT)
        said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert f"the jobs go on; the same command joins them, oodbench cancel {file} ends them" in said
    (job,) = (job for job, state in tiny_slurm.jobs().items() if state == "RUNNING")
    tiny_slurm.fail_node()
    until(lambda: tiny_slurm.jobs()[job] == "PENDING")
    until(lambda: not commands(f"slurmstepd: [{job}."))  # on a node that is dead nothing runs
    tiny_slurm.mend()
    assert "pending" in call("status", file).stdout
    goes_on(tiny_slurm, job, tmp_path / "told" / "step")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert "2 run or wait already" in done.output
    assert rows(file)["status"].tolist() == ["ok", "ok"]


@real
@pytest.mark.slurm
@pytest.mark.slow
def test_what_no_node_has_is_refused_at_once(tmp_path: Path, tiny_slurm: TinySlurm) -> None:
    file = write(tmp_path / "s.yaml", **SHORT)
    job = {"cpus": 1, "memory": "2GB", "time": "30min"}
    done = call("run", file, "--cluster", cluster(tmp_path, train={"gpus": 3, **job}))
    assert done.exit_code == 2
    assert "Slurm refuses a job of 3 GPUs, 1 CPU cores, 2 GB and 30 minutes: " in done.output
    assert "Requested node configuration is not available" in done.output
    done = call("run", file, "--cluster", cluster(tmp_path, train={"gpus": 1, **job}), "--partition", "nowhere")
    assert done.exit_code == 2
    assert "invalid partition specified: nowhere" in done.output
    assert tiny_slurm.jobs() == {}
    assert Ledger(reader.results_of(file)).read() == {}


@real
@pytest.mark.slurm
@pytest.mark.slow
def test_jobs_are_cancelled(tmp_path: Path, tiny_slurm: TinySlurm) -> None:
    file = slow_study(tmp_path)
    begun = call("run", file, "--cluster", cluster(tmp_path), "--time", "30min", "--no-wait")
    assert begun.exit_code == 0, begun.output
    assert "2 jobs ended on slurm" in call("cancel", file).stdout
    until(lambda: not tiny_slurm.jobs())
