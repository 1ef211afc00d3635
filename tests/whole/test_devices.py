"""Studies on each device that there is: the same rows twice, and the rows that the CPU has of the same features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import call
from tiny import TINY, write

from oodbench.store.rows import Results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DISTANCES = [
    *("cosine", "euclidean", "mahalanobis", {"mahalanobis": {"covariance": "per_cluster", "singular": "shrink"}}),
    *("relative_mahalanobis", "density", {"local": {"k": 5}}, {"knn": {"k": [1, 5]}}, "norm", "gmm_likelihood"),
]
GRID: dict[str, Any] = {"distance": DISTANCES, "clustering": ["labels", "kmeans", "gmm"], "threshold": "pooled"}
GRID |= {"posthoc": ["msp", "energy", "gen", "react", "ash", "vim", "fdbd", "kl_matching"]}
NUMBERS = ["auroc", "fpr95_id", "accuracy", "cut"]


def rows(folder: Path) -> pd.DataFrame:
    found = Results(folder).current()
    assert set(found["status"]) == {"ok"}, found["error"].unique()
    return found.set_index(["cell", "ood"]).sort_index()


def test_a_study_twice_has_the_same_rows(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of float32 and bf16, with every kind of view, trained from nothing in its own store: to the last bit."""
    augment = {"crop": [0.5, 1.0], "rotate": 10, "translate": 0.1, "blur": 0.5, "erase": 0.3}
    recipe = TINY["recipe"] | {"augment": augment}
    found = []
    for name, options in {"one": [], "other": [], "without a graph": ["--no-graph"]}.items():
        monkeypatch.setenv("OODBENCH_RESULTS", str(tmp_path / name))
        file = write(tmp_path / "s.yaml", recipe=recipe, precision=["float32", "bf16"])
        assert call("run", file, "--device", device, "--rows-only", *options).exit_code == 0
        found.append(rows(tmp_path / name / "s"))
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0][NUMBERS], other[NUMBERS], check_exact=True)
    assert set(found[0]["device"].str.partition(":")[0]) == {device}


def test_the_same_features_have_the_same_scores(device: str, tmp_path: Path) -> None:
    """Of features that the CPU made: detectors on a device against those on the CPU."""
    file = write(tmp_path / "s.yaml", **GRID)
    assert call("run", file, "--device", "cpu", "--rows-only").exit_code == 0
    cpu = rows(tmp_path / "results" / "s")
    again = call("run", file, "--device", device, "--redo", "score", "--rows-only")
    assert again.exit_code == 0
    assert f"{cpu.index.get_level_values('cell').nunique()} cells scored" in again.output
    other = rows(tmp_path / "results" / "s")
    whole = other["warnings"] == ""  # a rank that is cut at rounding may differ
    assert whole.mean() > 0.5
    assert (other["auroc"] - cpu["auroc"])[whole].abs().max() <= (0 if device == "cpu" else 1e-3)
