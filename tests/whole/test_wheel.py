"""The wheel holds the package alone, and runs a study away from the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT
from tiny import write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that building leaves nothing in the repository
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        target = source / name
        if (ROOT / name).is_file() and not name.startswith("results/published/"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        ".",
    ]
    subprocess.run(command, cwd=source, check=True)
    (found,) = folder.glob("oodbench-*.whl")
    return found


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"oodbench"}
    for name in (
        "methods/training/simclr.py",
        "methods/distance/knn.py",
        "datasets/digits.py",
        "py.typed",
        "cli/__init__.py",
        "recipes/fast.yaml",
        "published/ssd.csv",
        "published/elsewhere.yaml",
        "suites/openood.yaml",
        "figures/assets/page.html.j2",
        "figures/assets/tabulator.min.js",
        "figures/assets/LICENSE-plot.txt",
    ):
        assert f"oodbench/{name}" in names
    assert not [name for name in names if "test" in name]


def test_an_installed_wheel_runs_a_study(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(command, check=True)
    env = os.environ | {"PYTHONPATH": str(site)}
    found = "[find_spec(name).origin for name in ('oodbench', 'oodbench.methods.training.simclr')]"
    where = f"from importlib.util import find_spec; print(*{found})"
    run = subprocess.run(
        [sys.executable, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path, env=env
    )
    assert all(file.startswith(str(site)) for file in run.stdout.split())
    study = write(tmp_path / "s.yaml", training="simclr")
    command = [str(site / "bin" / "oodbench"), "run", str(study)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert run.returncode == 0, run.stderr
    assert "1 trained" in run.stdout
