"""Suites by name: the data of the papers' evaluations, as YAML files beside the code; always `FAMILY/NAME`.

A suite holds the keys of a study that say which images there are and what they are turned into. Under the key
`suite:` they count as if they stood in the study; several suites bring the ID sets of each, tested on its own OOD sets.
What ID sets are tested on is read here, whoever says it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from oodbench.api import Dataset
from oodbench.errors import UserError, suggestion
from oodbench.study.axes import Axes
from oodbench.study.class_protocol import held_out
from oodbench.study.document import Document, Trail, read
from oodbench.study.study import GROUPS, HELD_OUT, Setup
from oodbench.study.values import form

FOLDER = Path(str(resources.files("oodbench"))) / "suites"
KEY = "suite"
COVARIATE = "covariate"
OF_EACH = ("id", "ood", COVARIATE, "reference", "validation", "outliers")  # each suite's own, for its ID sets
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
    if KEY not in document.value or document.origin:  # there is none, or they are filled in
        return document
    names = _names(document)
    suites = []
    for i, name in enumerate(names):
        with document.blame((KEY, i)):
            suites.append(find(name))
    value, origin = dict(document.value), dict[Trail, tuple[Trail, str]]()
    for key in KEYS:
        if not any(key in each.values for each in suites):
            continue
        if key in document.value:
            if key not in CHANGEABLE:
                document.fail((key,), f"the suite {' and '.join(names)} says it, too; drop this key, or `suite:`")
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


def setups(axes: Axes) -> tuple[list[Dataset], dict[str, Setup]]:
    """Return the ID sets and, by label, what each is tested on: as the study says, or each of its suites."""
    ids: list[Dataset] = []
    found: dict[str, Setup] = {}
    for i, name in enumerate(labels(axes.document) or [""]):
        places = {key: (key, i) if (key, i) in axes.document.origin else (key,) for key in OF_EACH}
        reference = axes.reference(places["reference"])
        mine = axes.plugins(Dataset, places["id"])
        for each in mine:
            if each.label in found:
                other = found[each.label].suite
                axes.fail((KEY, i), f"{each.label} is an ID set of {other}, too; run them apart")
        validation, outliers = (axes.plugins(Dataset, places[key]) for key in ("validation", "outliers"))
        for each in mine:
            ood = _ood(axes, each, mine, places["ood"])
            covariate = _covariate(axes, each, mine, places[COVARIATE])
            found[each.label] = Setup(ood, reference, validation, outliers, name, covariate)
        ids += mine
    return ids, found


def _ood(axes: Axes, id_: Dataset, ids: list[Dataset], trail: Trail) -> dict[str, dict[str, Dataset]]:
    """Return the OOD sets of an ID set: group -> name -> set."""
    found: dict[str, dict[str, Dataset]] = {}
    for group, value in axes.values.mapping(trail).items():
        at = (*trail, group)
        if group not in GROUPS:
            axes.fail(at, f"there is no such group{suggestion(group, GROUPS)}")
        members: dict[str, Dataset] = {}
        for name, each in _members(axes, id_, ids, value, at):
            if members.setdefault(name, each) != each:
                axes.fail(at, f"two sets are both shown as '{name}': {members[name]} and {each}")
        if not members:
            axes.fail(at, f"the group is empty{form(at)}")
        for other, known in found.items():
            for name in known.keys() & members.keys():
                axes.fail(at, f"{name} is in {other}, too; a set is in one group")
        found[group] = members
    if not found:
        axes.fail(trail, f"the axis is empty{form(trail)}")
    return found


def _covariate(axes: Axes, id_: Dataset, ids: list[Dataset], trail: Trail) -> list[Dataset]:
    """Return the covariate-shifted sets of an ID set, which a suite or a study beside its suites says."""
    if COVARIATE not in axes.top:
        return []
    members = _members(axes, id_, ids, axes.values.get(trail), trail)
    return axes.values.axis([each for _, each in members], trail)


def _members(axes: Axes, id_: Dataset, ids: list[Dataset], value: Any, trail: Trail) -> Iterator[tuple[str, Dataset]]:
    """Yield the sets of a group for one ID set, by name; `{id name: [sets]}` gives each ID set its own."""
    if isinstance(value, dict) and all(isinstance(each, list | str) for each in value.values()):
        names = {name for each in ids for name in (each.name, each.shown_as) if name}
        for name in value:
            if name not in names:
                axes.fail((*trail, name), f"the study has no ID set '{name}'{suggestion(name, names)}")
        mine = id_.shown_as if id_.shown_as in value else id_.name
        if mine not in value:
            axes.fail(trail, f"has no sets for the ID set '{mine}'")
        value, trail = value[mine], (*trail, mine)
    for name, params, at in axes.values.entries(value, trail):
        if name == HELD_OUT:
            with axes.document.blame(at):
                rest = held_out(id_)
            yield HELD_OUT, rest
        else:
            known = axes.registry.sources("dataset").keys() | axes.registry.broken.keys()
            if name not in known:
                axes.fail(at, f"there is no dataset '{name}'{suggestion(name, [*known, HELD_OUT])}")
            yield from ((each.label, each) for each in axes.instances("dataset", name, params, at))


def files(label: str, role: str) -> Files | None:
    """Return where the files of a suite's sets are from, given what rows call it; None where a study says the role."""
    name, _, changed = label.partition(" (own ")
    own = changed.removesuffix(")").split(", ")
    if not name or role in own or (role == COVARIATE and COVARIATE not in find(name).values):
        return None
    return find(name).files


def told(suite: Suite) -> Iterator[tuple[str, str]]:
    """Yield what a suite consists of, (role, sets as text), and what of it is its own choice or not known."""
    yield "ID", ", ".join(_sets(suite.values["id"]))
    for group, value in suite.values["ood"].items():
        yield f"{group} OOD", ", ".join(_sets(value))
    if COVARIATE in suite.values:
        yield "shifted ID", ", ".join(_sets(suite.values[COVARIATE]))
    for role in CHANGEABLE:
        if role in suite.values:
            value = suite.values[role]
            yield role, ", ".join(_sets(value["set"] if role == "reference" and isinstance(value, dict) else value))
    yield from (("own", each) for each in suite.own)


def _names(document: Document) -> list[str]:
    given = document.value[KEY]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
        document.fail((KEY,), f"is {given!r}, wanted a suite's name or a list of them{form((KEY,))}")
    if len(set(names)) < len(names):
        document.fail((KEY,), f"names a suite twice: {', '.join(names)}")
    return names


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
