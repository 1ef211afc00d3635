"""The benchmarks run. That of scoring compares what both sides computed, and says whether a bar holds."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from typing import Any

import pytest
import torch
from places import ROOT

PERF = ROOT / "perf"


def run(*words: str, script: str = "scoring.py") -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the rows of a benchmark at a hundredth of its size."""
    command = [sys.executable, str(PERF / script), "--json", "--size", "0.01", "--rounds", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_rows_beside_libraries() -> None:
    code, rows = run("--dim", "8", "--only", "metrics-sklearn-with")
    assert len(rows) == 1
    for row in rows:
        assert row["ours_s"] > 0
        assert row["theirs_s"] > 0
        assert row["ratio"] == pytest.approx(row["theirs_s"] / row["ours_s"])
        assert row["holds"] == (row["ratio"] >= float(row["bar"].split()[1]))
    assert code == (not all(row["holds"] for row in rows))


@pytest.mark.parametrize(("generation", "units"), [(7, False), (8, True)])
def test_a_card_that_emulates_bf16_has_no_units_for_it(
    generation: int, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(PERF)
    spec = importlib.util.spec_from_file_location("perf_training", PERF / "training.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    card = types.SimpleNamespace(major=generation)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert script.bf16_units() is units


def test_rows_of_training() -> None:
    """A row whose bar is a least ratio, and one whose bar is a largest."""
    code, rows = run("--only", "augment-pil", "checkpoint", "--width", "8", script="training.py")
    assert len(rows) == 2
    for row in rows:
        assert row["ours_s"] > 0
        ratios = {">=": row["theirs_s"] / row["ours_s"], "<=": row["ours_s"] / row["theirs_s"]}
        sign, bar, _ = row["bar"].split()
        assert row["ratio"] == pytest.approx(ratios[sign])
        assert row["holds"] == (row["ratio"] >= float(bar) if sign == ">=" else row["ratio"] <= float(bar))
    assert code == (not all(row["holds"] for row in rows))
    assert rows[0]["images_per_s"] == pytest.approx(2 * 20 / rows[0]["ours_s"])
