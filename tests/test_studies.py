"""Every study of the repository plans without data, and runs on stand-in data; so none rots."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from oodbench import cli, dry, grid, runner, study, verdict
from oodbench.columns import STAND_IN
from oodbench.lab import Options
from oodbench.registry import fingerprint
from oodbench.results import Results

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
ids = [file.stem for file in STUDIES]
UNTRAINED = "weighs by 1 / means over training items"  # what CSI's score says of an encoder that learned little


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "out", Console(highlight=False, width=200))
    monkeypatch.setattr(cli, "err", Console(highlight=False, width=200, stderr=True))


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.parametrize("file", STUDIES, ids=ids)
def test_a_study_plans_without_data(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a plan fetches nothing")

    monkeypatch.setattr("oodbench.fetching._get", refuse)
    done = call("plan", file)
    assert done.exit_code == 0, done.output
    assert "cells" in done.stdout
    if file.stem != "fashion":  # whose data a machine may have
        assert "not here: " in done.stdout
        assert "unknown until the data is here" in done.stdout


@pytest.mark.parametrize("file", STUDIES, ids=ids)
def test_a_study_runs_on_stand_in_data(file: Path) -> None:
    """Of several encoders the first alone, to save time."""
    whole = dry.dry(study.load(file)).study
    found = dataclasses.replace(whole, encoders=whole.encoders[:1])
    outcome = runner.Runner(found, Options(device="cpu")).run()
    rows = outcome.rows
    assert {error for error in rows["error"] if UNTRAINED not in error} == {""}
    assert rows["warnings"].str.startswith(STAND_IN).all()
    assert len(rows) == sum(len(work.cells) * len(work.run.sets) for work in grid.plan(found).work)
    made = call("tables", file, "--dry-data")
    assert made.exit_code == 0, made.output
    for name in found.tables:
        text = (found.results / "tables" / f"{name}.md").read_text()
        assert STAND_IN in text.lower()
    of_rows = {name: claim for name, claim in found.claims.items() if claim.table == "rows"}
    for each in verdict.verdicts(rows, of_rows) if len(whole.encoders) == 1 else ():
        assert each.why in ("", "wanted are 3 runs of both sides"), (each.name, each.why)


def test_real_and_dry_runs_are_apart() -> None:
    real = study.load(ROOT / "benchmark.yaml")
    found = dry.dry(real).study
    assert found.results == real.results.with_name("benchmark.dry")
    assert found.store.is_relative_to(found.results.resolve())
    assert not {grid.digest(w.run.canonical) for w in grid.plan(real).work} & {
        grid.digest(w.run.canonical) for w in grid.plan(found).work
    }
    assert [each.label for each in real.ids] == [each.label for each in found.ids]
    assert [each.label for each in real.trainings] == [each.label for each in found.trainings]
    assert Results(real.results).read().empty
    assert os.environ.get("OODBENCH_STORE") is None
    assert fingerprint.cache_info().currsize
