"""Suites by name: the data of the papers' evaluations, as YAML files beside the code; always `FAMILY/NAME`.

A suite holds the keys of a study that say which images there are and what they are turned into. Under the key
`suite:` they count as if they stood in the study; several suites bring the ID sets of each, tested on its own OOD sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from oodbench.errors import UserError, suggestion
from oodbench.study.document import Document, Trail, read

FOLDER = Path(str(resources.files("oodbench"))) / "suites"
KEY = "suite"
OF_EACH = ("id", "ood", "reference", "validation", "outliers")  # each suite's own, for its ID sets
KEYS = ("image", *OF_EACH)  # images are of one format in a study, and so in all its suites
CHANGEABLE = ("outliers", "validation", "reference")  # what a study may say itself, as rows and tables then tell


class Files(NamedTuple):
    """Where the files of a suite's own lists of images are from, which no program here gets."""

    page: str
    licence: str
    by_hand: str  # what brings them; {data} is the folder that data sets are in


class Suite(NamedTuple):
    says: str  # what it is, in one line
    source: str  # the paper, and where the facts are from
    own: tuple[str, ...]  # sentences: what of it is our own choice, or not known
    values: dict[str, Any]  # as they would stand in a study
    files: Files | None = None  # None: each of its sets says where its files are from


@cache
def book() -> dict[str, Suite]:
    """Return all suites by name, sorted."""
    found = {}
    for file in FOLDER.glob("*.yaml"):
        for entry, each in read(file).value.items():
            values = {key: each[key] for key in KEYS if key in each}
            files = Files(**each["files"]) if "files" in each else None
            found[f"{file.stem}/{entry}"] = Suite(each["says"], each["source"], tuple(each["own"]), values, files)
    return dict(sorted(found.items()))


def find(name: str) -> Suite:
    """Return a suite, or raise UserError with the names that there are."""
    if name not in book():
        raise UserError(f"there is no suite '{name}'{suggestion(name, book())}")
    return book()[name]


def resolve(document: Document) -> Document:
    """Return a study with the keys of its suites filled in; those of OF_EACH are then lists, a value for each suite."""
    if KEY not in document.value:
        return document
    names = _names(document)
    suites = [_found(document, i, name) for i, name in enumerate(names)]
    value, origin = dict(document.value), dict[Trail, tuple[Trail, str]]()
    for key in KEYS:
        if key in document.value:
            if key not in CHANGEABLE:
                document.fail((key,), f"the suite {' and '.join(names)} says it, too; drop this key, or `suite:`")
            continue
        if not any(key in each.values for each in suites):
            continue
        parts = [each.values.get(key) for each in suites]
        _check_joined(document, key, dict(zip(names, parts, strict=True)))
        value[key] = parts if key in OF_EACH else parts[0]
        origin[key,] = ((KEY,), f"suite {' + '.join(names)}")
        if key in OF_EACH:
            origin |= {(key, i): ((KEY, i), f"suite {name}") for i, name in enumerate(names)}
    return dataclasses.replace(document, value=value, origin=origin)


def labels(document: Document) -> list[str]:
    """Return what rows call each suite of a resolved study: its name, and what the study says in its place."""
    if KEY not in document.value:
        return []
    changed = [key for key in CHANGEABLE if key in document.value and (key,) not in document.origin]
    return [f"{name} (own {', '.join(changed)})" if changed else name for name in _names(document)]


def files(label: str, role: str) -> Files | None:
    """Return where the files of a suite's sets are from, given what rows call it; None where a study says the role."""
    name, _, changed = label.partition(" (own ")
    return find(name).files if name and role not in changed.removesuffix(")").split(", ") else None


def told(suite: Suite) -> Iterator[tuple[str, str]]:
    """Yield what a suite consists of: (role, sets as text)."""
    yield "ID", ", ".join(_sets(suite.values["id"]))
    for group, value in suite.values["ood"].items():
        yield f"{group} OOD", ", ".join(_sets(value))
    for role in CHANGEABLE:
        if role in suite.values:
            value = suite.values[role]
            yield role, ", ".join(_sets(value["set"] if role == "reference" and isinstance(value, dict) else value))


def _names(document: Document) -> list[str]:
    given = document.value[KEY]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
        document.fail((KEY,), f"is {given!r}, wanted a suite's name or a list of them")
    if len(set(names)) < len(names):
        document.fail((KEY,), f"names a suite twice: {', '.join(names)}")
    return names


def _found(document: Document, i: int, name: str) -> Suite:
    try:
        return find(name)
    except UserError as error:
        document.fail((KEY, i), str(error))


def _check_joined(document: Document, key: str, parts: dict[str, Any]) -> None:
    """Refuse suites that cannot be in one study: their rows would mean what none of them says."""
    hint = "; run them apart" + (f", or say one for all with the key '{key}'" if key in CHANGEABLE else "")
    first, *others = parts
    for other in others:
        lacking = None in (parts[first], parts[other])
        if parts[other] != parts[first] and (key not in OF_EACH or lacking):
            one, two = ("nothing" if each is None else each for each in (parts[first], parts[other]))
            document.fail((KEY,), f"{first} and {other} differ in `{key}`: {one} and {two}{hint}")


def _sets(value: Any) -> Iterator[str]:
    """Yield the data sets of a value as text, by their titles where they have any."""
    if isinstance(value, dict):
        for name, params in value.items():
            given = dict(params or {})
            if "title" in given:
                yield str(given["title"])
            else:
                shown = ", ".join(f"{key}={_short(each)}" for key, each in given.items())
                yield f"{name}({shown})" if shown else name
    elif isinstance(value, list):
        for each in value:
            yield from _sets(each)
    else:
        yield str(value)


def _short(value: Any) -> str:
    """Return a parameter as text, a long sweep by its ends."""
    items = value if isinstance(value, list) else [value]
    texts = ["+".join(map(str, each)) if isinstance(each, list) else str(each) for each in items]
    return "|".join(texts if len(texts) < 6 else [texts[0], "...", texts[-1]])
