"""Values of a document as typed ones, with the place of each mistake.

A mapping sets parameters and a list sweeps over them. A parameter whose own type is a list takes a list as its value
and a list of lists as a sweep.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from oodbench.errors import suggestion
from oodbench.study.document import Document, Trail

T = TypeVar("T")
MOST = 50_000  # settings that a study's sweeps make
# Of each key of a study a value that it takes; * is a name that a user gives.
EXAMPLES = {
    "allow_overlap": "true",
    "claims": "{mine: {says: k-NN is ahead, left: {distance: knn}, right: {distance: cosine}}}",
    "claims.*": "{says: k-NN is ahead, left: {distance: knn}, right: {distance: cosine}}",
    **{f"claims.*.{key}": "{distance: knn}" for key in ("of", "left", "at", "winner")},
    **{f"claims.*.{key}": "{distance: cosine}" for key in ("right", "than")},
    **{f"claims.*.{key}": "[training, space]" for key in ("over", "among")},
    "clustering": "[labels, {kmeans: {k: 10}}]",
    "compat": "true",
    "covariate": "{digits: {limit: 100}}",
    "curve": "{of: {distance: [cosine, knn]}}",
    "curve.of": "{distance: [cosine, knn]}",
    "data": "../data",
    "distance": "[cosine, {knn: {k: [1, 10]}}]",
    "encoder": "{resnet18: {width: 16}}",
    "id": "{digits: {only: [1, 2, 3]}}",
    "image": "{size: 32, channels: 3}",
    "keep": "[0, last]",
    "learned": "0.5",
    "name": "my study",
    "ood": "{near: held_out, far: [noise, natural_patches]}",
    "ood.near": "[held_out, {blobs: {count: 60}}]",
    "ood.far": "[noise, natural_patches]",
    "outliers": "natural_patches",
    "plugins": "[my_method.py]",
    "posthoc": "[msp, energy]",
    "precision": "[float32, bf16]",
    "recipe": "{base: fast, epochs: 100, augment: {crop: [0.3, 1.0]}, for: {simclr: {lr: 0.3}}}",
    "recipe.augment": "{crop: [0.3, 1.0], flip: 0}",
    "recipe.base": "fast",
    "recipe.for": "{simclr: {lr: 0.3}}",
    "reference": "{val: 0.2}",
    "reference.set": "{digits: {limit: 100}}",
    "scores": "{of: {seed: 0}, claims: true}",
    "scores.of": "{seed: 0}",
    "seed": "[0, 1, 2]",
    "select": "{over: [distance], by: val_auroc}",
    "select.over": "[distance]",
    "skip": "[{training: simclr, seed: [1, 2]}]",
    "space": "[{layer: penultimate}, {layer: penultimate, unit: true}]",
    "store": "../store",
    "suite": "openood/cifar10",
    "tables": "{mine: {rows: [training, distance], columns: [ood], value: auroc}}",
    "tables.*": "{rows: [training, distance], columns: [ood], value: auroc}",
    "tables.*.of": "{distance: [cosine, knn]}",
    "tables.*.rows": "[training, distance]",
    "tables.*.columns": "[ood]",
    "tables.*.value": "[auroc, fpr95_id]",
    "threshold": "[pooled, {per_cluster: {level: 0.9}}]",
    "training": "[cross_entropy, {simclr: {temperature: 0.5}}]",
    "validation": "{noise: {size: 28}}",
    "variance": "machine",
}
KINDS = {  # as YAML calls them
    **{"a valid array": "a list", "an object": "a mapping", "a valid dictionary": "a mapping"},
    "a valid boolean": "true or false",
}
PATTERNS = {"mlp": "linear, cosine or mlp-128", "classes": "10, classes or 2*classes"}  # what one of each allows


def form(trail: Trail) -> str:
    """Return an accepted value of a key of a study, as the end of a message; "" where there is none to show."""
    names = [part for part in trail if isinstance(part, str)]
    key = ".".join([names[0], "*", *names[2:]] if names[1:] and names[0] in ("claims", "tables") else names)
    return f"; for example `{names[-1]}: {EXAMPLES[key]}`" if key in EXAMPLES else ""


class Values:
    """Reads the values of a document. Everything raises UserError with file and line."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.top = document.value
        self.fail = document.fail
        self._made = 0  # settings so far

    def get(self, trail: Trail) -> Any:
        """Return the plain value at a trail."""
        value: Any = self.top
        for part in trail:
            value = value[part]
        return value

    def mapping(self, trail: Trail) -> dict[str, Any]:
        value = self.get(trail) if trail[0] in self.top else {}
        if not isinstance(value, dict):
            self.unlike(trail, value, "a mapping")
        return value

    def items(self, trail: Trail) -> list[tuple[Trail, Any]]:
        """Return the items of a list, or the one value that there is, each with its trail."""
        value = self.get(trail)
        return [((*trail, i), each) for i, each in enumerate(value)] if isinstance(value, list) else [(trail, value)]

    def unlike(self, trail: Trail, value: Any, wanted: str, cls: Any = None) -> NoReturn:
        """Refuse a value of another kind than a key takes, with a value that it takes; of parameters one of a class."""
        known = form(trail) or (_parameters(cls) if dataclasses.is_dataclass(cls) else "")
        self.fail(trail, f"is {value!r}, wanted {wanted}{known}")

    def entries(self, value: Any, trail: Trail) -> Iterator[tuple[str, Any, Trail]]:
        """Yield (name, parameters, trail) of each entry of an axis: a name, {name: parameters}, or a list of them."""
        if isinstance(value, str):
            yield value, {}, trail
        elif isinstance(value, dict):
            yield from ((name, params, (*trail, name)) for name, params in value.items())
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if item is None:
                    self.fail((*trail, i), f"is empty{form(trail)}")
                yield from self.entries(item, (*trail, i))
        elif value is not None:
            self.unlike(trail, value, "a name, {name: parameters} or a list of these")

    def values(self, hint: Any, value: Any, trail: Trail) -> list[Any]:
        """Return the values of a parameter: one, or several where a list sweeps over it."""
        if dataclasses.is_dataclass(hint):
            return self.sweep(hint, value, trail)
        try:
            return [TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)]
        except ValidationError as error:
            if not isinstance(value, list):
                said = _what_is_wrong(value, error.errors())
                known = "" if "; allowed: " in said or "did you mean" in said else form(trail)
                self.fail(trail, said + " or null" * (type(None) in get_args(hint) and not known) + known)
            place = next((each["loc"][0] for each in error.errors() if each["loc"]), None)
            if isinstance(place, int) and place < len(value) and not any(isinstance(each, list) for each in value):
                of_it = [each for each in error.errors() if each["loc"][:1] == (place,)]  # no sweep, but one list
                self.fail((*trail, place), _what_is_wrong(value[place], of_it) + form(trail))
        if not value:
            self.fail(trail, f"is an empty list: there is nothing to sweep over{form(trail)}")
        return [each for i, item in enumerate(value) for each in self.values(hint, item, (*trail, i))]

    def options(self, cls: Any, raw: Any, trail: Trail, others: Sequence[str] = ()) -> dict[str, list[Any]]:
        """Return the values that each of some parameters may have; of a class that is not known (None), any.

        `others` are keys that may stand beside them and are read elsewhere: a message on a slip names them, too.
        """
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            self.unlike(trail, raw, "a mapping of parameters", cls)
        if cls is None:
            return {key: value if isinstance(value, list) else [value] for key, value in raw.items()}
        known = [f.name for f in dataclasses.fields(cls)]
        for key in raw:
            if key not in known:
                self.fail((*trail, key), f"there is no such parameter{suggestion(key, [*known, *others])}")
        hints = get_type_hints(cls, include_extras=True)
        return {key: self.values(hints[key], value, (*trail, key)) for key, value in raw.items()}

    def sweep(self, cls: Any, raw: Any, trail: Trail, others: Sequence[str] = ()) -> list[Any]:
        """Return an instance for each combination of the parameters in a mapping; `others` as `options` has them."""
        options = self.options(cls, raw, trail, others)
        self.count(options, trail)
        for f in dataclasses.fields(cls):
            if f.name not in options and f.default is f.default_factory is dataclasses.MISSING:
                self.fail(trail, f"the parameter '{f.name}' is missing")
        try:
            return [cls(**each) for each in combinations(options)]
        except ValueError as error:
            self.fail(trail, str(error))

    def count(self, options: dict[str, list[Any]], trail: Trail) -> None:
        """Refuse more combinations than anybody can run, before they are made."""
        count = prod(map(len, options.values()))
        self._made += count
        if self._made > MOST:
            by = " x ".join(f"{len(each)} of {key}" for key, each in options.items() if len(each) > 1)
            self.fail(trail, f"sweeps over {count} combinations ({by}); all sweeps together make {MOST} at most")

    def one(self, cls: type[T], raw: Any, trail: Trail) -> T:
        """Return the one value of a type at a trail; a sweep is refused."""
        found: list[T] = self.values(cls, raw, trail)
        if len(found) != 1:
            self.fail(trail, "takes one value each, a sweep is not possible here")
        return found[0]

    def axis(self, found: list[T], trail: Trail) -> list[T]:
        """Return an axis, each entry once. Two that a table could not tell apart are refused."""
        if not found:
            self.fail(trail, f"the axis is empty{form(trail)}")
        # by name, too: a plugin's file may be a copy of another one's, class and all
        same: dict[tuple[str, str], T] = {}
        for each in found:
            first = same.setdefault((getattr(each, "name", ""), repr(each)), each)
            names = [getattr(entry, "label", "") for entry in (first, each)]
            if names[0] != names[1]:
                self.fail(trail, f"'{names[0]}' and '{names[1]}' are the same: {each}")
        once = list(same.values())
        labels: dict[str, T] = {}
        for each in once:
            label = getattr(each, "label", repr(each))
            if label in labels:
                self.fail(trail, f"two entries are both shown as '{label}': {labels[label]} and {each}")
            labels[label] = each
        return once


def combinations(options: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(options, each, strict=True)) for each in itertools.product(*options.values())]


def _parameters(cls: Any) -> str:
    """Return the first parameter of a class as a study would say it, as the end of a message."""
    plain = (f for f in dataclasses.fields(cls) if type(f.default) in (bool, int, float, str))
    return next((f"; for example `{{{f.name}: {json.dumps(f.default)}}}`" for f in plain), "")


def _what_is_wrong(value: Any, errors: Sequence[ErrorDetails]) -> str:
    wants = " or ".join(
        dict.fromkeys(each["msg"].removeprefix("Input ").removeprefix("Value error, ") for each in errors)
    )
    for theirs, ours in KINDS.items():
        wants = wants.replace(theirs, ours)
    if patterns := [each["ctx"]["pattern"] for each in errors if each["type"] == "string_pattern_mismatch"]:
        shown = [f", such as {text}" for word, text in PATTERNS.items() if word in patterns[0]]
        wants = wants.replace("String should match pattern", "should be text of the pattern")
        return f"is {value!r}, {wants.replace(' or should be', ' or')}{''.join(shown)}"  # it is no list of choices
    allowed = re.findall(r"'([^']+)'", wants)
    said = "allowed: " in wants  # by a plugin, of its own names
    hint = suggestion(value, allowed) if isinstance(value, str) and allowed and not said else ""
    return f"is {value!r}, {wants}{hint}"
