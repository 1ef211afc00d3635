"""Keys of today's code for what other code made: nothing is trained or scored again, and what was done is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write
from typer.testing import CliRunner, Result

from oodbench.cli import app
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Outcome, Runner
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.registry import Registry


def runner(path: Path) -> Runner:
    return Runner(reader.load(path), Options(device="cpu"), Watch())


def run(path: Path) -> Outcome:
    return runner(path).run()


def call(*words: object) -> Result:
    return CliRunner().invoke(app.app, [str(word) for word in words])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A study that code of other fingerprints has run: data sets, trainings and detectors."""
    path = write(tmp_path / "s.yaml", training=["simclr", "cross_entropy"], posthoc=["msp"])
    whole = Registry.fingerprint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "fingerprint", lambda self, room, name: f"old {whole(self, room, name)}")
        assert run(path).trained == 2
    return path


@pytest.mark.slow
def test_nothing_is_made_again(old: Path) -> None:
    before = runner(old).results.read()
    done = call("rekey", old)
    assert done.exit_code == 0, done.output
    assert f"4 data, 2 train, 10 bank, 2 probe, {len(before)} rows have the keys" in done.stdout
    again = run(old)
    assert (again.trained, again.scored, again.failed) == (0, 0, 0)
    assert len(again.rows) == len(before)
    same = [name for name in before if name not in ("key", "train_key")]
    order = ["cell", "ood"]
    assert (
        again.rows[same]
        .sort_values(order, ignore_index=True)
        .equals(before[same].sort_values(order, ignore_index=True))
    )
    assert "no artifacts, 0 rows" in call("rekey", old).stdout


@pytest.mark.slow
def test_without_it_everything_is(old: Path) -> None:
    again = run(old)
    assert again.trained == 2
    assert again.scored > 0


@pytest.mark.slow
def test_what_was_done_is_said(old: Path) -> None:
    before = runner(old).results.read()
    call("rekey", old)
    now = runner(old)
    for work in now.plan.work:
        key = now.encoders.train_key(work.run)
        about = now.results.run(key)
        assert about is not None
        assert about["rekeyed"]["from"] in set(before["train_key"])
        assert now.encoders.trained(work.run).meta["rekeyed"]["from"] == about["rekeyed"]["from"]
    said = call("show", old, now.plan.cells[0].id).stdout
    assert '"rekeyed"' in said


@pytest.mark.slow
def test_rows_of_other_code_than_the_studys_last_are_left(old: Path) -> None:
    """A row that was stale when the study was last run is no row of it."""
    results = runner(old).results
    plan = results.plan()
    assert plan is not None
    stale, *_ = plan["cells"]
    results.write_plan(plan | {"cells": plan["cells"] | {stale: "of other code"}})
    call("rekey", old)
    assert run(old).scored == 1


@pytest.mark.slow
def test_rows_of_other_data_are_left(old: Path) -> None:
    results = runner(old).results
    rows = results.read()
    changed = rows["ood"] == rows["ood"].iloc[0]
    for part in results.folder.rglob("*.parquet"):
        part.unlink()
    results.add(rows.assign(ood_data=rows["ood_data"].mask(changed, "of other images")))
    done = call("rekey", old)
    assert f"{changed.sum()} rows are of other parameters or data now" in done.stderr
    assert run(old).scored == rows.loc[changed, "cell"].nunique()


@pytest.mark.slow
def test_rows_without_a_plan_are_refused(old: Path) -> None:
    (reader.results_of(old) / "plan.json").unlink()
    done = call("rekey", old)
    assert done.exit_code == 2
    assert "no plan.json beside them says which are the study's" in done.stderr
