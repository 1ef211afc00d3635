"""A new method is one file: nothing else of the repository has to be edited for it, and what lists methods finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filled_stubs import FILLED
from places import ROOT

COPIED = ["oodbench", "methods", "datasets", "tests/helpers", "tests/conftest.py", "pyproject.toml", "docs/plugins.md"]
TESTS = ["tests/whole/test_architecture.py", "tests/conformance/test_conformance.py"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository without data, results and other tests."""
    root = tmp_path / "copy"
    for name in COPIED + TESTS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    return root


def call(copy: Path, *words: str) -> str:
    """Run a module in the copy, whose package and rooms are what is installed, and return what it printed."""
    site = copy.parent / "site" / "oodbench"
    if not site.exists():
        site.mkdir(parents=True)
        for path in [*(copy / "oodbench").iterdir(), copy / "methods", copy / "datasets"]:
            (site / path.name).symlink_to(path)
    env = os.environ | {"PYTHONPATH": str(site.parent), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=copy, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_distance_is_one_file(copy: Path) -> None:
    call(copy, "oodbench", "new", "distance", "my_distance", "--folder", "methods/distance")
    file = copy / "methods" / "distance" / "my_distance.py"
    old, new = (text.replace("my_own", "my_distance") for text in FILLED["distance"])
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert "distance my_distance" in call(copy, "oodbench", "check", "methods/distance/my_distance.py")
    said = call(copy, "pytest", "-q", "-p", "no:cacheprovider", *TESTS, "-k", "test_architecture or my_distance")
    assert "failed" not in said
    call(copy, "oodbench", "list", "--markdown", "docs/plugins.md")
    assert "### `my_distance`\n\nMyDistance, authors, year" in (copy / "docs" / "plugins.md").read_text(
        encoding="utf-8"
    )
