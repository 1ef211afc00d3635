"""Seeds that are added until claims are decided: which, for how long, and that all looks together err no more often."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import by_seed, made
from tiny import write

from oodbench.cli import study_commands
from oodbench.report.claims import verdicts
from oodbench.store.rows import Added, Results
from oodbench.study.declarations import ClaimSpec

OF = {"clustering": ["labels", "–"], "threshold": "pooled", "group": "far"}
TRAININGS = {"left": {"training": "cross_entropy"}, "right": {"training": "simclr"}}
SURE: dict[str, Any] = {"says": "Not 99 points behind.", "of": OF, "relation": "at_least", "margin": 99}
SURE |= {"left": {"distance": "cosine"}, "right": {"distance": "knn(k=3)"}}
OPEN = {"says": "Near.", "of": OF | {"distance": "cosine"}, "relation": "near", "margin": 20} | TRAININGS


def study(path: Path, **changes: Any) -> Path:
    return write(path, **{"outliers": None, "seed": [0, 1, 2], "claims": {"sure": SURE, "open": OPEN}} | changes)


def run(path: Path, *words: object) -> Any:
    return call("run", path, "--device", "cpu", "--rows-only", *words)


@pytest.mark.slow
def test_seeds_are_added_to_the_sides_of_what_is_open(tmp_path: Path) -> None:
    path = study(tmp_path / "s.yaml", training=["cross_entropy", "simclr", "supcon"])
    done = run(path, "--until-decided")
    assert done.exit_code == 0, done.output
    assert "decided: 2 of 2 claims" in done.output
    assert "open is not decided: seed" in done.output
    results = Results(tmp_path / "results" / "s")
    added, rows = results.added(), results.current()
    seeds = sorted({seed for each in added.seeds.values() for seed in each})
    assert seeds == list(range(3, 3 + len(seeds)))
    assert seeds
    by = rows.groupby("training")["seed"].unique().map(sorted).to_dict()
    assert by == {"cross_entropy": [0, 1, 2, *seeds], "simclr": [0, 1, 2, *seeds], "supcon": [0, 1, 2]}
    again = run(path)  # they are the study's from now on
    assert f"0 trained, 0 cells scored, {len(rows)} rows" in again.output
    said = call("verdict", path).output
    assert said.count("holds  ") == 2
    assert f"after {added.looks['open']} looks" in said
    assert call("report", path, "--to", tmp_path / "page.html").exit_code == 0
    assert f"after {added.looks['open']} looks" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_no_seed_is_added_where_there_is_no_time_left(trained: None, tmp_path: Path) -> None:
    path = study(tmp_path / "s.yaml", seed=0)
    done = run(path, "--until-decided", "--budget", "0s")
    assert done.exit_code == 0
    assert "decided: 0 of 2 claims; sure is not enough data: 2 more seeds would take about" in done.output
    results = Results(tmp_path / "results" / "s")
    assert results.added().seeds == {}
    assert results.added().looks == {"sure": 1, "open": 1}


def test_what_seeds_do_not_decide_is_said(trained: None, tmp_path: Path) -> None:
    """Two ID sets are two observations, whatever the number of their seeds."""
    ids = [{"blobs": {"groups": 3, "count": 120}}, {"blobs": {"groups": 4, "count": 120}}]
    path = study(tmp_path / "s.yaml", id=ids, claims={"open": OPEN}, seed=[0, 1])
    done = run(path, "--until-decided", "--budget", "60s")
    assert "decided: 0 of 1 claim; open is open, and more seeds would not decide it" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget", "8h"], "--budget is the time of --until-decided; give both"),
        (["--until-decided", "--budget", "8 h"], "--budget 8 h: wanted is a time such as 90s, 30min or 8h"),
        (["--until-decided", "--redo", "train"], "--redo does something else: drop one"),
        (["--until-decided", "--cached-only"], "--cached-only does something else: drop one"),
        (["--until-decided"], "declares no claims that could be decided"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(words: list[str], says: str, tmp_path: Path) -> None:
    done = run(study(tmp_path / "s.yaml", claims=None), *words)
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "results").exists()


def test_seeds_of_one_claim_are_a_look_at_each_open_one_that_they_tell_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided, and what other trainings decide, is not looked at again."""
    rng = np.random.default_rng(0)
    ahead = {"a": 0.5 + 0.02 * rng.normal(size=3), "b": np.full(3, 0.5), "c": [0.61, 0.6, 0.59]}
    sides = {name: by_seed(list(values), distance=name) for name, values in ahead.items()}
    rows = pd.concat(made(*each).assign(train_key=[f"{of}{i}" for i in range(3)]) for each, of in [
        (sides["a"], "x"), (sides["b"], "x"), (sides["c"], "x"),
        (by_seed([0.5, 0.52, 0.53], distance="d"), "y"), (by_seed([0.5] * 3, distance="e"), "y"),
    ])  # fmt: skip
    rows = rows.assign(train_seconds=rows["train_key"].str[0].map({"x": 1.0, "y": 100.0}), score_seconds=1.0)
    pairs = {"first": "ab", "twin": "ab", "sure": "cb", "elsewhere": "de"}
    claims = {
        name: ClaimSpec(says="", left={"distance": left}, right={"distance": right})
        for name, (left, right) in pairs.items()
    }
    runs = [SimpleNamespace(seed=seed, but_seed=of, key=f"{of}{seed}") for of in "xy" for seed in range(3)]
    kept: list[Added] = []
    results = SimpleNamespace(added=Added, write_added=kept.append, image_errors=lambda: None, clusters=lambda: None)
    runner = SimpleNamespace(
        study=SimpleNamespace(claims=claims, file="s.yaml"),
        results=results,
        pipeline=SimpleNamespace(store=None),
        encoders=SimpleNamespace(train_key=lambda run: run.key),
        plan=SimpleNamespace(work=[SimpleNamespace(run=run) for run in runs]),
    )
    state = SimpleNamespace(runner=runner, outcome=SimpleNamespace(rows=rows))
    monkeypatch.setattr(verdicts, "POWER", 0.5)
    assert study_commands._more_seeds(state, 1e9)  # type: ignore[arg-type]
    assert kept[0].seeds.keys() == {"x"}
    assert kept[0].looks == {"first": 2, "twin": 2, "sure": 1, "elsewhere": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "wrong"), [(0.0, verdicts.HOLDS), (2.0, verdicts.FAILS)])
def test_all_looks_together_err_at_most_5_of_100(truth: float, wrong: str) -> None:
    """Of a difference at the edge of what the claim says: looked at again and again, as `run` adds seeds."""
    rng, studies, most = np.random.default_rng(0), 150, 60
    claim = ClaimSpec(says="", relation="above" if truth == 0 else "at_least", margin=truth, **SIDES)
    edge = -claim.least if claim.relation == "at_least" else claim.least
    right, left = (made(*by_seed([0.5] * most, distance=each)) for each in "ba")
    erred = 0
    for _ in range(studies):
        whole = pd.concat([right, left.assign(auroc=0.5 + (edge + 5 * rng.normal(size=most)) / 100)])
        n, looks = 3, 1
        while n <= most:
            (found,) = verdicts.verdicts(whole[whole["seed"] < n], {"c": claim}, looks={"c": looks})
            more = found.more_runs()
            if not more or more == verdicts.MOST:
                break
            n, looks = n + min(more, n), looks + 1
        erred += found.state == wrong
    assert erred <= 0.05 * studies + 2 * np.sqrt(0.05 * 0.95 * studies)
    assert erred > 0  # a test that never errs is no test


SIDES = {"left": {"distance": "a"}, "right": {"distance": "b"}}
