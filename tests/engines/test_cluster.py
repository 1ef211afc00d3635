"""A cluster's file, its flags, and what jobs ask for."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from clusters import HERE, SHORT, driver
from command_line import call
from tiny import write

from oodbench.engines import cluster
from oodbench.engines.asks import GB, MARGIN, Asks
from oodbench.engines.cluster import Cluster, ScoringJob, TrainingJob
from oodbench.engines.unit import Measured
from oodbench.errors import UserError
from oodbench.execution import estimate

FILE = """\
on: slurm
partition: gpu
setup: [module load cuda]
sbatch: {qos: preempt, exclusive: true}
train: {cpus: 8, time: 4h, memory: 16GB}
score: {batch: 5}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a cluster's file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(cluster.VARIABLE, raising=False)
    return tmp_path


def test_a_file_says_where_and_flags_win(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "c.yaml").write_text(FILE)
    train, score = TrainingJob(cpus=8, time="4h", memory="16GB"), ScoringJob(batch=5)
    sbatch = {"qos": "preempt", "exclusive": True}
    wanted = Cluster("slurm", "gpu", setup=("module load cuda",), sbatch=sbatch, train=train, score=score)
    assert cluster.load(home / "c.yaml", {}) == wanted
    assert cluster.load(home / "c.yaml", {"partition": "cpu", "time": "30min"}).train.time == "30min"
    (home / "d.yaml").write_text("{on: dask, shared: false}")
    assert [cluster.load(home / "d.yaml", {"shared": flag}).shared for flag in (None, True)] == [False, True]
    monkeypatch.setenv(cluster.VARIABLE, str(home / "c.yaml"))
    assert cluster.load(None, {"on": "slurm"}) == wanted
    monkeypatch.delenv(cluster.VARIABLE)
    assert cluster.load(None, {"on": "slurm"}) == Cluster("slurm")
    (home / ".config" / "oodbench").mkdir(parents=True)
    (home / ".config" / "oodbench" / "cluster.yaml").write_text("{partition: mine, at_most: 3}")
    assert cluster.load(None, {"on": "slurm"}) == Cluster("slurm", "mine", at_most=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("on: slrum", "c.yaml:1: on: is 'slrum', "),
        ("partitoin: gpu", "c.yaml:1: partitoin: there is no such key; did you mean 'partition'?"),
        ("on: slurm\ntrain: {tme: 4h}", "c.yaml:2: train.tme: there is no such parameter; did you mean 'time'?"),
        ("train: {time: 4 hours}", "c.yaml:1: train.time: is '4 hours', wanted is auto, or a time such as 30min"),
        ("score: {memory: lots}", "c.yaml:1: score.memory: is 'lots', wanted is auto, or a size such as 500MB"),
        ("train: {cpus: 0}", "c.yaml:1: train.cpus: is 0, "),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(home: Path, text: str, said: str) -> None:
    (home / "c.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        cluster.load(home / "c.yaml", {})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "slrum"], "--on slrum: there is no such engine; did you mean 'slurm'?"),
        (["--on", "slurm", "--time", "long"], "--time long: wanted is auto, or a time such as 30min, 4h or 2d"),
        (["--on", "slurm", "--not-shared"], "shared: false: jobs of Slurm are given and heard of by submitit, whose"),
        (["--not-shared"], "--not-shared is of a run on a cluster; say which with --on slurm, --on dask or"),
        (["--on", "dask", "--not-shared", "--until-decided"], "--until-decided adds seeds in the folder of results"),
        (["--partition", "gpu"], "--partition is of a run on a cluster; say which with --on slurm, --on dask or"),
        (["--no-wait"], "--no-wait is of a run on a cluster; say which with --on slurm, --on dask or"),
        (["--cluster", "nowhere.yaml"], "there is no cluster file nowhere.yaml, which --cluster names"),
        (["--on", "slurm", "--set", "seed=1"], "--set is of a run on one machine; on a cluster jobs read the file"),
        (["--on", "slurm", "--only", "seed=0"], "--only is of a run on one machine; on a cluster jobs read the file"),
        (["--on", "slurm", "--redo", "train"], "--redo train is for one process: jobs could not tell what is old"),
        (["--on", "slurm", "--cached-only"], "--cached-only trains nothing; without --on it scores what is trained"),
    ],
)
def test_flags_that_cannot_be_right(home: Path, words: list[str], said: str) -> None:
    done = call("run", write(home / "s.yaml"), *words)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(("on", "module"), [("slurm", "submitit"), ("dask", "distributed")])
def test_a_library_that_is_not_installed_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, on: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = call("run", write(home / "s.yaml", **SHORT), "--on", on, "--time", "1h")
    assert done.exit_code == 2
    assert f"--on {on} needs {module}: pip install 'oodbench[{on}]'" in done.output


def test_on_local_is_here(home: Path) -> None:
    (home / "c.yaml").write_text("on: slurm")
    done = call("plan", write(home / "s.yaml"), "--cluster", home / "c.yaml", "--on", "local")
    assert done.exit_code == 0
    assert "time: about" in done.stdout


@pytest.mark.usefixtures("home")
def test_what_jobs_ask_for(tmp_path: Path) -> None:
    """Time is that of measured steps; memory holds the images and features that there are."""
    recipe = {"epochs": 3, "batch": 32, "lr": 0.05, "warmup": 0}
    made = driver(write(tmp_path / "s.yaml", **SHORT | {"training": "simclr", "recipe": recipe}))
    (work,) = made.missing()
    pieces = estimate.unembedded(made.runner.pipeline, work)
    seen = 3 * 2 * 2 * 32  # epochs, steps, views of a batch: of 120 images 90 train
    takes = seen + (90 + 30 + 120 + 60 + 50) / 3  # each image of a bank has a third of a step's work
    assert estimate.views(made.runner.pipeline, work.run, pieces) == pytest.approx(takes)
    auto = Cluster("slurm", train=TrainingJob(cpus=3))

    def asked(rate: float) -> tuple[int, int, int, int, int]:
        rates = {estimate.kind_of(work.run): rate}
        needs = Asks(made.runner, auto, Measured(precision="float32", where="", rates=rates)).train(work)
        return needs.gpus, needs.cpus, needs.memory, needs.seconds, needs.ends

    assert asked(1e-9) == (1, 3, 5 * GB, 1200, 4)
    assert asked(10) == (1, 3, 5 * GB, 600 * math.ceil((10 * takes * MARGIN + 600) / 600), 4)
    limited = Asks(made.runner, HERE, Measured(precision="float32", where="", rates={estimate.kind_of(work.run): 10}))
    needs = limited.train(work)
    assert (needs.seconds, needs.memory) == (1800, GB)
    assert needs.ends == math.ceil(10 * takes / 1800) + 3  # it goes on after each of its limits
    score = limited.score([work])
    assert (score.gpus, score.seconds, score.memory) == (0, 1200, 5 * GB)  # --memory, 2 GB, and features
