"""Fingerprints are of content, not of addresses: what is moved or renamed keeps its own, what is edited does not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oodbench.study import fingerprints
from oodbench.study.fingerprints import fingerprint, fingerprint_module, modules

Package = Callable[..., str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Return how to write the files of a package and take the fingerprint of its module `plugin`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, **files: str) -> str:
        for path, text in files.items():
            file = tmp_path / name / f"{path.replace('__in__', '/')}.py"
            for folder in (tmp_path / name, file.parent):
                folder.mkdir(exist_ok=True)
                (folder / "__init__.py").write_text('"""A folder."""\n')
            file.write_text(text)
        fingerprint.cache_clear()
        return fingerprint_module(f"{name}.plugin")

    yield write
    fingerprint.cache_clear()


def test_a_helper_that_moves_or_is_renamed_changes_nothing(package: Package) -> None:
    plain = package(
        "a", plugin="from a.helper import f\nX = f(1)\n", helper="from a.deep import g\nf = g\n", deep="g = 1\n"
    )
    assert plain == package(
        "b",
        plugin="from b.tools.renamed import f\nX = f(1)\n",
        tools__in__renamed="from b.deeper import g\nf = g\n",
        deeper="g = 1\n",
    )
    assert plain == package(
        "c", plugin="from .helper import f\nX = f(1)\n", helper="from .deep import g\nf = g\n", deep="g = 1\n"
    )


def test_the_order_of_import_lines_changes_nothing(package: Package) -> None:
    """A move changes it: import lines are sorted by address."""
    helpers = {"one": "f = 1\n", "two": "g = 2\n", "zero": "f = 1\n"}
    first = package("a", plugin="from a.one import f\nfrom a.two import g\nX = f + g\n", **helpers)
    assert first == package("b", plugin="from b.two import g\nfrom b.zero import f\nX = f + g\n", **helpers)


def test_a_module_that_is_imported_whole_may_move(package: Package) -> None:
    first = package("a", plugin="from a import helper\nX = helper.f\n", helper="f = 1\n")
    assert first == package("b", plugin="from b.tools import helper\nX = helper.f\n", tools__in__helper="f = 1\n")
    assert first != package("c", plugin="from c import helper\nX = helper.f\n", helper="f = 2\n")


@pytest.mark.parametrize(
    "change",
    [
        {"plugin": "from {}.helper import f\nX = f(2)\n"},
        {"helper": "from {}.deep import g\nf = g + 1\n"},
        {"deep": "g = 2\n"},
        {"plugin": "from {}.helper import g as f\nX = f(1)\n"},
        {"plugin": "from {}.other import f\nX = f(1)\n"},
    ],
)
def test_what_is_edited_or_comes_from_elsewhere_changes_it(package: Package, change: dict[str, str]) -> None:
    files = {
        "plugin": "from {}.helper import f\nX = f(1)\n",
        "helper": "from {}.deep import g\nf = g\n",
        "deep": "g = 1\n",
        "other": "f = 7\n",
    }
    first, other = (
        {each: text.format(name) for each, text in kind.items()} for name, kind in (("a", files), ("b", files | change))
    )
    assert package("a", **first) != package("b", **other)


def test_code_of_a_package_itself_counts(package: Package, tmp_path: Path) -> None:
    first = package("a", plugin="from a.tools.helper import f\n", tools__in__helper="f = 1\n")
    (tmp_path / "a" / "tools" / "__init__.py").write_text("import torch\ntorch.set_num_threads(1)\n")
    fingerprint.cache_clear()
    assert fingerprint_module("a.plugin") != first


def test_modules_that_import_each_other(package: Package) -> None:
    files = {"plugin": "from {}.helper import f\n", "helper": "from {} import plugin\nf = 1\n"}
    first, second = ({each: text.format(name) for each, text in files.items()} for name in "ab")
    assert package("a", **first) == package("b", **second)
    assert package("b", **second | {"helper": "from b import plugin\nf = 2\n"}) != package("a", **first)


def test_a_file_beside_a_file_counts_and_an_installed_package_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder of one's own, mynet.py, that imports the blocks.py beside it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mynet.py").write_text("import numpy\nimport blocks_of_mine\nX = blocks_of_mine.f\n")
    blocks = tmp_path / "blocks_of_mine.py"
    blocks.write_text("f = 1\n")
    fingerprint.cache_clear()
    first = fingerprint_module("mynet")
    assert list(modules("mynet", tmp_path / "mynet.py").values()) == [tmp_path / "mynet.py", blocks]
    blocks.write_text("f = 22\n")
    fingerprint.cache_clear()
    assert fingerprint_module("mynet") != first
    assert "mynet" not in sys.modules


@pytest.mark.parametrize(
    ("encoder", "line", "helper"),
    [
        ("net_a.py", "from parts_a.blocks import f", "parts_a/blocks.py"),  # no __init__.py
        ("pkg_b/enc.py", "from common_b import f", "common_b.py"),  # beside its package
        ("pkg_c/__init__.py", "from .blocks import f", "pkg_c/blocks.py"),
        ("pkg_d/__init__.py", "from . import blocks", "pkg_d/blocks.py"),
        ("pkg_e/inner/__init__.py", "from ..blocks import f", "pkg_e/blocks.py"),
    ],
)
def test_helpers_around_a_file_count(
    encoder: str, line: str, helper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in {"pkg_b/__init__.py": "", encoder: f"{line}\n", helper: "f = 1\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    module = encoder.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    fingerprint.cache_clear()
    first = fingerprint_module(module)
    (tmp_path / helper).write_text("f = 22\n")
    fingerprint.cache_clear()
    assert fingerprint_module(module) != first


def test_what_lies_beside_oodbench_is_not_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `pip install --target`, which puts libraries beside it into a folder that Python does not know."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_library").mkdir()
    (tmp_path / "a_library" / "__init__.py").write_text("")
    assert not fingerprints._is_own("a_library", "oodbench.methods.posthoc.vim", tmp_path / "oodbench" / "vim.py")
    assert fingerprints._is_own("a_library", "mine.enc", tmp_path / "mine" / "enc.py")


def test_a_plugin_near_the_root_of_the_disk_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fingerprints.loose_folders, "oodbench_plugins.p0", Path("/p"))
    assert not fingerprints._is_own("json", "oodbench_plugins.p0.x", Path("/p/x.py"))
    assert not fingerprints._is_own("json", "a.b.c.d", Path("/p/x.py"))


EVERY_SYNTAX = '''
"""A docstring."""
from __future__ import annotations
import math as m, os
from dataclasses import dataclass
TEXT = f"{m.pi!r:>{10}} {os.name} {'a' 'b'} {{}}" u"x"
BYTES = b"y".decode()
@dataclass(frozen=True)
class A(object, metaclass=type):
    x: int = 1_000
    def f(self, /, a, *b: int, c=None, **d) -> "str":
        """Words."""
        return [i async for i in a] if not a else {**d, "e": (yield)}
async def g(x):
    match x:
        case {"a": [1, *rest], **others} if rest: pass
        case A(x=1) | None: return ...
    with open(x) as s, s: pass
    try: del x
    except* ValueError as e: raise e from None
    else: (y := -1j)
    finally: lambda *, k=0: k @ 1e-3 // True
'''


def test_every_python_version_gives_the_same_fingerprint(tmp_path: Path) -> None:
    """It is pinned: syntax trees differ between versions, and keys that followed them would not travel."""
    file = tmp_path / "syntax.py"
    file.write_text(EVERY_SYNTAX)
    assert fingerprint("syntax", file) == "6f0151732074e85f"
