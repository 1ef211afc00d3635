"""Names to plugin classes, by listing rooms, entry points and the folders that a study names.

Listing reads file names and syntax trees only; a plugin is imported when a grid names it, so a broken
or heavy plugin hurts nobody but its user. The files of one folder that belongs to no package make up a package of
their own: a plugin may import its neighbours (`from .helper import f`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

from oodbench.api import CONTRACTS, Plugin
from oodbench.errors import PluginError, UserError, suggestion
from oodbench.store.process import PLUGINS, Kept
from oodbench.study.fingerprints import fingerprint, loose_folders, module_file, syntax

ROOMS = {room: f"oodbench.methods.{room}" for room in CONTRACTS} | {"dataset": "oodbench.datasets"}


@dataclass(frozen=True)
class PluginFile:
    """Where a plugin is, known without importing it."""

    room: str
    name: str
    module: str
    path: Path


class Registry:
    """The plugins of the package, of installed packages, and of `folders` (files or folders of a study)."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._sources: dict[str, dict[str, PluginFile]] = {room: {} for room in ROOMS}
        self.broken: dict[str, PluginError] = {}  # name -> why its file or entry point cannot be used
        for found in [*_built_in(), *_installed(), *_from_folders(folders)]:
            if isinstance(found, PluginFile):
                self._add(found)
            else:
                self.broken.update([found])

    def _add(self, source: PluginFile) -> None:
        known = self._sources[source.room]
        other = known.setdefault(source.name, source)
        if other.path.resolve() != source.path.resolve():
            both = f"two plugins are named '{source.name}' in {source.room}: {other.path} and {source.path}"
            self.broken[source.name] = PluginError(both)

    def sources(self, room: str) -> dict[str, PluginFile]:
        """Return the plugins of a room by name, sorted."""
        return dict(sorted(self._sources[room].items()))

    def source(self, room: str, name: str) -> PluginFile:
        if name in self.broken:
            raise self.broken[name]
        if name not in self._sources[room]:
            raise UserError(f"there is no {room} '{name}'{suggestion(name, self._sources[room])}")
        return self._sources[room][name]

    def load(self, room: str, name: str) -> type[Plugin]:
        """Import a plugin and return its class."""
        return load(self.source(room, name))

    def fingerprint(self, room: str, name: str) -> str:
        """Return a hash of a plugin's code and of the code of ours that it imports."""
        source = self.source(room, name)
        return fingerprint(source.module, source.path)


def load(source: PluginFile) -> type[Plugin]:
    """Import the file of a plugin and return the one class it defines."""
    module = _import(source)
    contract = CONTRACTS[source.room]
    classes = (each for each in vars(module).values() if isinstance(each, type) and issubclass(each, contract))
    found = [each for each in classes if each.__module__ == module.__name__]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise PluginError(
            f"{source.path}: a plugin file defines exactly one {contract.__name__} class, this one has {names}"
        )
    if lacking := sorted(getattr(found[0], "__abstractmethods__", ())):
        said = f"{found[0].__name__} does not define {' and '.join(lacking)}, as every {contract.__name__} does"
        raise PluginError(f"{source.path}: {said}; `oodbench new {source.room} NAME` writes a stub that shows how")
    try:
        get_type_hints(found[0], include_extras=True)
    except Exception as error:  # an annotation that means nothing
        raise PluginError(f"{source.path}: a parameter's type cannot be read: {error}") from error
    found[0].name = source.name
    return found[0]


def _import(source: PluginFile) -> ModuleType:
    if source.module in sys.modules:
        return sys.modules[source.module]
    if source.module.startswith(_LOOSE):
        _make_packages(source)
    before = Kept(functions=not source.module.startswith(PLUGINS))  # ours are tested
    try:
        found = importlib.import_module(source.module)
    except (Exception, SystemExit, GeneratorExit) as error:  # the author has to read it
        raise PluginError(f"{source.path}: cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        changed = before.put_back(source.module)
    if changed:
        del sys.modules[source.module]
        raise PluginError(f"{source.path}: its import changes {', '.join(changed)}, which is not the plugin's own")
    return found


_LOOSE = "oodbench_plugins."  # modules of files that belong to no package


def _make_packages(source: PluginFile) -> None:
    """Let Python import the files beside a loose plugin as one package, without an `__init__.py` or a search path."""
    importlib.invalidate_caches()  # the folder may be younger than Python's last look at it
    package = source.module.rpartition(".")[0]
    for name, paths in ((_LOOSE.rstrip("."), []), (package, [str(source.path.resolve().parent)])):
        module = sys.modules.setdefault(name, ModuleType(name))
        module.__path__ = paths


Broken = tuple[str, PluginError]  # the name of a plugin, and why it cannot be used


def _built_in() -> Iterator[PluginFile]:
    for room, package in ROOMS.items():
        for path in _plugin_files(Path(str(resources.files(package)))):
            yield PluginFile(room, path.stem, f"{package}.{path.stem}", path)


def _installed() -> Iterator[PluginFile | Broken]:
    points = entry_points()  # looks at every installed package: once
    for room in ROOMS:
        for entry in points.select(group=f"oodbench.{room}"):
            path = module_file(entry.module)
            if path is None:
                error = f"entry point oodbench.{room} '{entry.name}': there is no module {entry.module}"
                yield entry.name, PluginError(error)
            else:
                yield PluginFile(room, entry.name, entry.module, path)


def _from_folders(folders: Iterable[Path]) -> Iterator[PluginFile | Broken]:
    for folder in folders:
        if not (folder.is_file() or folder.is_dir()):
            raise UserError(f"there is no file or folder {folder}")
        folders = (folder, *(folder / room for room in ROOMS))
        for path in [folder] if folder.is_file() else [path for each in folders for path in _plugin_files(each)]:
            try:
                yield source_of(path)
            except PluginError as error:
                yield path.stem, error


# Its classes derive from a contract, and plugins from them.
LAYOUTS = Path(str(resources.files("oodbench"))) / "toolkit" / "layouts.py"


def _plugin_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_") and path.is_file())


def source_of(path: Path) -> PluginFile:
    """Return where a plugin's file belongs, told by the contract that its class names."""
    bases = {*_base_names(syntax(path))}
    shared = syntax(LAYOUTS)
    if bases & {node.name for node in shared.body if isinstance(node, ast.ClassDef)}:
        bases |= {*_base_names(shared)}
    rooms = sorted({room for room, contract in CONTRACTS.items() if contract.__name__ in bases})
    if len(rooms) != 1:
        wanted = ", ".join(contract.__name__ for contract in CONTRACTS.values())
        raise PluginError(f"{path}: a plugin file defines one class that derives from one of {wanted}")
    digest = hashlib.sha256(str(path.resolve().parent).encode()).hexdigest()[:8]
    package = f"{_LOOSE}p{digest}"
    loose_folders[package] = path.resolve().parent
    return PluginFile(rooms[0], path.stem, f"{package}.{path.stem}", path)


def _base_names(tree: ast.Module) -> list[str]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return [ast.unparse(base).rpartition(".")[2] for node in classes for base in node.bases]


def summary(source: PluginFile) -> str:
    """Return the first line of a plugin's docstring, without importing it."""
    return (ast.get_docstring(syntax(source.path)) or "").partition("\n")[0]
