"""Recipes by name: those of the papers, as YAML files beside the code; `FAMILY/NAME`, or FAMILY for its namesake."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from oodbench.errors import UserError, suggestion
from oodbench.study.document import read

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
