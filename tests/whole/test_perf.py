"""The benchmarks run. That of scoring compares what both sides computed, and says whether a bar holds."""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import warm
from places import ROOT

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def perf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmarks find each other, and their processes start warm, to save time."""
    monkeypatch.syspath_prepend(ROOT / "perf")
    monkeypatch.setattr(importlib.import_module("measure"), "get_context", lambda method: warm.context)


@pytest.fixture
def run(perf: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def script(name: str, *words: str) -> tuple[int, list[dict[str, Any]]]:
        """Return the exit code and the rows of a benchmark at a hundredth of its size."""
        monkeypatch.setattr(sys, "argv", [name, "--json", "--size", "0.01", "--rounds", "1", *words])
        code = importlib.import_module(name).main()
        assert code in (0, 1)
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return script


def test_rows_beside_libraries(run: Run) -> None:
    code, rows = run("scoring", "--dim", "8", "--only", "metrics-sklearn-with")
    assert len(rows) == 1
    for row in rows:
        assert row["ours_s"] > 0
        assert row["theirs_s"] > 0
        assert row["ratio"] == pytest.approx(row["theirs_s"] / row["ours_s"])
        assert row["holds"] == (row["ratio"] >= float(row["bar"].split()[1]))
    assert code == (not all(row["holds"] for row in rows))


@pytest.mark.parametrize(("generation", "units"), [(7, False), (8, True)])
def test_a_card_that_emulates_bf16_has_no_units_for_it(
    generation: int, units: bool, perf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = importlib.import_module("training")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    card = types.SimpleNamespace(major=generation)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert script.bf16_units() is units


def test_rows_of_training(run: Run) -> None:
    """A row whose bar is a least ratio, and one whose bar is a largest."""
    code, rows = run("training", "--only", "augment-pil", "checkpoint", "--width", "8")
    assert len(rows) == 2
    for row in rows:
        assert row["ours_s"] > 0
        ratios = {">=": row["theirs_s"] / row["ours_s"], "<=": row["ours_s"] / row["theirs_s"]}
        sign, bar, _ = row["bar"].split()
        assert row["ratio"] == pytest.approx(ratios[sign])
        assert row["holds"] == (row["ratio"] >= float(bar) if sign == ">=" else row["ratio"] <= float(bar))
    assert code == (not all(row["holds"] for row in rows))
    assert rows[0]["images_per_s"] == pytest.approx(2 * 20 / rows[0]["ours_s"])
