"""What there is to know of a plugin: its file, its parameters, and what it asks of the harness by its contract."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from typing import Any

from oodbench.api import CONTRACTS, Plugin
from oodbench.cli.reference.fields import fields, plain
from oodbench.errors import UserError
from oodbench.study.fingerprints import syntax
from oodbench.study.registry import ROOMS, PluginFile, Registry, load

ARXIV = re.compile(r"(?:arXiv[: ]*)(\d{4}\.\d{4,5})")
UNKNOWN = "depends on its parameters"  # a fact of a plugin that has no defaults for all of them


def named(registry: Registry, name: str) -> list[PluginFile]:
    """Return the plugins of a name, or of ROOM.NAME or ROOM/NAME."""
    room, _, rest = name.replace("/", ".").partition(".")
    found = [(room, rest)] if rest else [(each, name) for each in ROOMS]
    return [registry.sources(of)[each] for of, each in found if of in ROOMS and each in registry.sources(of)]


def described(source: PluginFile) -> dict[str, Any]:
    """Return what is known of a plugin, as JSON holds it; `error` says why it cannot be used."""
    doc = inspect.cleandoc(_docstring(source))
    about: dict[str, Any] = {"room": source.room, "name": source.name, "summary": doc.partition("\n")[0], "doc": doc}
    about |= {"arxiv": list(dict.fromkeys(ARXIV.findall(doc))), "file": str(source.path), "module": source.module}
    try:
        found = load(source)
    except UserError as error:
        return about | {"says": "", "parameters": [], "contract": [], "error": str(error)}
    says = inspect.cleandoc(found.__doc__ or "")
    parameters = [each.shown() for each in fields(found)]
    return about | {"says": says, "parameters": parameters, "contract": contract(source.room, found), "error": ""}


def _docstring(source: PluginFile) -> str:
    try:
        return ast.get_docstring(syntax(source.path)) or ""
    except UserError:
        return ""


def contract(room: str, found: type[Plugin]) -> list[dict[str, Any]]:
    """Return what a plugin with its default parameters says to each question of its contract."""
    facts = [(name, each) for name, each in vars(CONTRACTS[room]).items() if isinstance(each, property)]
    complete = all(
        each.default is not dataclasses.MISSING or each.default_factory is not dataclasses.MISSING
        for each in dataclasses.fields(found)  # type: ignore[arg-type]
    )
    try:
        one = found() if complete else None
    except ValueError:  # its defaults alone are not allowed
        one = None
    return [_fact(name, each, found, one) for name, each in facts]


def _fact(name: str, of: property, found: type[Plugin], one: Plugin | None) -> dict[str, Any]:
    meaning = " ".join(inspect.cleandoc(of.__doc__ or "").partition("\n\n")[0].split())
    own = found.__dict__.get(name)
    usual = None if getattr(of, "__isabstractmethod__", False) or one is None else plain(of.__get__(one))
    if one is not None:
        value = plain(getattr(one, name))
    else:
        value = UNKNOWN if own is None or isinstance(own, property) else plain(own)
    return {"name": name, "value": value, "usual": usual, "meaning": meaning}
