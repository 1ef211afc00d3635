"""The benchmarks run. That of scoring compares what both sides computed, and says whether a bar holds."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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


def test_the_acceptance_of_a_card_tries_itself_on_the_cpu(tmp_path: Path) -> None:
    """Its smallest part, as a command: a table and JSON of the same findings."""
    words = [sys.executable, str(ROOT / "perf" / "cuda.py"), "--device", "cpu", "--size", "tiny", "--parts", "score"]
    done = subprocess.run([*words, "--to", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))
    assert {each["part"] for each in found} == {"machine", "score"}
    distances = [each for each in found if each["name"].startswith("distance")]
    assert len(distances) > 8
    assert all(each["holds"] for each in distances)
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == done.stdout[done.stdout.index("\n\n") + 2 :]


def test_a_part_that_breaks_is_a_finding_and_the_others_are_kept(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "perf" / "cuda.py"), "--device", "nowhere", "--parts", "score"]
    done = subprocess.run([*words, "--to", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    found = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))
    assert [(each["part"], each["holds"]) for each in found if each["name"] == "the part as a whole"] == [
        ("machine", False),
        ("score", False),
    ]


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
