"""A finished study says so at once, and only as long as nothing that its rows came of has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write
from warm import Command

import oodbench
from oodbench import finished
from oodbench.document import read
from oodbench.study import results_of

PLUGIN = '''
"""Length."""
from torch import Tensor
from oodbench.api import Clusters, Distance, Scorer, Scores
from .neighbour import sign

class Length(Distance):
    """Length."""
    clusters = False
    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        return lambda x: Scores(sign * x.double().norm(dim=1), x[:, 0].long() * 0)
'''


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "length.py").write_text(PLUGIN)
    (tmp_path / "neighbour.py").write_text("sign = 1\n")
    path = write(tmp_path / "s.yaml", plugins=["length.py"], distance=["length"], training="simclr", clustering=None)
    rows = oodbench.run(path, device="cpu")
    assert (rows["status"] == "ok").all()
    return path


def rows(path: Path, device: str = "cpu") -> int | None:
    finished._hash.cache_clear()
    return finished.rows_of(results_of(path), read(path), device)


def test_a_finished_study_is_told_by_what_its_rows_came_of(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(study) == 2
    assert rows(study, "cuda") is None
    text = study.read_text()
    study.write_text(f"{text}# a comment\n")
    assert rows(study) == 2
    study.write_text(text.replace("epochs: 1", "epochs: 2"))
    assert rows(study) is None
    study.write_text(text)
    neighbour = study.parent / "neighbour.py"
    neighbour.write_text("sign = -1\n")
    assert rows(study) is None
    neighbour.write_text("sign = 1\n")
    assert rows(study) == 2
    monkeypatch.setenv("OODBENCH_DATA", "elsewhere")
    assert rows(study) is None


def test_lost_rows_and_damage_are_looked_at_closely(study: Path) -> None:
    folder = results_of(study)
    (part,) = (folder / "rows").glob("*.csv.gz")
    kept = part.read_bytes()
    part.unlink()
    assert rows(study) is None
    part.write_bytes(kept)
    assert rows(study) == 2
    (folder / finished.PLAN).unlink()  # without it all rows that ever were would be in the tables
    assert rows(study) is None
    oodbench.run(study, device="cpu")
    assert rows(study) == 2
    (folder / finished.FILE).write_text("{")
    assert rows(study) is None


def test_a_study_with_failures_is_not_finished(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", training="simclr", distance=[{"knn": {"k": 5000}}], clustering=None)
    found = oodbench.run(path, device="cpu")
    assert (found["status"] == "error").all()
    assert rows(path) is None


def test_it_takes_neither_torch_nor_pandas(study: Path) -> None:
    words = ["run", str(study), "--device", "cpu"]
    Command(Path(os.environ["OODBENCH_RESULTS"]), *words).finished()  # writes the tables
    code = "import sys\nfrom oodbench.cli import app\ntry: app()\nfinally: print({'torch', 'pandas'} & {*sys.modules})"
    command = [sys.executable, "-c", code, *words]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    assert "nothing to do: 2 rows are there" in said
    assert said.splitlines()[-1] == "set()"
