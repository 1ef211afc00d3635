"""Recipes by name, and those of a study: a base by name, changes to it, changes for one training.

Those of the papers are YAML files beside the code; `FAMILY/NAME`, or FAMILY for its namesake.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from oodbench.errors import UserError, suggestion
from oodbench.study.document import Trail, read
from oodbench.study.settings import Recipe, flat
from oodbench.study.values import Values, form

FOLDER = Path(str(resources.files("oodbench"))) / "recipes"


class Named(NamedTuple):
    about: str  # what it is, in one line
    source: str  # the paper and the code that its constants are from
    values: dict[str, Any]  # as they would stand in a study


@cache
def book() -> dict[str, Named]:
    """Return all recipes by name, sorted."""
    found = {}
    for file in FOLDER.glob("*.yaml"):
        for entry, each in read(file).value.items():
            name = entry if entry == file.stem else f"{file.stem}/{entry}"
            found[name] = Named(each["about"], each["source"], each["recipe"])
    return dict(sorted(found.items()))


def find(name: str) -> Named:
    """Return a recipe, or raise UserError with the names that there are."""
    if name not in book():
        raise UserError(f"there is no recipe '{name}'{suggestion(name, book())}")
    return book()[name]


class Variant(NamedTuple):
    """A recipe of a study."""

    shown: str  # its name, if it has one, and what was changed
    recipe: Recipe


def variants(values: Values, trainings: Sequence[str]) -> dict[str, dict[str, Variant]]:
    """Return the recipes of each training by label: the study's, changed by what stands under `for:`."""
    items = values.items(("recipe",)) if "recipe" in values.top else [(("recipe",), {})]
    if not items:
        values.fail(("recipe",), f"the axis is empty{form(('recipe',))}")
    found: dict[str, list[Variant]] = {name: [] for name in trainings}
    for trail, item in items:
        changes = (item.get("for") or {}) if isinstance(item, dict) else {}
        if not isinstance(changes, dict):
            values.unlike((*trail, "for"), changes, "a mapping from training to parameters")
        for name in changes:
            if name not in found:
                values.fail((*trail, "for", name), f"the study has no training '{name}'{suggestion(name, found)}")
        shared = _checked(values, _without(item, "for"), trail)
        own = {name: _checked(values, change or {}, (*trail, "for", name)) for name, change in changes.items()}
        for name in trainings:
            found[name] += _combined(values, merged(shared, own.get(name, {})), trail)
    return {name: _labelled(each) for name, each in found.items()}


def _checked(values: Values, raw: Any, trail: Trail) -> dict[str, Any]:
    """Return a recipe as it stands in the file, each parameter checked; a name alone is the base of no changes."""
    if isinstance(raw, str):
        _named(values, raw, trail)
        return {"base": raw}
    if not isinstance(raw, dict):
        values.unlike(trail, raw, "a mapping of parameters or a recipe's name")
    if "base" in raw:
        _named(values, raw["base"], (*trail, "base"))
    values.options(Recipe, _without(raw, "base"), trail, ("base",) if "for" in trail else ("base", "for"))
    return raw


def _named(values: Values, name: Any, trail: Trail) -> dict[str, Any]:
    """Return the parameters of a recipe that comes with the package."""
    if not isinstance(name, str):
        values.unlike(trail, name, "a recipe's name")
    with values.document.blame(trail):
        return find(name).values


def _combined(values: Values, raw: dict[str, Any], trail: Trail) -> list[Variant]:
    """Return a recipe for each combination of parameters, on top of those of a recipe by name."""
    if "base" not in raw:
        return [Variant(each.label, each) for each in values.sweep(Recipe, raw, trail)]
    named = _named(values, raw["base"], trail)
    base = values.one(Recipe, named, trail)
    found = values.sweep(Recipe, merged(named, _without(raw, "base")), trail)
    return [Variant("; ".join(filter(None, (raw["base"], each.unlike(base)))), each) for each in found]


def _without(raw: Any, key: str) -> Any:
    return {name: value for name, value in raw.items() if name != key} if isinstance(raw, dict) else raw


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe as it stands in a file with changes to it, those of nested mappings too."""
    found = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def _labelled(variants: list[Variant]) -> dict[str, Variant]:
    """Return recipes, each once, by a label that tells them apart: what differs, or their names where they have any."""
    once = list({each.recipe: each for each in reversed(variants)}.values())[::-1]
    if len(once) > 1 and any(each.shown != each.recipe.label for each in once):
        return {each.shown: each for each in once}
    values = [flat(dataclasses.asdict(each.recipe)) for each in once]
    varying = [key for key in values[0] if len({repr(each[key]) for each in values}) > 1]
    labels = [", ".join(f"{key}={each[key]}" for key in varying) for each in values]
    return dict(zip(labels, once, strict=True))
