"""Class protocols: which classes of a data set are left by `keep`, `only` and `without`.

An integer is a class's place in the order of the set, unless classes have numbers for names: then it is a name.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from oodbench.api import Dataset
from oodbench.errors import UserError, suggestion

PROTOCOLS = ("keep", "only", "without")


def kept_classes(dataset: Dataset, classes: tuple[str, ...]) -> list[int]:
    """Return the numbers of the classes that are left, in the order of the set.

    Raises UserError where two protocols are given or a class does not exist.
    """
    given, names = _given(dataset)
    if not given:
        return list(range(len(classes)))
    named = {_number(dataset, each, classes) for each in names}
    kept = [k for k in range(len(classes)) if (k in named) != (given == "without")]
    if not kept:
        raise UserError(f"{dataset.label}: no class is left")
    return kept


def family(dataset: Dataset) -> str:
    """Return the label of a set without its class protocol: splits of one family may share a table."""
    whole = dataclasses.replace(dataset, keep=None, only=None, without=None)
    return whole.label if _given(dataset)[0] else dataset.label


def protocol(dataset: Dataset) -> str:
    """Return how many classes are in: `all classes`, `one class`, `8 classes`."""
    given, names = _given(dataset)
    if not given:
        return "all classes"
    count = class_count(dataset)
    if count is None:
        return f"all but {len(names)} classes"
    return "one class" if count == 1 else f"{count} classes"


def held_out(dataset: Dataset) -> Dataset:
    """Return the classes that a set leaves out, as a set. Raises UserError where it leaves out none."""
    given, names = _given(dataset)
    if not given:
        raise UserError(f"the ID set {dataset.label} leaves no class out; give it keep, only or without")
    rest: dict[str, Any] = {given: None, "keep" if given == "without" else "without": names}
    return dataclasses.replace(dataset, **rest)


def _given(dataset: Dataset) -> tuple[str, tuple[Any, ...]]:
    """Return which protocol a set has, if any, and the classes that it names."""
    given = {name: value for name in PROTOCOLS if (value := getattr(dataset, name)) is not None}
    if len(given) > 1:
        raise UserError(f"{dataset.label}: takes one of keep, only and without, not {' and '.join(given)}")
    name, value = next(iter(given.items()), ("", ()))
    return name, value if isinstance(value, tuple) else (value,)


def _number(dataset: Dataset, given: int | str, classes: tuple[str, ...]) -> int:
    """Return the place of a class. Where a class has a number for its name, integers are names, not places."""
    numbered = {str(int(name)): k for k, name in enumerate(classes) if re.fullmatch(r"-?[0-9]{1,18}", name)}
    places = numbered or {str(k): k for k in range(len(classes))}
    if isinstance(given, int) and str(given) in places:
        return places[str(given)]
    if isinstance(given, str) and given in classes:
        return classes.index(given)
    other = "" if numbered else f", or 0 to {len(classes) - 1}"
    raise UserError(f"{dataset.label}: there is no class {given!r}{suggestion(given, classes)}{other}")


def class_count(dataset: Dataset) -> int | None:
    """Return how many classes are left; None where only the set's files tell."""
    if dataset.class_names is not None:
        return len(kept_classes(dataset, dataset.class_names))
    counts = {"only": 1, "keep": len(set(dataset.keep or ()))}
    return counts.get(_given(dataset)[0])
