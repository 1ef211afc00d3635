"""YAML 1.2 files as plain values, with the line of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from oodbench.errors import UserError

Trail = tuple[str | int, ...]  # keys and positions from the top of a file down to a value


@dataclass(frozen=True)
class Document:
    """A YAML file: its value, and where in the file each part of it stands."""

    file: Path
    value: dict[str, Any]
    lines: dict[Trail, int] = field(default_factory=dict)
    origin: dict[Trail, tuple[Trail, str]] = field(default_factory=dict)  # of values from elsewhere: who says, its name

    def where(self, trail: Trail) -> str:
        """Return `file:line` of the value at a trail, or of the nearest value above it."""
        while trail and trail not in self.lines:
            trail = trail[:-1]
        return f"{self.file}:{self.lines.get(trail, 1)}"

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


def read(file: Path) -> Document:
    """Return a YAML file whose top is a mapping."""
    if not file.is_file():
        raise UserError(f"there is no study file {file}")
    try:
        tree = YAML(typ="rt", pure=True).load(file.read_text(encoding="utf-8"))
    except DuplicateKeyError as error:
        raise UserError(f"{_place(file, error)}: a key stands twice: {_first_line(error)}") from error
    except MarkedYAMLError as error:
        raise UserError(f"{_place(file, error)}: is not YAML: {_first_line(error)}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not YAML: {error}") from error
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{file}: a study is a mapping with keys such as id, ood, training, distance")
    lines: dict[Trail, int] = {}
    return Document(file, _plain(tree, (), lines), lines)


def _place(file: Path, error: MarkedYAMLError) -> str:
    return f"{file}:{error.problem_mark.line + 1}" if error.problem_mark else str(file)


def _first_line(error: MarkedYAMLError) -> str:
    return str(error.problem or error.context).partition("\n")[0]


def _plain(node: Any, trail: Trail, lines: dict[Trail, int]) -> Any:
    if isinstance(node, CommentedMap):
        for key in node:
            place = (node.lc.data or {}).get(key)  # a key that comes from an anchor (`<<: *base`) has none
            if place is not None:
                lines[(*trail, str(key))] = place[0] + 1
        return {str(key): _plain(value, (*trail, str(key)), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for i in range(len(node)):
            lines[(*trail, i)] = node.lc.item(i)[0] + 1
        return [_plain(value, (*trail, i), lines) for i, value in enumerate(node)]
    for kind in (bool, int, float, str):  # the round-trip types are subclasses of these
        if isinstance(node, kind):
            return kind(node)
    return node
