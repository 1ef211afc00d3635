"""What detectors are said to cost, held against arrays whose sizes are known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from torch import Tensor

import oodbench
from oodbench.scoring import costs

CPU = torch.device("cpu")
EDGE = torch.zeros(5)


@dataclass
class Model:
    weight: Tensor
    parts: dict[str, Any]

    def score(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_what_is_quick_is_timed_again_and_what_is_slow_is_not() -> None:
    pauses = iter([0.02, 0.001, 0.01])
    assert costs.repeated(lambda: time.sleep(next(pauses)), CPU)[1] < 0.01
    assert next(pauses, None) is None
    calls: list[float] = []
    costs.repeated(lambda: calls.append(time.sleep(1.1 * costs.QUICK)), CPU)  # type: ignore[func-returns-value]
    assert len(calls) == 1


def test_a_scorer_holds_what_its_closure_and_what_that_holds_reach() -> None:
    bank, mean, unused = torch.zeros(100, 4), np.zeros(7), torch.zeros(1000)
    inner = Model(torch.zeros(4, 2, dtype=torch.float64), {"again": bank[:3], "mean": [mean[2:]]})

    def score(x: Tensor, edge: Tensor = EDGE) -> Any:
        return partial(inner.score, x), bank, edge

    assert len(unused) == 1000
    assert costs.held(score) == 100 * 4 * 4 + 4 * 2 * 8 + 7 * 8 + 5 * 4
    assert costs.held(inner.score) == 100 * 4 * 4 + 4 * 2 * 8 + 7 * 8
    assert costs.held(torch.cdist) == costs.held(lambda x: x) == 0


def test_seconds_are_those_of_the_work() -> None:
    made, seconds = costs.timed(lambda: time.sleep(0.05) or 3, CPU)
    assert made == 3
    assert 0.05 <= seconds < 1


def test_rows_say_what_their_detector_costs() -> None:
    rng, n, width = np.random.default_rng(0), 120, 8
    labels = rng.integers(0, 3, n)
    features = (rng.normal(size=(n, width)) + 5 * np.eye(width)[labels]).astype(np.float32)
    test = {"OOD": rng.normal(size=(40, width)).astype(np.float32)}
    grid: dict[str, Any] = {"distance": ["cosine", {"knn": {"k": [1, 5]}}], "clustering": "labels"}
    grid |= {"posthoc": "energy", "threshold": "pooled"}
    with pytest.warns(UserWarning, match=r"^rows warn: .* of scores tied: knn"):
        rows = oodbench.score({"features": features, "labels": labels}, features + 0.1, ood=test, grid=grid)
    held = rows.groupby("distance")["fitted_bytes"].first()
    assert held["cosine"] == 3 * width * 8
    head = rows[rows["posthoc"] != "–"]["fitted_bytes"].iloc[0]
    assert head in {4 * 3 * (width + 1), 8 * 3 * (width + 1)}  # weights and biases of three classes
    kept = rows["n_train"].iloc[0]
    assert held["knn(k=1)"] == held["knn(k=5)"]
    assert held["knn(k=1)"] >= kept * width * 4
    assert rows[["fit_seconds", "item_seconds"]].gt(0).all(axis=None)
    assert (rows["item_seconds"] * n < 5).all()


def test_older_rows_do_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(ROOT / "results" / "published"))
    rows = oodbench.rows(ROOT / "benchmark.yaml")
    assert rows["fitted_bytes"].isna().all()
    assert rows["score_seconds"].notna().all()
