"""The benchmark of scoring runs, compares what both sides computed, and says whether a bar holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "perf" / "scoring.py"


def run(*words: str, dim: int = 8) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the rows of the benchmark at a hundredth of its size."""
    command = [sys.executable, str(SCRIPT), "--json", "--size", "0.01", "--dim", str(dim), "--rounds", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_rows_beside_libraries() -> None:
    code, rows = run("--only", "mahalanobis-10", "knn-five", "gmm-tied-10", "metrics-sklearn-with")
    assert len(rows) == 4
    for row in rows:
        assert row["ours_s"] > 0
        assert row["theirs_s"] > 0
        assert row["ratio"] == pytest.approx(row["theirs_s"] / row["ours_s"])
        assert row["holds"] == (row["ratio"] >= float(row["bar"].split()[1]))
    assert code == (not all(row["holds"] for row in rows))
