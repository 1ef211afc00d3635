"""A study of `variance: machine` is run once more on the same CPU, which plays a lesser one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from tiny import TINY, write
from typer.testing import CliRunner

import oodbench
from oodbench.cli import app, study_commands
from oodbench.errors import UserError
from oodbench.report.machines import CHANCE, MOST, MOVED, variance
from oodbench.study import reader


def test_differences_are_in_points_and_by_training() -> None:
    here = pd.DataFrame(
        {
            **dict.fromkeys(["id", "family", "protocol", "suite", "encoder", "outliers", "recipe", "precision"], "x"),
            **dict.fromkeys(["reference", "space", "clustering", "posthoc", "threshold", "saw"], "x"),
            "cell": ["a", "b", "c", "d"],
            "ood": "noise",
            "status": "ok",
            "group": "far",
            "training": ["simclr", "simclr", "supcon", "supcon"],
            "distance": "cosine",
            "level": 0.95,
            "seed": [0, 1, 0, 1],
            "trained_on": "one",
            "auroc": [0.5, 0.6, 0.7, 0.8],
        }
    )
    there = here.assign(auroc=[0.52, 0.56, 0.7, None], trained_on="another")
    table = variance(here, there)
    assert table.mean.loc[("simclr", "far")].round(9).to_dict() == {MOVED: 3.0, MOST: 4.0, CHANCE: 7.071067812}
    assert table.mean.loc[("supcon", "far"), MOVED] == 0
    assert table.n[MOVED].to_list() == [2, 1]
    assert "made on one and on another" in table.caption
    assert "1 of 4 rows have no number" in table.caption
    with pytest.raises(UserError, match="no number in common"):
        variance(here, there.assign(cell=list("efgh")))


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="this is the least CPU already")
def test_a_study_says_by_how_much_a_lesser_cpu_moves_it(tmp_path: Path) -> None:
    recipe = TINY["recipe"] | {"epochs": 12, "warmup": 2}
    found = {}
    for precision in ("float32", "float64"):
        more = {"training": ["cross_entropy", "simclr"], "posthoc": "react", "precision": precision}
        study = write(tmp_path / f"{precision}.yaml", variance="machine", recipe=recipe, **more)
        done = CliRunner().invoke(app.app, ["run", str(study)])
        assert done.exit_code == 0, done.output
        table = pd.read_csv(tmp_path / "results" / precision / "machine.csv")
        assert (oodbench.rows(study)["status"] == "ok").all()
        found[precision] = table[f"{MOVED} mean"].max()
    assert found["float64"] < 0.01
    assert found["float32"] > 1


def test_a_card_is_not_held_against_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = SimpleNamespace(device=torch.device("cuda"))
    on: Any = SimpleNamespace(study=SimpleNamespace(results=Path("r")), pipeline=pipeline)
    outcome: Any = SimpleNamespace(rows=pd.DataFrame())
    study_commands._vary(study_commands.Ran(on, outcome, 0, []), [])
    assert "this run is on cuda; see --device cpu" in capsys.readouterr().out


def test_its_store_must_be_movable(tmp_path: Path) -> None:
    study = write(tmp_path / "s.yaml", variance="machine", store="here")
    with pytest.raises(UserError, match=r"s\.yaml:\d+: variance: .*names its store"):
        reader.load(study)
