"""A finished study says so at once; whatever changes of it, a run looks again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from listening import Listener
from tiny import write

from oodbench.data import inputs
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Outcome, Runner
from oodbench.store.memo import Watch
from oodbench.store.rows import Added, Results
from oodbench.study import reader

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained")]
OWN = '''"""Distance to the mean."""
from oodbench.api import Distance, Scores


class Own(Distance):
    """Own: distance to the mean."""

    clusters = False

    def fit(self, f, c):
        return lambda x: Scores((x - f.mean(0)).double().norm(dim=1), x[:, 0].long() * 0)
'''
MINE = {"arrays": {"path": "mine.npz", "y": None, "test_share": 1, "as": "mine"}}
STUDY: dict[str, Any] = {"ood": {"near": MINE, "far": {"noise": {"size": 8}}}, "data": ".", "plugins": ["own.py"]}
STUDY |= {"training": "cross_entropy", "distance": ["cosine", "own"], "clustering": "labels", "threshold": "pooled"}
STUDY |= {"scores": {}}


def images(folder: Path, seed: int) -> None:
    x = np.random.default_rng(seed).integers(256, size=(60, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "mine.npz", x=x)


def runner(file: Path, watch: Watch | None = None, **options: Any) -> Runner:
    return Runner(reader.load(file), Options(**options), watch)


def facts(outcome: Outcome) -> tuple[int, ...]:
    return outcome.scored, outcome.failed, outcome.missing, outcome.trained, outcome.unkept


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with a distance, images and kept scores of its own, which was run."""
    (tmp_path / "own.py").write_text(OWN)
    images(tmp_path, 0)
    file = write(tmp_path / "s.yaml", **STUDY)
    assert runner(file).finished() is None
    assert runner(file).run().scored == 2
    return file


def test_it_says_what_a_run_says(study: Path) -> None:
    long, short = Listener(), Listener()
    whole = runner(study, long).run()
    found = runner(study, short).finished()
    assert found is not None
    pd.testing.assert_frame_equal(found.rows, whole.rows)
    assert found.rows.attrs == whole.rows.attrs
    assert facts(found) == facts(whole) == (0, 0, 0, 0, 0)
    assert (short.stages, short.warnings) == ([], long.warnings)


def test_a_run_looks_again_where_anything_else_is_asked_for(study: Path) -> None:
    assert runner(study).finished() is not None
    assert runner(study, redo="failed").finished() is None
    assert runner(study, only=("distance=own",)).finished() is None
    for changes in ({"distance": ["cosine"]}, {"seed": [0, 1]}, {"keep": [0]}, {"space": {"unit": True}}):
        write(study, **STUDY | changes)
        assert runner(study).finished() is None, changes
    write(study, **STUDY)
    assert runner(study).finished() is not None
    results = Results(study.parent / "results" / "s")
    results.write_added(Added({runner(study).plan.work[0].run.but_seed: [7]}))
    assert runner(study).finished() is None
    results.write_added(Added())
    assert runner(study).finished() is not None
    runner(study, only=("distance=own",)).run()  # whose plan knows no warnings of the whole
    assert runner(study).finished() is None


def cut_a_part(place: Path) -> None:
    (part,) = (place / "results" / "s" / "rows").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-5])


def make_rows_passing_errors(place: Path) -> None:
    results = Results(place / "results" / "s")
    results.add(results.read().iloc[:1].assign(status="error", error="MemoryError: no room"))


def plan_other_cells(place: Path) -> None:
    results = Results(place / "results" / "s")
    plan = results.plan() or {}
    results.write_plan(plan | {"cells": dict.fromkeys(plan["cells"], "other")})


CHANGES: dict[str, Callable[[Path], object]] = {
    "code": lambda place: (place / "own.py").write_text(OWN.replace("mean(0)", "mean(0) + 1")),
    "images": lambda place: images(place, 1),
    "no images": lambda place: (place / "mine.npz").unlink(),
    **{
        f"no {lost}": lambda place, lost=lost: shutil.rmtree(place / "results" / lost)  # type: ignore[misc]
        for lost in ("s/rows", "s/runs", "store/scores", "store/data")
    },
    "part": cut_a_part,
    "errors": make_rows_passing_errors,
    "plan": plan_other_cells,
}


def test_a_run_looks_again_where_something_changed_or_is_lost(
    study: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = shutil.copytree(study.parent, tmp_path_factory.mktemp("kept") / "whole")
    for name, change in CHANGES.items():
        assert runner(study).finished() is not None, f"before {name}"
        change(study.parent)
        assert runner(study).finished() is None, name
        shutil.rmtree(study.parent)
        shutil.copytree(kept, study.parent)
    files = dict(inputs.package())
    assert {"pooled.py", "blobs.py", "runner.py", "metrics.py", "layouts.py"} <= files.keys()
    monkeypatch.setattr(inputs, "package", lambda: [*(files | {"metrics.py": "other"}).items()])
    assert runner(study).finished() is None
