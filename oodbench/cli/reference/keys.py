"""The keys of a study, dotted: type, default, what is allowed, what it means, and where that is said."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from oodbench.api import CONTRACTS
from oodbench.cli.reference.fields import FieldFacts, fields, said, schema
from oodbench.study import axes, declarations, reader
from oodbench.study.recipes import book as recipes
from oodbench.study.registry import Registry
from oodbench.study.settings import RESNETS, Recipe, ResNet, Space
from oodbench.study.study import Settings
from oodbench.study.suites import book as suites
from oodbench.study.values import EXAMPLES

DOCS = "docs/study.md"
OF_SETS = ("id", "ood", "covariate", "outliers", "validation")  # keys whose values are data sets
# What stands under a key, or under each name that a user gives there.
FORMS: dict[str, type] = {
    **{"recipe": Recipe, "space": Space, "encoder": ResNet, "select": declarations.Select},
    **{"tables": declarations.TableSpec, "claims": declarations.ClaimSpec},
    **{"curve": declarations.CellsSpec, "scores": declarations.ScoresSpec},
}
HINTS: dict[str, Any] = {**axes.PLAIN, "compat": bool, "keep": list[int | str], "skip": list[dict[str, Any]]}


class KeyFacts(NamedTuple):
    """A key of a study."""

    name: str  # with the keys that it stands under: recipe.augment.crop
    type: str
    required: bool
    default: Any
    meaning: str
    example: str  # a value that it takes; "" where its type says enough
    allowed: tuple[str, ...]  # the names that it takes, where these are known
    parts: tuple[str, ...]  # the keys under it
    source: str  # where it is said


def keys(registry: Registry) -> dict[str, KeyFacts]:
    """Return every key of a study by its dotted name."""
    found: dict[str, KeyFacts] = {}
    settings = {each.name: each for each in fields(Settings)}
    hints = get_type_hints(Settings)
    for name in reader.KEYS:
        if name in settings:
            found |= {each.name: each for each in _field(settings[name], hints[name], Settings, "")}
            continue
        form = FORMS.get(name)
        parts = tuple(each.name for each in dataclasses.fields(form)) if form else ()
        kind = _kind(name)
        default, required = axes.DEFAULT.get(name), name in reader.REQUIRED
        meaning, example, allowed = reader.MEANING[name], _example(name), _allowed(name, registry)
        found[name] = KeyFacts(name, kind, required, default, meaning, example, allowed, parts, DOCS)
        found |= {each.name: each for each in _under(form, f"{name}.")} if form else {}
    return found


def _under(form: type, prefix: str) -> Iterator[KeyFacts]:
    hints = get_type_hints(form)
    for each in fields(form):
        yield from _field(each, hints[each.name], form, prefix)


def _field(field: FieldFacts, hint: Any, of: type, prefix: str) -> Iterator[KeyFacts]:
    name, nested = f"{prefix}{field.name}", isinstance(hint, type) and dataclasses.is_dataclass(hint)
    parts = tuple(each.name for each in dataclasses.fields(hint)) if nested else ()
    default = None if nested else field.default
    example = _example(name)
    where = f"{DOCS}, oodbench/study/{Path(inspect.getfile(of)).name}"
    yield KeyFacts(name, field.type, field.required, default, field.meaning, example, (), parts, where)
    if nested:
        yield from _under(hint, f"{name}.")


def _example(name: str) -> str:
    """Return a key with a value that it takes; names that a user gives are no part of a dotted name here."""
    top, _, rest = name.partition(".")
    key = f"{top}.*.{rest}" if rest and top in ("claims", "tables") else name
    return f"{name.rpartition('.')[2]}: {EXAMPLES[key]}" if key in EXAMPLES else ""


def _kind(name: str) -> str:
    if name in HINTS:
        return said(schema(HINTS[name]))
    if name in CONTRACTS or name in OF_SETS:
        return "names of plugins, with or without parameters, or a list of them"
    if name in FORMS:
        return "mapping, or a name" if name in ("recipe", "encoder") else "mapping"
    return "text, a mapping, or a list of names"


def _allowed(name: str, registry: Registry) -> tuple[str, ...]:
    """Return the names that a key takes."""
    if name in CONTRACTS or name in OF_SETS:
        return tuple(registry.sources("dataset" if name in OF_SETS else name))
    return {"suite": tuple(suites()), "recipe": tuple(recipes()), "encoder": tuple(RESNETS)}.get(name, ())


def matching(found: dict[str, KeyFacts], name: str) -> list[KeyFacts]:
    """Return the key of a name, or else those whose last parts are this."""
    return [found[name]] if name in found else [each for key, each in found.items() if key.endswith(f".{name}")]
