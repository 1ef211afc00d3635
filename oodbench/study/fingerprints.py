"""Fingerprints of code: hashes of what a module computes with, wherever it and what it imports lie.

Comments, docstrings and layout do not count, nor does the address of a module of ours: in place of an import line
stands what it names and the code of the module that it comes from. So a helper may be moved or renamed, and an edit of
it changes the fingerprint of everything that imports it. Every Python version gives the same fingerprint.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

from oodbench.errors import PluginError, UserError

_NO_ARITHMETIC = {"oodbench", "oodbench.api"}  # the package's own front and the contracts
_NO_MEANING = {"ctx", "kind", "type_comment"}  # fields of a syntax tree that repeat another, or say how it was written
_INSTALLED = {Path(sysconfig.get_path(each)).resolve() for each in ("stdlib", "platstdlib", "purelib", "platlib")}
loose_folders: dict[str, Path] = {}  # package of files that belong to none -> their folder, see registry.py


@cache
def fingerprint(module: str, path: Path) -> str:
    """Return a hash of a module's code and of the code of every module of its own kind that it imports.

    These are modules of ours, of its package, and files beside it. `oodbench.api` holds contracts and no arithmetic
    and is left out; so is every installed package: library versions are recorded in the rows.
    """
    first, *others = (_code(name, file) for name, file in modules(module, path).items())
    return _hash([first.text, *sorted({_hash([each.text]) for each in others if not each.empty})])[:16]


def fingerprint_module(module: str) -> str:
    """Return the fingerprint of an importable module."""
    path = module_file(module)
    if path is None:
        raise UserError(f"there is no module {module}")
    return fingerprint(module, path)


def syntax(path: Path) -> ast.Module:
    """Return the syntax tree of a plugin's file."""
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        at = path if error.lineno is None else f"{path}:{error.lineno}"
        raise PluginError(f"{at}: cannot be parsed: {error.msg}") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:  # not to be read, a NUL, nested too deep
        raise PluginError(f"{path}: cannot be read: {str(error) or type(error).__name__}") from error


class _Code(NamedTuple):
    """A module's code without its addresses."""

    tree: str  # the same in every Python version
    imports: list[tuple[list[str], str]]  # what its import lines of ours name, and from which module

    @property
    def text(self) -> str:
        return json.dumps([self.tree, sorted([*names, content(source)] for names, source in self.imports)])

    @property
    def empty(self) -> bool:
        return self.tree == json.dumps([ast.Module.__name__]) and not self.imports


def _code(module: str, path: Path) -> _Code:
    stamp = path.stat()
    return _read(module, path, stamp.st_mtime_ns, stamp.st_size)


@cache
def _read(module: str, path: Path, *stamp: int) -> _Code:
    own = _Own(module, path)
    tree = own.visit(_without_docstrings(syntax(path)))
    return _Code(json.dumps(_plain(tree)), own.found)


def content(module: str) -> str:
    """Return a hash of a module's code without what it imports of ours, which has a hash of its own."""
    path = None if module in _NO_ARITHMETIC else module_file(module)
    return _hash([_code(module, path).tree]) if path else ""


class _Own(ast.NodeTransformer):
    """Takes the imports of ours out of a syntax tree and keeps what they name."""

    def __init__(self, module: str, path: Path) -> None:
        self.module = module
        self.path = path
        self.found: list[tuple[list[str], str]] = []

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        own = [each for each in node.names if _is_own(each.name, self.module, self.path)]
        self.found += [([each.asname or each.name], each.name) for each in own]
        others = [each for each in node.names if each not in own]
        return ast.Import(others) if others else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        base = _base(node, self.module, self.path)
        if not _is_own(base, self.module, self.path):
            return node
        for each in node.names:
            bound, inner = each.asname or each.name, f"{base}.{each.name}"
            self.found.append(([bound], inner) if module_file(inner) else ([each.name, bound], base))
        return None


def _plain(node: Any) -> Any:
    """Return a syntax tree as nested lists, without fields that are empty: Python versions differ in these."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12 has empty strings between its parts
        node = ast.JoinedStr([each for each in node.values if getattr(each, "value", None) != ""])
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _NO_MEANING)
        return [type(node).__name__, *([name, _plain(value)] for name, value in fields if value not in (None, []))]
    return [_plain(each) for each in node] if isinstance(node, list) else repr(node)


def _hash(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def modules(module: str, path: Path) -> dict[str, Path]:
    """Return a module, and every module of its own kind that it imports, with the packages they are in, by name."""
    found = {module: path}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        parts = [source.split(".") for _, source in _code(name, found[name]).imports]
        for other in (".".join(each[:depth]) for each in parts for depth in range(len(each), 0, -1)):
            file = None if other in found or other in _NO_ARITHMETIC else module_file(other)
            if file is not None:
                found[other] = file
                waiting.append(other)
    return found


def _is_own(other: str, module: str, path: Path) -> bool:
    """Return whether what a module imports is of ours, of its package, or a file or package beside it."""
    top, own = other.partition(".")[0], module.partition(".")[0]
    if top in ("oodbench", own) or own == "oodbench":
        return top in ("oodbench", own)
    folder = path.resolve().parent
    above = [folder, *folder.parents]
    loose = next((f"{each}." for each in loose_folders if module.startswith(f"{each}.")), "")
    depth = module.removeprefix(loose).count(".")
    root = above[min(depth, len(above) - 1)]  # where its own package lies
    near = {folder, root} - set(_INSTALLED)
    if any((each / top).is_dir() for each in near) and module_file(top) is None:
        return True  # a package without `__init__.py`
    file = module_file(top)
    return file is not None and not near.isdisjoint((file.resolve().parent, file.resolve().parent.parent))


def _base(node: ast.ImportFrom, module: str, path: Path) -> str:
    """Return the module whose names a line imports."""
    inside = [*module.split("."), "__init__"] if path.name == "__init__.py" else module.split(".")
    parent = ".".join(inside[: -node.level]) if node.level else ""
    return ".".join(part for part in (parent, node.module or "") if part)


def module_file(name: str) -> Path | None:
    """Return the file of a module without importing it or its parents; None where there is none."""
    for package, folder in loose_folders.items():
        if name.startswith(f"{package}."):
            path = folder.joinpath(*name.removeprefix(f"{package}.").split("."))
            return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.is_file()), None)
    locations: Sequence[str] | None = None
    spec = None
    parts = name.split(".")
    for depth in range(len(parts)):
        full = ".".join(parts[: depth + 1])
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        try:
            spec = next((found for find in finders if find and (found := find(full, locations))), None)
        except KeyError:  # folders in folders, none with `__init__.py`: found once their parent is imported
            inner = [Path(each) / parts[depth] for each in locations or ()]
            spec = ModuleSpec(full, None, is_package=True)
            spec.submodule_search_locations = [str(each) for each in inner if each.is_dir()]
        if spec is None or (depth + 1 < len(parts) and spec.submodule_search_locations is None):
            return None
        locations = spec.submodule_search_locations
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def is_installed(file: Path) -> bool:
    """Return whether a file lies where packages are installed."""
    return any(file.resolve().is_relative_to(each) for each in _INSTALLED)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree
