"""Artifacts by content address: folders of files with a manifest, whole or absent. It knows bytes, not ML.

An artifact lives at ROOT/KIND/KE/KEY. Its manifest holds the fields its key is a hash of, facts about it, and
the SHA-256 of every file; what does not match is set aside, named and never used. What a user may do with an
artifact is what the umask of the one who made it leaves. It is made in a folder that bears the mark of its process and
gets its name when it is whole: of several processes that make one artifact, the first one's stays. No lock is needed
for that; locks keep processes from doing the same work twice.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oodbench.store.files import FileError, writing
from oodbench.store.sharing import is_dead, locked, mark

MANIFEST = "manifest.json"
KEY = re.compile(r"[0-9a-f]{16}(-.*)?")  # a hash of fields, and which of several of them; other folders are not ours
NO_KINDS = ("locks", "damaged")
NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def digest(value: Any) -> str:
    """Return a hash of plain values."""
    return _digest(value)[:16]


def written(value: Any) -> str:
    """Return plain values as the text that `digest` hashes."""
    return json.dumps(value, sort_keys=True)


def digest_of(parts: dict[str, str]) -> str:
    """Return the `digest` of a mapping of words to values that are `written` already: many mappings share a part."""
    text = ", ".join([f'"{name}": {parts[name]}' for name in sorted(parts)])
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artifact:
    """A verified artifact."""

    path: Path
    fields: dict[str, Any]  # what its key is a hash of
    meta: dict[str, Any]  # facts about it
    files: dict[str, str]  # name -> SHA-256

    def file(self, name: str) -> Path:
        return self.path / name


class Store:
    """A folder of artifacts. `warn` hears of damaged ones."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda message: None) -> None:
        self.root = root
        self._warn = warn
        self._verified: dict[tuple[str, str], Artifact] = {}

    def path(self, kind: str, key: str) -> Path:
        """Return where an artifact is, or is to be; older versions put them all beside each other."""
        old = self.root / kind / key
        return old if old.exists() else self.root / kind / key[:2] / key

    def free(self) -> int:
        """Return the bytes that are free on its disk."""
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.root).free

    def has(self, kind: str, key: str) -> bool:
        """Return whether an artifact seems to be there; reading it is what verifies it."""
        return (self.path(kind, key) / MANIFEST).is_file()

    def read(self, kind: str, key: str) -> Artifact | None:
        """Return a verified artifact, or None where there is none; a damaged one is set aside and warned of."""
        if (kind, key) in self._verified:
            return self._verified[kind, key]
        path = self.path(kind, key)
        if not path.exists():
            return None
        damage = _damage(path)
        if damage:
            with locked(self.root / "locks" / "damaged.lock"):
                damage = _damage(path) if path.exists() else "it is gone"
                if damage:  # else another process has set it aside and made it again
                    self._warn(f"{path}: {damage}; it is not used, and made again where it is needed")
                    self._set_aside(path)
                    return None
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        artifact = Artifact(path, manifest["fields"], manifest["meta"], manifest["files"])
        self._verified[kind, key] = artifact
        return artifact

    def write(self, kind: str, key: str, fields: dict[str, Any], fill: Callable[[Path], dict[str, Any]]) -> Artifact:
        """Make an artifact: `fill` writes files into an empty folder and returns the facts about them.

        The key is the digest of the fields; with a dash after it, which of several that have these fields.
        """
        if key.partition("-")[0] != digest(fields):
            raise ValueError(f"{kind} {key} is no key of these fields, which is {digest(fields)}")
        path = self.path(kind, key)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.sweep(kind, key)
            folder = _new_folder(path.parent, key)
        try:
            meta = fill(folder)
            files = _seal(folder, {"fields": fields, "meta": meta})
            while not _renamed(folder, path):
                theirs = self.read(kind, key)
                if theirs is not None:  # else it is damaged, and set aside
                    return theirs
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._verified[kind, key] = artifact = Artifact(path, fields, meta, files)
        return artifact

    def lock(self, name: str, wait: bool = True) -> AbstractContextManager[bool]:
        """Return a lock that is held while something is worked on; it gives False where another process has it.

        With `wait` that is never so. A process that has the lock may take it again. Raises UserError where the file
        system has no locks.
        """
        return locked(self.root / "locks" / f"{name}.lock", wait)

    def keys(self, kind: str, start: str = "") -> list[str]:
        """Return the keys of all artifacts of a kind that begin so, of those that lost their manifest, too."""
        return sorted({path.name for path in self._folders(kind, start)})

    def _folders(self, kind: str, start: str = "") -> Iterator[Path]:
        places = (f"[!.]{start[1:]}*" if start else "[!.]*", f"{start[:2] or '[0-9a-f][0-9a-f]'}/{start or '[!.]'}*")
        for path in (path for place in places for path in (self.root / kind).glob(place)):
            if path.name.startswith(start) and (KEY.fullmatch(path.name) or (path / MANIFEST).is_file()):
                yield path

    def kinds(self) -> list[str]:
        names = sorted(path.name for path in self.root.glob("[!.]*") if path.is_dir())
        return [name for name in names if name not in NO_KINDS and next(self._folders(name), None)]

    def fields(self, kind: str, key: str) -> dict[str, Any]:
        """Return what the key of an artifact is said to be a hash of, unverified; nothing where that cannot be read."""
        found = self.manifest(kind, key).get("fields", {})
        return found if isinstance(found, dict) else {}

    def manifest(self, kind: str, key: str) -> dict[str, Any]:
        """Return what the manifest of an artifact says, unverified; nothing where it cannot be read."""
        try:
            found = json.loads((self.path(kind, key) / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def made_at(self, kind: str, key: str) -> float:
        """Return when an artifact was made, in seconds since the epoch."""
        return (self.path(kind, key) / MANIFEST).stat().st_mtime

    def link(self, kind: str, old: str, new: str, fields: dict[str, Any], facts: dict[str, Any]) -> bool:
        """Put an artifact under another key, too, with more facts; False where it is damaged or the key is taken."""
        artifact = self.read(kind, old)
        if artifact is None or self.has(kind, new):
            return False

        def fill(folder: Path) -> dict[str, Any]:
            rest = shutil.ignore_patterns(MANIFEST)
            shutil.copytree(artifact.path, folder, ignore=rest, copy_function=_same_file, dirs_exist_ok=True)
            return artifact.meta | facts

        self.write(kind, new, fields, fill)
        return True

    def size(self, kind: str, key: str) -> int:
        """Return the bytes of an artifact."""
        return sum(file.stat().st_size for file in self.path(kind, key).rglob("*") if file.is_file())

    def remove(self, kind: str, key: str) -> None:
        self._verified.pop((kind, key), None)
        path = self.path(kind, key)
        if path.exists():
            with writing(path):
                gone = _new_folder(path.parent, key)
                with suppress(FileNotFoundError):  # another process has removed it
                    path.rename(gone / key)  # at once, so that nobody sees half of it
                shutil.rmtree(gone)

    def sweep(self, kind: str, key: str) -> None:
        """Remove what killed processes of this machine left half made of keys that begin so."""
        for stale in self.path(kind, key).parent.glob(f".{key}*"):
            _remove_dead(stale)

    def tidy(self) -> tuple[int, list[Path]]:
        """Remove what killed processes of this machine left half made of any key.

        Returns how many folders that were, and those of other machines, whose processes may be at work or not.
        """
        hidden = (path for depth in ("*", "*/*") for path in self.root.glob(f"{depth}/.*"))
        found = [path for path in hidden if KEY.match(path.name[1:])]
        return sum(_remove_dead(path) for path in found), [path for path in found if path.exists()]

    def _set_aside(self, path: Path) -> None:
        damaged = self.root / "damaged"
        with writing(damaged):
            damaged.mkdir(parents=True, exist_ok=True)
            aside = damaged / f"{path.name}-{secrets.token_hex(4)}"
            aside.mkdir()
            path.rename(aside / path.name)


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _same_file(file: str, target: str) -> None:
    """Let a file have another name, or where the file system has one name a file, a copy."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _new_folder(parent: Path, key: str) -> Path:
    """Return a new folder for something half made; it has, other than tempfile's, the mode that the umask leaves."""
    folder = parent / f".{key}{mark()}~{secrets.token_hex(4)}"
    folder.mkdir()
    return folder


def _remove_dead(folder: Path) -> bool:
    """Remove a folder whose process is gone, and return whether it is."""
    if not is_dead(folder.name):
        return False
    with writing(folder), suppress(FileNotFoundError):  # another process removes it, too
        shutil.rmtree(folder)
    return True


def _renamed(folder: Path, path: Path) -> bool:
    """Give a folder its name; return False where another process was faster and that name is taken."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _seal(folder: Path, content: dict[str, Any]) -> dict[str, str]:
    files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    for file in folder.iterdir():
        _flush(file)
    content = {**content, "files": files}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({**content, "digest": _digest(content)}, indent=1), encoding="utf-8")
    _flush(manifest)
    _flush(folder)
    return files


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(content: Any) -> str:
    return hashlib.sha256(written(content).encode()).hexdigest()


def _damage(path: Path) -> str:
    """Return what is wrong with an artifact, or an empty string. Raises FileError where this user cannot read it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        whole, fields = manifest.pop("digest"), manifest["fields"]
        files: dict[str, str] = manifest["files"]
        if _digest(manifest) != whole:
            return "its manifest was altered"
        if digest(fields) != path.name.partition("-")[0]:
            return f"it is another one: its fields have the key {digest(fields)}"
        for name, wanted in files.items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if sha256(path / name) != wanted:
                return f"{name} was altered or cut short"
    except (*NOT_THERE, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        return f"its manifest cannot be read ({type(error).__name__})"
    except OSError as error:  # of another user, or a fault of the machine that passes: it may be whole
        raise FileError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    return ""
