"""Faults of a machine, lost and exchanged files: a study says so, goes on where it can, and has its own numbers."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import call
from tiny import write

from oodbench.execution import pipeline
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.artifacts import MANIFEST
from oodbench.store.memo import Watch
from oodbench.store.rows import Results
from oodbench.study import reader
from oodbench.training.banks import Banks

SMALL: dict[str, Any] = {"training": ["simclr"], "clustering": ["labels"], "threshold": ["pooled"], "outliers": None}


def run(path: Path) -> tuple[pd.DataFrame, Runner]:
    runner = Runner(reader.load(path), Options(device="cpu"))
    return runner.run().rows, runner


def numbers(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.set_index(["cell", "ood"])[["auroc", "fpr95_id", "accuracy"]]


# ---- files that are lost, cut or exchanged --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data", "bank", "probe", "train"])
def test_exchanged_artifacts_are_told_and_made_again(tmp_path: Path, kind: str) -> None:
    """Two whole folders of one kind that have changed places: of other encoders, sets, or heads."""
    path = write(tmp_path / "s.yaml", **SMALL | {"training": ["cross_entropy", "simclr"], "posthoc": ["msp"]})
    before, _ = run(path)
    folder = tmp_path / "results" / "store" / kind
    one, other = sorted(each.parent for each in folder.glob(f"*/*/{MANIFEST}"))[:2]
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    done = call("verify", path)
    assert done.exit_code == 1
    assert "2 damaged" in done.stdout
    assert done.stderr.count("it is another one: its fields have the key") == 2
    for part in (tmp_path / "results" / "s" / "rows").rglob("*.parquet"):
        part.unlink()
    again, _ = run(path)
    pd.testing.assert_frame_equal(numbers(before), numbers(again))
    assert call("verify", path).exit_code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_runs_that_are_lost_cut_or_exchanged_are_told_and_written_again(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **SMALL | {"training": ["cross_entropy", "simclr"]})
    rows, runner = run(path)
    folder = tmp_path / "results" / "s" / "runs"
    one, other = sorted(folder.iterdir())
    texts = {each: each.read_text() for each in (one, other)}

    def lose() -> None:
        one.unlink()

    def cut() -> None:
        one.write_text(texts[one][:-30])

    def exchange() -> None:
        one.write_text(texts[other])

    def alter() -> None:
        one.write_text(texts[one].replace('"seed": 0', '"seed": 1'))

    cell = rows.loc[rows["train_key"] == one.stem, "cell"].iloc[0]
    for harm in (lose, cut, exchange, alter):
        harm()
        assert f"runs/{one.stem}.json is lost or damaged" in call("show", path, cell).stderr
        assert call("verify", path).exit_code == 1
        run(path)
        assert {each: each.read_text() for each in (one, other)} == texts, harm
        assert '"parameters"' in call("show", path, cell).stdout
    assert runner.results.run(one.stem) is not None


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_verify_says_what_is_gone(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **SMALL | {"distance": ["cosine", "euclidean"], "seed": [0, 1]})
    _, runner = run(path)
    sorted(runner.results.folder.rglob("*.parquet"))[0].unlink()
    done = call("verify", path)
    assert (done.exit_code, "4 of 8 rows are there" in done.stderr) == (0, True)
    (tmp_path / "results" / "s" / "plan.json").unlink()
    done = call("verify", path)
    assert (done.exit_code, "plan.json is not there, and rows are" in " ".join(done.stderr.split())) == (1, True)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_clock_that_goes_back_hides_no_row_of_a_study(tmp_path: Path) -> None:
    """Rows of another code, and of an hour to come, are there before those of this run."""
    path = write(tmp_path / "s.yaml", **SMALL)
    before, runner = run(path)
    results = runner.results
    results._write([results.read().assign(key="of other code", auroc=0.123)], "20990101T000000000000")
    again, runner = run(path)
    pd.testing.assert_frame_equal(numbers(before), numbers(again))
    results._write([results.read().assign(key="of yet other code", auroc=0.123)], "20990101T000000000001")
    for part in sorted(results.folder.rglob("*.parquet"), key=lambda path: path.name)[:1]:
        part.unlink()
    again, runner = run(path)
    pd.testing.assert_frame_equal(numbers(before), numbers(again))
    call("compact", path)
    pd.testing.assert_frame_equal(numbers(before), numbers(Results(results.folder.parent).current()))
    assert "in no table" not in call("show", path, before["cell"].iloc[0]).stderr


# ---- faults that pass -----------------------------------------------------------------------------------------------


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*args: object, **how: object) -> None:
        raise error

    return fail


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "bank/x"),
        MemoryError(),
        TimeoutError("a lock"),
        HTTPError("a", 503, "busy", Message(), None),
        subprocess.TimeoutExpired("a", 3),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_rows_of_a_fault_that_passes_are_tried_again(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "s.yaml", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Banks, "accuracies", failing(error))
        rows, _ = run(path)
    assert set(rows["status"]) == {"error"}
    rows, runner = run(path)
    assert set(rows["status"]) == {"ok"}
    assert runner.run().scored == 0


@pytest.mark.usefixtures("trained")
def test_rows_of_a_method_that_fails_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.yaml", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Banks, "accuracies", failing(ValueError("it is singular")))
        run(path)
    rows, _ = run(path)
    assert set(rows["error"]) == {"ValueError: it is singular"}


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EROFS, errno.EIO, errno.EFBIG])
def test_a_fault_that_every_training_would_meet_ends_the_run(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a full disk: no row is kept of it, and the same command goes on."""
    path = write(tmp_path / "s.yaml", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Banks, "accuracies", failing(OSError(number, os.strerror(number))))
        done = call("run", path, "--device", "cpu")
    assert done.exit_code == 2
    assert os.strerror(number) in done.stderr
    assert "the same command goes on" in " ".join(done.stderr.split())
    assert not list((tmp_path / "results" / "s").glob("rows/**/*.parquet"))
    assert call("run", path, "--device", "cpu").exit_code == 0


@pytest.mark.usefixtures("trained")
def test_a_device_that_is_lost_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that follows could run on it; memory that is short is another matter."""
    path = write(tmp_path / "s.yaml", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Banks, "accuracies", failing(RuntimeError("CUDA error: device-side assert triggered")))
        done = call("run", path, "--device", "cpu")
    assert done.exit_code == 2
    assert "device-side assert triggered; what is finished" in " ".join(done.stderr.split())
    with monkeypatch.context() as patch:
        patch.setattr(Banks, "accuracies", failing(RuntimeError("CUDA error: out of memory")))
        assert set(run(path)[0]["status"]) == {"error"}
    assert set(run(path)[0]["status"]) == {"ok"}


def test_a_card_that_torch_cannot_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "CARD", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    study, watch, heard = reader.load(write(tmp_path / "s.yaml", **SMALL)), Watch(), list[str]()
    monkeypatch.setattr(watch, "warn", heard.append)
    pipeline.Pipeline(study, Options(device="cpu"), watch)
    assert heard == []
    pipeline.Pipeline(study, Options(), watch)
    assert "cannot use the CUDA device that is here" in heard[0]


@pytest.mark.usefixtures("trained")
def test_an_end_that_is_no_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.yaml", **SMALL)
    monkeypatch.setattr(Banks, "accuracies", failing(asyncio.CancelledError("a task")))
    done = call("run", path, "--device", "cpu")
    assert done.exit_code == 2
    assert "CancelledError: a task; what is finished is kept" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_disk_that_is_full_while_an_artifact_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.yaml", **SMALL | {"recipe": {"epochs": 1, "batch": 32, "lr": 0.05, "warmup": 0}})
    whole = os.fsync

    def full(handle: int) -> None:
        if "weights" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        done = call("run", path, "--device", "cpu")
    assert done.exit_code == 2
    assert "No space left on device" in done.stderr
    assert not list((tmp_path / "results" / "store").glob("*/.*"))
    assert call("run", path, "--device", "cpu").exit_code == 0


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("what", ["file", "loop", "rows is a file"])
def test_a_folder_of_results_that_cannot_be_written_is_one_message(tmp_path: Path, what: str) -> None:
    path, place = write(tmp_path / "s.yaml", **SMALL), tmp_path / "results" / "s"
    if what == "file":
        place.write_text("")
    elif what == "loop":
        place.symlink_to(place)
    else:
        place.mkdir()
        (place / "rows").write_text("")
    for command in ("run", "tables"):
        done = call(command, path)
        assert done.exit_code in (1, 2), done.output
        assert "Traceback" not in done.output
        assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1, done.output


# ---- the machine ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_rows_runs_and_tables_tell_the_machine(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", **SMALL)
    rows, runner = run(path)
    (label,) = rows["scored_on"].unique()
    import torch

    assert torch.backends.cpu.get_cpu_capability() in label
    assert f"{torch.get_num_threads()} thread" in label
    about = runner.results.run(rows["train_key"].iloc[0])
    assert about is not None
    assert about["machine"]["torch"] == torch.backends.cpu.get_cpu_capability()
    assert set(rows["trained_on"]) == {", ".join(about["machine"].values())}
    shown = call("show", path, rows["cell"].iloc[0]).stdout
    assert json.dumps(label) in shown
    assert "These rows are of" not in call("tables", path).output
    other = rows.iloc[:1].assign(trained_on="Another CPU, AVX2, 8 threads", scored_on="Another CPU, AVX2, 8 threads")
    runner.results.add(other)
    done = call("tables", path)
    assert "1 trained on Another CPU, AVX2, 8 threads" in done.stderr
    for ending in ("md", "tex", "html"):
        text = " ".join((tmp_path / "results" / "s" / f"leaderboard.{ending}").read_text().split())
        assert "These rows are of 2 machines or numbers of threads, whose numbers may differ" in text
    assert np.isfinite(rows["auroc"]).all()
