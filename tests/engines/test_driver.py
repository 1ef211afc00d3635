"""The driver and the units of a study, on an engine that runs in this process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from clusters import HERE, InProcess, but, driver, plain_rows, rows
from command_line import call
from pandas.testing import assert_frame_equal
from tiny import write

from oodbench.engines.cluster import ScoringJob
from oodbench.engines.seam import Ledger, Task
from oodbench.execution.runner import Runner
from oodbench.store.rows import Results
from oodbench.study import reader

SEEDS = {"training": "cross_entropy", "seed": [0, 1, 2], "threshold": "pooled", "distance": "cosine"}


def ledger(file: Path) -> Ledger:
    return Ledger(reader.results_of(file))


def kinds(tasks: list[Task]) -> Counter[tuple[str, int]]:
    """Return how many tasks there are of each stage and number of trainings."""
    return Counter((task.stage, len(task.runs)) for task in tasks)


def test_rows_are_those_of_a_plain_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "s.yaml", threshold="pooled")
    made = driver(file)
    made.attend(made.submit())
    assert made.trained == 2
    assert kinds(made.engine.heard) == {("train", 1): 2, ("score", 2): 1}
    assert_frame_equal(rows(file), plain_rows(file, tmp_path / "plain", monkeypatch))
    again = driver(file)
    assert again.submit() == set()
    assert again.engine.heard == []


def test_trainings_are_scored_in_batches_after_they_have_ended(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **SEEDS)
    made = driver(file, cluster=but(HERE, score=ScoringJob(batch=2)))
    joined, tasks = made.tasks(made.missing())
    assert joined == []
    assert kinds(tasks) == {("train", 1): 3, ("score", 2): 1, ("score", 1): 1}
    first = next(task for task in tasks if len(task.runs) == 2)
    assert first.after == tuple(f"train-{run}" for run in first.runs)
    assert [task.stage for task in tasks] == ["train"] * 3 + ["score"] * 2


@pytest.mark.usefixtures("trained")
def test_what_is_trained_is_scored_and_waits_for_nothing(tmp_path: Path) -> None:
    made = driver(write(tmp_path / "s.yaml"))
    _, tasks = made.tasks(made.missing())
    assert [(task.stage, len(task.runs), task.after) for task in tasks] == [("score", 2, ())]


@pytest.mark.usefixtures("trained")
def test_a_unit_plans_its_own_training_alone(tmp_path: Path) -> None:
    """It scores it, and neither the other one nor the plan of the study is touched."""
    file = write(tmp_path / "s.yaml")
    works = Runner(reader.load(file)).plan.work
    done = call("unit", file, works[1].run.named, "--stage", "score", "--device", "cpu")
    assert (done.exit_code, done.stdout) == (0, f"{len(works[1].cells)} cells scored\n")
    found = Results(reader.results_of(file))
    assert set(found.read()["training"]) == {works[1].run.training.label}
    assert found.plan() is None


def test_a_job_that_dies_is_tried_again(tmp_path: Path) -> None:
    file, said = write(tmp_path / "s.yaml", **SEEDS), []
    died: list[str] = []

    def fate(task: Task) -> str:
        first = not died and task.stage == "train"
        died.extend([task.name] * first)
        return "was ended by SIGKILL" if first else ""

    engine = InProcess(ledger(file), fate)
    made = driver(file, engine, said=said)
    made.attend(made.submit())
    (run,) = (name.removeprefix("train-") for name in died)
    assert [task.name for task in engine.heard if task.runs == (run,)] == [died[0], f"train-{run}-2", f"score-{run}-2"]
    assert rows(file)["status"].eq("ok").all()
    assert len(rows(file)) == 3 * 2 * 2  # seeds, clusterings, OOD sets
    assert any(f"a job was ended by SIGKILL (try 1 of 3), see {died[0]}.log" in line for line in said)


def test_what_dies_too_often_is_error_rows_that_name_the_log(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **SEEDS)
    named = Runner(reader.load(file)).plan.work[0].run.named
    engine = InProcess(ledger(file), lambda task: "was ended by SIGKILL" if task.runs == (named,) else "")
    made = driver(file, engine, cluster=but(HERE, retries=1))
    made.attend(made.submit())
    found = rows(file)
    assert found.groupby("seed")["status"].unique().map(list).to_dict() == {0: ["error"], 1: ["ok"], 2: ["ok"]}
    log = f"train-{named}-2.log"
    why = f"JobError: ended without a result 2 times, the last one was ended by SIGKILL; last log {log}"
    assert set(found["error"]) == {"", why}
    assert driver(file).submit() == set()  # it is said once, and tried again only where that is asked for
    again = driver(file, redo="failed")
    again.attend(again.submit())
    assert rows(file)["status"].eq("ok").all()


def test_a_training_that_diverges_is_error_rows_and_is_not_tried_again(tmp_path: Path) -> None:
    recipe = {"epochs": 2, "batch": 32, "lr": 1e30, "warmup": 0}
    made = driver(file := write(tmp_path / "s.yaml", **SEEDS | {"recipe": recipe, "seed": 0}))
    made.attend(made.submit())
    assert kinds(made.engine.heard) == {("train", 1): 1, ("score", 1): 1}
    found = rows(file)
    assert found["status"].eq("error").all()
    assert found["error"].str.startswith("DivergedError: ").all()


def test_a_later_driver_joins_what_runs(tmp_path: Path) -> None:
    file, said = write(tmp_path / "s.yaml", **SEEDS), []
    first = driver(file)
    names = first.submit()
    second = driver(file, said=said)
    assert second.submit() == names
    assert second.engine.heard == []
    assert said == ["jobs: 0 that train and embed, 0 that score; 4 run or wait already"]
    second.attend(names)
    assert rows(file)["status"].eq("ok").all()
    assert second.trained == 3


def test_a_score_whose_training_is_gone_is_given_again(tmp_path: Path) -> None:
    """It would find nothing trained: its training was cancelled meanwhile."""
    file = write(tmp_path / "s.yaml", **SEEDS)
    driver(file).submit()
    lost = next(name for name in ledger(file).read() if name.startswith("train-"))
    ledger(file).drop(lost)
    second = driver(file)
    second.submit()
    assert [task.name for task in second.engine.heard] == [lost, lost.replace("train", "score")]


def test_jobs_are_ended(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **SEEDS)
    made = driver(file)
    made.submit()
    assert made.engine.cancel() == 4
    assert made.engine.alive() == {}


def test_a_training_that_there_is_not_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", **SEEDS)
    named = Runner(reader.load(file)).plan.work[0].run.named
    done = call("unit", file, named[:-1] + "x", "--stage", "train")
    assert done.exit_code == 2
    assert f"has no training {named[:-1]}x; did you mean '{named}'?" in done.output
