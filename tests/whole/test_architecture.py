"""The architecture: which wing may import which is in pyproject.toml, what else holds of the tree is here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from places import ROOT

MOST = 13  # modules beside each other
PLUGINS = ("clustering", "distance", "posthoc", "threshold", "training")
ROOMS = [*(ROOT / "methods" / room for room in PLUGINS), ROOT / "datasets"]
HARNESS = sorted((ROOT / "oodbench").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] in ("oodbench", "methods", "datasets")}


def test_the_wings_keep_their_contracts() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_plugin_imports_contracts_errors_and_the_toolkit(room: Path) -> None:
    for path in room.glob("*.py"):
        for name in imports(path):
            assert name.startswith(("oodbench.api.", "oodbench.errors.", "oodbench.toolkit.")), path


@pytest.mark.slow
def test_the_harness_imports_no_plugin() -> None:
    for path in HARNESS:
        assert not {name for name in imports(path) if name.startswith(("oodbench.methods", "oodbench.datasets"))}, path


def test_no_folder_is_a_heap() -> None:
    assert len(HARNESS) > 50
    counts: dict[Path, int] = defaultdict(int)
    for path in HARNESS:
        counts[path.parent] += path.name != "__init__.py"
    assert {folder: count for folder, count in counts.items() if count > MOST} == {}


def test_a_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in HARNESS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.slow
def test_functions_and_classes_are_short() -> None:
    long = {}
    for path in HARNESS:
        for node in ast.walk(ast.parse(path.read_text())):
            most = {ast.FunctionDef: 50, ast.AsyncFunctionDef: 50, ast.ClassDef: 300}.get(type(node))
            if most is not None and node.end_lineno - node.lineno >= most:  # type: ignore[attr-defined]
                long[f"{path.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1  # type: ignore[attr-defined]
    assert long == {}


def test_only_the_command_line_prints() -> None:
    for path in HARNESS:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls), path


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["run", "--help"],
        ["tables", "nowhere.yaml"],
        ["report", "nowhere.yaml"],
        ["verdict", "nowhere.yaml"],
    ],
)
def test_commands_that_need_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom oodbench.cli.app import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"
