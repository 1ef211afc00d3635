"""YAML 1.2 files as plain values, with the line of each."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from oodbench.errors import UserError, suggestion

BYTES = 100_000  # of a study file, at most
BRACKETS, DEPTH = {"[": 1, "{": 1, "]": -1, "}": -1}, 100  # so many of them are open at a time, at most
MERGE, MERGES = re.compile(r"<<\s*:"), 300
OTHER_YAML = re.compile(r"\A%YAML (?!1\.2).*")
COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.MULTILINE)
VALUES = 100_000  # of a study, at most, those that anchors repeat counted each time
LARGEST = 2**63  # integers are smaller
DEFAULT, BENCHMARK = "default", "benchmark"  # what the default study is called, and its file
PACKAGE = Path(str(resources.files("oodbench")))
SET = "--set"
Trail = tuple[str | int, ...]  # keys and positions from the top of a file down to a value


@dataclass(frozen=True)
class Changed:
    """A study's file, and changes to it each `KEY=VALUE` as `--set` says it, as if the file said so."""

    file: Path
    changes: tuple[str, ...]

    @property
    def parent(self) -> Path:
        return self.file.parent

    def __str__(self) -> str:
        return " ".join([str(self.file), *(f"--set {shlex.quote(each)}" for each in self.changes)])


@dataclass(frozen=True)
class Document:
    """A YAML file: its value, and where in the file each part of it stands."""

    file: Path
    value: dict[str, Any]
    lines: dict[Trail, int] = field(default_factory=dict)
    origin: dict[Trail, tuple[Trail, str]] = field(default_factory=dict)  # of values from elsewhere: who says, its name
    changed: dict[Trail, str] = field(default_factory=dict)  # of values that `--set` gives: what it says

    @property
    def changes(self) -> list[str]:
        """What `--set` changes of the file, in order."""
        return list(dict.fromkeys(self.changed.values()))

    def where(self, trail: Trail) -> str:
        """Return `file:line` of the value at a trail, or of the nearest value above it; or the `--set` that gave it."""
        above = [trail[:end] for end in range(len(trail), -1, -1)]
        if changed := next((self.changed[each] for each in above if each in self.changed), ""):
            return f"{SET} {changed}"
        line = next((self.lines[each] for each in above if each in self.lines), 1)
        return f"{self.file}:{line}" if self.lines else str(self.file)  # a mapping from Python has no lines

    def fail(self, trail: Trail, message: str) -> NoReturn:
        """Raise an error about the value at a trail; where it is from elsewhere, at what brought it in."""
        dotted = ".".join(part for part in trail if isinstance(part, str))
        above = (trail[:end] for end in range(len(trail), 0, -1))
        at, name = next((self.origin[each] for each in above if each in self.origin), (trail, ""))
        said = ": ".join(part for part in (self.where(at), name, dotted, message) if part)
        raise UserError(said)

    @contextmanager
    def blame(self, trail: Trail) -> Iterator[None]:
        """Give a UserError from inside the place of the value at a trail, which is to blame."""
        try:
            yield
        except UserError as error:
            self.fail(trail, str(error))


def shipped() -> dict[str, Path]:
    """Return the files of the studies that come with oodbench by name, inside an installed package or a source tree."""
    inside = PACKAGE / "studies"
    folder = inside if inside.is_dir() else PACKAGE.parent / "studies"
    benchmark = PACKAGE / f"{BENCHMARK}.yaml"
    files = [benchmark, *sorted(folder.glob("*.yaml"))]
    return {DEFAULT: benchmark} | {file.stem: file for file in files}


def file_of(study: str | Path) -> Path:
    """Return the file of a study: a path as it is, or, where no file is called so, that of a shipped study's name."""
    file = Path(study)
    return file if file.is_file() else shipped().get(str(study), file)


def read(source: Path | Changed | Mapping[str, Any], name: str = "study") -> Document:
    """Return a YAML file whose top is a mapping of plain values, or such a mapping, which messages call `name`."""
    if isinstance(source, Changed):
        found = read(source.file)
        for change in source.changes:
            _change(found, change)
        return found
    if not isinstance(source, Path):
        return Document(Path(name), json.loads(json.dumps(dict(source), default=str)))
    file = source
    if not file.is_file():
        named = "" if file.suffix or file.name != str(file) else suggestion(str(file), shipped())
        hint = " that is a regular one" if file.exists() else named
        raise UserError(f"there is no study file {file}{hint}")
    if (size := file.stat().st_size) > BYTES:
        raise UserError(f"{file}: has {size} bytes, a study {BYTES} at most")
    return parsed(file, file.read_bytes())


def parsed(file: Path, content: bytes) -> Document:
    """Return what a YAML file of this name holds, whose top is a mapping of plain values."""
    tree = _tree(file, content)
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{file}: a study is a mapping with keys such as id, ood, training, distance")
    found = Document(file, {})
    found.value.update(_plain(tree, (), found))
    return found


@lru_cache(maxsize=4)  # a command asks for one study several times, and its tree is only read
def _tree(file: Path | str, content: bytes) -> Any:
    """Return what YAML holds, as ruamel has it. `file` is what a message calls it."""
    try:
        text = content.decode()
        _check_text(file, text)
        tree = YAML(typ="rt", pure=True).load(text)
    except DuplicateKeyError as error:
        raise UserError(f"{_place(file, error)}: a key stands twice: {_first_line(error)}") from error
    except MarkedYAMLError as error:
        raise UserError(f"{_place(file, error)}: is not YAML: {_first_line(error)}") from error
    except RecursionError as error:
        raise UserError(f"{file}: is nested too deep") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}:{line}: is not text in UTF-8") from error
    except (YAMLError, ValueError) as error:
        said = " ".join(str(error).partition("; use sys.")[0].split())
        raise UserError(f"{file}: is not YAML: {said}") from error
    except (TypeError, AttributeError, LookupError, AssertionError, NotImplementedError) as error:  # by ruamel itself
        raise UserError(f"{file}: is not YAML: it cannot be put together, as where `<<` is of itself") from error
    if (count := _size(tree, {})) > VALUES:
        raise UserError(f"{file}: holds {count} values where its anchors are repeated, {VALUES} at most are read")
    return tree


def _change(found: Document, change: str) -> None:
    """Change a part of a document as `KEY=VALUE` says, keys parted by dots, the value in YAML."""
    key, is_one, text = change.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not is_one or not all(parts):
        raise UserError(f"{SET} {change}: wanted is KEY=VALUE, such as recipe.epochs=2")
    if len(text) > BYTES:
        raise UserError(f"{SET} {key}: has {len(text)} signs, a study {BYTES} at most")
    said = f"{SET} {change}"
    new = _plain(_tree(said, text.encode(errors="replace")), (), Document(found.file, {}, changed={(): change}))
    value, trail = _with(found.value, parts, new, (), said)
    found.value.update(value)
    for each in [each for each in found.changed if each[: len(trail)] == trail]:
        del found.changed[each]
    found.changed[trail] = change


def _with(value: Any, parts: list[str], new: Any, trail: Trail, said: str) -> tuple[Any, Trail]:
    """Return a value in which one stands at the place that parts of a key name, and the trail of that place.

    An entry of a list goes by its position or its name; an entry that is a name alone has no parameters yet.
    """
    if not parts:
        return new, trail
    if isinstance(value, list):
        i = _entry(value, parts, trail, said)
        value = list(value)
        value[i], trail = _with(value[i], parts[parts[0].isdigit() :], new, (*trail, i), said)
        return value, trail
    if isinstance(value, str):
        value = {value: {}} if ".".join(parts).startswith(f"{value}.") else value
        value = {"base": value} if "recipe" in trail[:1] and isinstance(value, str) else value
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{said}: {'.'.join(map(str, trail))} is {value!r}, which has no key '{parts[0]}'")
    value = dict(value or {})
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    name = next((each for each in names if each in value), parts[0])  # a name may hold dots
    value[name], trail = _with(value.get(name), parts[name.count(".") + 1 :], new, (*trail, name), said)
    return value, trail


def _entry(value: list[Any], parts: list[str], trail: Trail, said: str) -> int:
    """Return which entry of a list the first part of a key names."""
    if parts[0].isdigit() and int(parts[0]) < len(value):
        return int(parts[0])
    dotted = ".".join(parts)
    names = [(name, i) for i, each in enumerate(value) for name in (each if isinstance(each, dict) else [each])]
    found = [i for name, i in names if dotted == name or dotted.startswith(f"{name}.")]
    at = ".".join(map(str, trail))
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{said}: {at} has {len(found)} entries of that name; say which by its position, {at}.0")
    allowed = [*(str(name) for name, _ in names), *(str(i) for i in range(len(value)))]
    raise UserError(f"{said}: {at} is a list without '{parts[0]}'{suggestion(parts[0], allowed)}")


def _check_text(file: Path | str, text: str) -> None:
    """Refuse what the parser would take minutes and gigabytes for, or another version of YAML."""
    if (merges := len(MERGE.findall(text))) > MERGES:
        raise UserError(f"{file}: has {merges} times `<<`, {MERGES} at most are read")
    if version := OTHER_YAML.search(text):
        raise UserError(f"{file}:1: is said to be {version[0][1:]}; a study is YAML 1.2")
    if max(accumulate(BRACKETS.get(each, 0) for each in COMMENT.sub("", text)), default=0) > DEPTH:
        raise RecursionError  # which the parser, too, would come to, in seconds


def _size(node: Any, known: dict[int, int]) -> int:
    """Return how many values there are below a node, what anchors repeat counted each time, and looked at once."""
    if not isinstance(node, CommentedMap | CommentedSeq):
        return 1
    if id(node) not in known:
        known[id(node)] = VALUES  # of what holds itself
        known[id(node)] = 1 + sum(_size(each, known) for each in (node.values() if isinstance(node, dict) else node))
    return known[id(node)]


def _place(file: Path | str, error: MarkedYAMLError) -> str:
    is_file = isinstance(file, Path)
    return f"{file}:{error.problem_mark.line + 1}" if error.problem_mark and is_file else str(file)


def _first_line(error: MarkedYAMLError) -> str:
    return str(error.problem or error.context).partition("\n")[0]


def _plain(node: Any, trail: Trail, found: Document) -> Any:
    """Return a node as plain values, and note the line of each."""
    if (tag := getattr(getattr(node, "tag", None), "value", None)) is not None:
        found.fail(trail, f"has the tag {tag}; a study takes plain values")
    if isinstance(node, CommentedMap):
        for key in node:
            place = (node.lc.data or {}).get(key)  # a key that comes from an anchor (`<<: *base`) has none
            if place is not None:
                found.lines[(*trail, str(key))] = place[0] + 1
        keys = [str(key) for key in node]
        if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
            found.fail((*trail, twice[0]), "a key stands twice, as text and as another value")
        return {key: _plain(value, (*trail, key), found) for key, value in zip(keys, node.values(), strict=True)}
    if isinstance(node, CommentedSeq):
        for i in range(len(node)):
            found.lines[(*trail, i)] = node.lc.item(i)[0] + 1
        return [_plain(value, (*trail, i), found) for i, value in enumerate(node)]
    if node is None or isinstance(node, bool):
        return node
    kinds: tuple[Any, ...] = (int, float, str)  # the round-trip types are subclasses of these
    for kind in kinds:
        if isinstance(node, kind):
            return _checked(kind(node), trail, found)
    if isinstance(node, date):
        return str(node)
    found.fail(trail, f"is of the kind {type(node).__name__}; a study takes plain values")


def _checked(value: Any, trail: Trail, found: Document) -> Any:
    """Refuse what no number or text of a study is."""
    if type(value) is int and abs(value) >= LARGEST:
        digits = round(value.bit_length() * 0.30103)  # log10(2); Python writes no number of many thousands
        shown = f"{value:.3e}" if abs(value) < 1e300 else f"a number of some {digits} digits"
        found.fail(trail, f"is {shown}, should be less than {LARGEST}")
    if isinstance(value, str) and "\0" in value:
        found.fail(trail, f"is {value!r}, which holds a NUL character")
    if isinstance(value, str) and not value.isascii() and value.encode(errors="replace").decode() != value:
        found.fail(trail, f"is {value!r}, which holds half a character (a surrogate of UTF-16)")
    return value
