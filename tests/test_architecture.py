"""Which room may import which: the architecture, written down once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What the modules of a room may import of ours; api and errors may be imported by all.
SHARED = {"oodbench.api", "oodbench.errors"}
ROOMS = {
    "methods/training": {"oodbench.toolkit.losses", "oodbench.toolkit.vectors"},
    "methods/clustering": {
        "oodbench.toolkit.clusters",
        "oodbench.toolkit.linear_algebra",
        "oodbench.toolkit.mixtures",
        "oodbench.toolkit.vectors",
    },
    "methods/distance": {"oodbench.toolkit.linear_algebra", "oodbench.toolkit.vectors"},
    "methods/threshold": set(),
    "methods/posthoc": {"oodbench.toolkit.linear_algebra", "oodbench.toolkit.pytorch_ood"},
    "datasets": {"oodbench.toolkit.image_files", "oodbench.toolkit.layouts", "oodbench.toolkit.raw_files"},
}
# What a module of the harness may import of ours.
HARNESS = {
    "api": {"fetching"},
    "errors": set(),
    "vectors": set(),
    "intervals": set(),
    "metrics": set(),
    "compat": {"metrics"},
    "environment": set(),
    "store": set(),
    "document": set(),
    "geometry": {"vectors"},
    "losses": {"vectors"},
    "clusters": {"geometry", "vectors"},
    "mixture": {"geometry"},
    "posthoc": set(),
    "protocol": set(),
    "registry": set(),
    "spec": set(),
    "columns": set(),
    "cookbook": {"document"},
    "claims": {"columns"},
    "suite": {"document"},
    "study": {"claims", "columns", "cookbook", "document", "protocol", "registry", "spec", "suite"},
    "grid": {"protocol", "spec", "study", "weights"},
    "learned": set(),
    "results": {"columns", "files"},
    "tables": {"columns", "grid", "learned", "study"},
    "targets": {"columns", "document", "grid", "registry", "spec", "study"},
    "against": {"columns", "files", "grid", "protocol", "registry", "spec", "tables", "targets"},
    "selection": {"columns", "learned", "study", "tables"},
    "verdict": {"claims", "columns", "files", "grid", "tables"},
    "augment": {"spec"},
    "encoder": {"spec", "vectors"},
    "weights": {"encoder", "spec", "store"},
    "data": {"augment", "images", "protocol", "spec"},
    "duplicates": set(),
    "audit": {"data", "duplicates", "files", "grid", "lab", "tables"},
    "space": {"geometry", "spec", "vectors"},
    "probe": set(),
    "seeds": set(),
    "allocator": set(),
    "optim": {"spec"},
    "world": set(),
    "feed": {"augment", "data", "seeds", "spec", "world"},
    "stages": {"allocator", "augment", "encoder", "feed", "grid", "optim", "seeds", "spec", "world"},
    "distributed": {"feed", "registry", "spec", "stages", "world"},
    "scoring": {
        *("compat", "files", "geometry", "grid", "intervals", "metrics", "seeds", "space", "spec", "stages", "vectors"),
    },
    "checkpoint": {"stages", "store"},
    "lab": {
        *("checkpoint", "data", "distributed", "duplicates", "environment", "feed", "fetching", "grid", "probe"),
        *("registry", "scoring", "seeds", "spec", "stages", "store", "study", "weights"),
    },
    "preparation": {"environment", "fetching", "files", "grid", "lab", "raw", "store", "study", "suite"},
    "runner": {
        *("audit", "augment", "data", "distributed", "document", "encoder", "environment", "feed", "finished", "grid"),
        *("lab", "registry", "results", "scoring", "stages", "study"),
    },
    "files": set(),
    "images": set(),
    "layouts": {"images", "raw"},
    "raw": set(),
    "fetching": {"raw"},
    "finished": {"document", "files"},
    "features": set(),
    "score": {
        *("data", "environment", "features", "files", "grid", "lab", "probe", "registry", "results", "runner"),
        *("scoring", "seeds", "spec", "stages", "study"),
    },
    "export": {"features", "grid", "lab", "scoring", "spec", "stages", "study"},
    "quality": {"geometry"},
    "survey": {"files", "geometry", "grid", "lab", "quality", "registry", "results", "scoring", "spec", "stages"},
    "curve": {"columns", "files", "grid", "quality", "results", "runner", "study", "survey", "tables"},
    "correlation": {"files", "grid", "quality", "results", "study", "tables"},
    "estimate": {"encoder", "feed", "grid", "lab", "runner", "spec", "stages"},
    "standin": {"seeds", "spec"},
    "dry": {"columns", "grid", "protocol", "registry", "spec", "standin", "study", "weights"},
    "gc": {"audit", "checkpoint", "grid", "lab", "runner", "store", "study"},
    "board": set(),
    "workers": set(),
    "stub": {"registry"},
    "conformance": {"data", "encoder", "geometry", "grid", "metrics", "registry", "spec", "stages", "vectors"},
    "cli": {
        *("against", "audit", "board", "columns", "conformance", "cookbook", "correlation", "curve", "document", "dry"),
        *("estimate", "export", "fetching", "finished", "gc", "grid", "lab", "learned", "preparation", "registry"),
        *("results", "runner", "score", "scoring", "selection", "store", "stub", "study", "suite", "survey", "tables"),
        *("targets", "verdict", "workers"),
    },
    "__init__": {"lab", "results", "runner", "study"},
}
NO_TORCH = (
    "against",
    "api",
    "claims",
    "columns",
    "compat",
    "cookbook",
    "document",
    "environment",
    "errors",
    "files",
    "finished",
    "grid",
    "intervals",
    "learned",
    "metrics",
    "protocol",
    "registry",
    "results",
    "selection",
    "spec",
    "store",
    "study",
    "suite",
    "tables",
    "targets",
    "verdict",
)


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            whole = node.module == "oodbench"
            found |= {f"oodbench.{a.name}" for a in node.names} if whole else {node.module or ""}
    return {name for name in found if name.partition(".")[0] in ("oodbench", "methods", "datasets")}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may(room: str) -> None:
    for path in (ROOT / room).glob("*.py"):
        assert imports(path) <= ROOMS[room] | SHARED, path


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in (ROOT / "oodbench").glob("*.py")} == set(HARNESS)


@pytest.mark.parametrize("module", HARNESS)
def test_a_module_imports_what_it_may(module: str) -> None:
    allowed = {f"oodbench.{name}" for name in HARNESS[module]} | SHARED | {"oodbench"}
    assert imports(ROOT / "oodbench" / f"{module}.py") <= allowed


def test_only_the_command_line_prints() -> None:
    for path in (ROOT / "oodbench").glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = any(isinstance(call, ast.Name) and call.id == "print" for call in calls)
        assert not prints, path


def test_the_harness_names_no_method_and_no_data_set() -> None:
    """No string or name in the harness is the name of a plugin, but for words that mean something else, too."""
    common = {
        "f1",
        "ssd",
        "arrays",
        "csv",
        "folder",
        "parquet",
        "cider",
        "labels",
        "norm",
        "one",
        "noise",
        "pooled",
        "per_cluster",
        "cosine",
        "knn",
        "scale",
        "temperature",
    }
    folders = [ROOT / room for room in ROOMS]
    names = {path.stem for folder in folders for path in folder.glob("*.py")} - common - {"__init__"}
    for path in (ROOT / "oodbench").glob("*.py"):
        tree = ast.parse(path.read_text())
        strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        assert not names & (strings | used), path


@pytest.mark.parametrize("module", NO_TORCH)
def test_modules_that_start_at_once(module: str) -> None:
    code = f"import sys, oodbench.{module}; print(sorted({{'torch', 'sklearn', 'timm'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    "words", [["--help"], ["list"], ["run", "--help"], ["tables", "nowhere.yaml"], ["verdict", "nowhere.yaml"]]
)
def test_commands_that_need_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom oodbench.cli import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"
