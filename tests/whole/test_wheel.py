"""The wheel holds the package alone, and runs a study away from the source tree."""

from __future__ import annotations

import os
import re
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
        "benchmark.yaml",
        "studies/openood_cifar10.yaml",
        "demo/train.safetensors",
    ):
        assert f"oodbench/{name}" in names
    assert not [name for name in names if "test" in name]


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run([sys.executable, "-m", *command], check=True)
    return folder


def run(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of an installed wheel in another folder."""
    env = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env, check=False)


def test_an_installed_wheel_runs_a_study(site: Path, tmp_path: Path) -> None:
    found = "[find_spec(name).origin for name in ('oodbench', 'oodbench.methods.training.simclr')]"
    where = f"from importlib.util import find_spec; print(*{found})"
    done = run(site, tmp_path, sys.executable, "-c", where)
    assert all(file.startswith(str(site)) for file in done.stdout.split())
    study = write(tmp_path / "s.yaml", training="simclr")
    done = run(site, tmp_path, str(site / "bin" / "oodbench"), "run", str(study))
    assert done.returncode == 0, done.stderr
    assert "1 trained" in done.stdout


def test_an_installed_wheel_has_the_studies_by_name_and_a_demo(site: Path, tmp_path: Path) -> None:
    oodbench = str(site / "bin" / "oodbench")
    done = run(site, tmp_path, oodbench, "tables", "default")
    assert "results/benchmark/rows; run the study first, or" in done.stderr
    done = run(site, tmp_path, oodbench, "demo", "--no-open")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("results/demo/report.html\n")
    page = (tmp_path / "results" / "demo" / "report.html").read_text()
    assert re.search(r"[1-9]\d* rows, [1-9]\d* cells, 1 training", page)
    assert "Ours beside published" not in page  # there is no study to hold against it
