"""Plugins are found by folder, by entry point and by path; fingerprints follow code and nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from oodbench.errors import PluginError, UserError
from oodbench.study.fingerprints import fingerprint, fingerprint_module, modules
from oodbench.study.registry import ROOMS, Registry, load, source_of, summary

OWN = '''"""A user's distance, nobody 2026."""
from __future__ import annotations

from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer


class Mine(Distance):
    """Mine."""

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        return None  # a comment
'''


def test_every_room_of_the_repository_is_found() -> None:
    registry = Registry()
    for room in ROOMS:
        folder = ROOT / ("datasets" if room == "dataset" else f"methods/{room}")
        on_disk = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
        assert on_disk
        assert set(registry.sources(room)) >= on_disk


def test_listing_imports_nothing() -> None:
    code = (
        "import sys; from oodbench.study.registry import *; r = Registry(); "
        "print([summary(s) for room in ROOMS for s in r.sources(room).values()] and 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_summary_is_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    assert summary(source_of(tmp_path / "mine.py")) == "A user's distance, nobody 2026."


def test_a_file_in_a_folder_is_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "distance").mkdir()
    (tmp_path / "distance" / "mine.py").write_text(OWN)
    (tmp_path / "distance" / "_private.py").write_text("raise RuntimeError")
    registry = Registry([tmp_path])
    cls = registry.load("distance", "mine")
    assert (cls.__name__, cls.name, cls().label) == ("Mine", "mine", "mine")
    assert "_private" not in registry.sources("distance")


def test_an_entry_point_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("theirs", "their_package", "oodbench.distance")
    monkeypatch.setattr("oodbench.study.registry.entry_points", lambda: importlib.metadata.EntryPoints([point]))
    assert Registry().load("distance", "theirs")().label == "theirs"


@pytest.mark.parametrize(
    ("line", "said"),
    [("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"), ("", "a parameter's type cannot be read")],
)
def test_plugins_that_end_python_or_name_no_type(tmp_path: Path, line: str, said: str) -> None:
    text = OWN.replace('"""Mine."""', '"""Mine."""\n\n    k: Nothing = 3') + f"\n{line}\n"
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=said):
        load(source_of(tmp_path / "mine.py"))


def test_an_entry_point_of_nothing_hurts_only_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("theirs", "no_such_package.methods", "oodbench.distance")
    monkeypatch.setattr("oodbench.study.registry.entry_points", lambda: importlib.metadata.EntryPoints([point]))
    assert Registry().load("distance", "cosine").name == "cosine"
    with pytest.raises(UserError, match="there is no module no_such_package"):
        Registry().source("distance", "theirs")


def test_files_of_a_folder_import_each_other_and_count_together(tmp_path: Path) -> None:
    helper = tmp_path / "_helper.py"
    helper.write_text("VALUE = 3\n")
    (tmp_path / "mine.py").write_text(OWN.replace("from torch", "from ._helper import VALUE\nfrom torch", 1))
    source = source_of(tmp_path / "mine.py")
    assert sys.modules[load(source).__module__].__dict__["VALUE"] == 3
    before = Registry([tmp_path]).fingerprint("distance", "mine")
    helper.write_text("VALUE = 4\n")
    fingerprint.cache_clear()
    assert Registry([tmp_path]).fingerprint("distance", "mine") != before


@pytest.mark.slow
def test_an_installed_package_brings_plugins(tmp_path: Path) -> None:
    """The same through real metadata, in a fresh interpreter."""
    (tmp_path / "their_package.py").write_text(OWN)
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[oodbench.distance]\ntheirs = their_package\n")
    code = "from oodbench.study.registry import Registry; print(Registry().load('distance', 'theirs')().label)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert run.stdout == "theirs\n"


def test_an_unknown_name_has_a_nearest_match() -> None:
    with pytest.raises(UserError, match="there is no distance 'cosin'; did you mean 'cosine'"):
        Registry().source("distance", "cosin")


def written(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    return fingerprint(name, path)


def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path) -> None:
    plain = written(tmp_path, "a", OWN)
    other = OWN.replace("# a comment", "").replace('"""Mine."""', '"""Other words."""\n').replace("A user's", "Some")
    path = tmp_path / "other"
    path.mkdir()
    assert plain == written(path, "a", other)


def test_code_counts(tmp_path: Path) -> None:
    plain = written(tmp_path, "a", OWN)
    path = tmp_path / "other"
    path.mkdir()
    assert plain != written(path, "a", OWN.replace("return None", "return 1"))


def test_the_code_of_imported_modules_of_the_same_package_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "their_methods"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("from their_methods import deep\nA = 1\n")
    (package / "deep.py").write_text("B = 1\n")
    (package / "plugin.py").write_text("from .helper import A\nimport numpy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    first = fingerprint_module("their_methods.plugin")
    (package / "deep.py").write_text("B = 2\n")
    fingerprint.cache_clear()
    assert fingerprint_module("their_methods.plugin") != first
    assert "their_methods" not in sys.modules


def test_a_fingerprint_follows_losses_but_not_contracts() -> None:
    source = Registry().source("training", "supcon")
    found = set(modules(source.module, source.path)) - {"oodbench.toolkit"}  # whose own file holds no code
    assert found == {"oodbench.methods.training.supcon", "oodbench.toolkit.losses", "oodbench.toolkit.vectors"}


def test_loading_twice_gives_the_same_class(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    source = source_of(tmp_path / "mine.py")
    assert load(source) is load(source)


def test_what_lies_among_plugins_hurts_nobody(tmp_path: Path) -> None:
    """Whatever bears the name of a Python file; `os.mkfifo` makes one whose reader waits for ever."""
    folder = tmp_path / "mine"
    (folder / "folder.py").mkdir(parents=True)
    (folder / "dangling.py").symlink_to(tmp_path / "nowhere.py")
    (folder / "loop.py").symlink_to(folder / "loop.py")
    os.mkfifo(folder / "pipe.py")
    (folder / "nul.py").write_bytes(b"x = 1\0")
    (folder / "latin.py").write_bytes(b"x = '\xe9'\n")
    (folder / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    found = Registry([folder, *(folder / f"{name}.py" for name in ("nul", "latin", "deep"))])
    assert set(found.broken) == {"nul", "latin", "deep"}
    assert found.source("distance", "cosine").name == "cosine"
    for name in ("nul", "latin", "deep"):
        with pytest.raises(PluginError, match=f"{name}.py"):
            found.source("distance", name)
    for name in ("dangling", "loop", "pipe"):
        with pytest.raises(UserError, match=f"there is no file or folder .*{name}.py"):
            Registry([folder / f"{name}.py"])
