"""Published numbers as data: CSV files, a number a line, and what is wrong with one. It knows no rows.

A line says of which cell it is in the columns below, each as a study would write it (`knn`, `{knn: {k: 50}}`,
`{layer: penultimate, unit: true}`): a plugin by its name, and its parameters. What a line leaves out, a column or a
parameter, is the default: no suite, all classes, the whole set, no outliers, resnet18 of width 64, the recipe's default
(`recipe: openood/ce`, or `{base: openood/ce, epochs: 300}`, where it has a name), float32, all of ID train, a baseline
on the network's own classifier, labels for clusters, one cut for all. `any: [k]`, or `{k: [50, 100]}`, says that the
source swept a parameter of the distance or baseline and chose by validation.

`ood` may be several sets joined by +, whose unweighted mean the number then is; `group` alone is the mean over the
group's sets; `splits` says of how many class splits (one-vs-rest, leave-one-class-out) it is the mean.

`value` is in per cent, `std` in points over `n` runs, with its `ddof`. `tolerance` is by how many points a number may
be off and still be reproduced, where that is not 1; it is at most 1.5.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Interval
from pydantic import AllowInfNan, StringConstraints, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from oodbench.errors import UserError, suggestion
from oodbench.store.columns import ACCURACIES, COMPAT, METRICS, QUALITY
from oodbench.study import document, recipes
from oodbench.study.declarations import PUBLISHED
from oodbench.study.grid import CLASSIFIER
from oodbench.study.registry import Registry
from oodbench.study.settings import RESNETS, ImageFormat, Recipe, Space
from oodbench.study.study import GROUPS, HELD_OUT

ELSEWHERE = "elsewhere.yaml"  # beside the CSVs: names that this package has no plugin for, by room
ALLOWED = tuple(name for name in (*METRICS, *ACCURACIES, *COMPAT, *QUALITY) if name not in ("prevalence", "ties"))
ROOMS = {  # column -> the room that its names are of
    **dict.fromkeys(("id", "outliers"), "dataset"),
    **{room: room for room in ("training", "encoder", "clustering", "distance", "posthoc", "threshold")},
}
SETTINGS: dict[str, type] = {"space": Space, "recipe": Recipe, "image": ImageFormat}  # of parameters without a name
MARGIN, MOST = 1.0, 1.5  # points: by which a number is off at most and still reproduced, and what a file may say

Points = Annotated[float, Interval(ge=0, le=100), AllowInfNan(False)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Params = Mapping[str, Any]


class Entry(NamedTuple):
    """A part of a cell by its name, with the parameters that matter."""

    name: str
    params: Params

    @property
    def text(self) -> str:
        return self.name + (f"({shown(self.params)})" if self.params else "")


def shown(params: Params) -> str:
    """Return parameters as labels have them."""
    return ", ".join(f"{key}={plain(value)}" for key, value in params.items())


def plain(value: Any) -> str:
    """Return a parameter's value as labels have it: 0.5, 10+20, shared."""
    if isinstance(value, list | tuple):
        return "+".join(map(plain, value))
    return f"{value:g}" if isinstance(value, float | int) and not isinstance(value, bool) else str(value)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A published number, and the cell that it is of."""

    metric: Text
    value: Points
    source: Text
    std: Points | None = None
    ddof: Annotated[int, Interval(ge=0, le=1)] | None = None
    n: Annotated[int, Ge(1)] | None = None
    tolerance: Annotated[float, Interval(gt=0, le=MOST), AllowInfNan(False)] | None = None  # points
    suite: str = ""
    id: Entry | None = None
    protocol: str = ""
    splits: Annotated[int, Ge(1)] | None = None
    ood: tuple[Entry, ...] = ()
    group: str = ""
    training: Entry | None = None
    outliers: Entry | None = None
    encoder: Entry | None = None
    epochs: Annotated[int, Ge(0)] | None = None
    recipe: Recipe = field(default_factory=Recipe)
    precision: str = "float32"
    reference: str = ""  # as rows show it; "": all of ID train trains
    image: dict[str, Any] = field(default_factory=dict)  # only without a suite, which says it
    space: Space | None = None
    clustering: Entry | None = None
    distance: Entry | None = None
    posthoc: Entry | None = None
    head: Literal["", "classifier", "linear probe"] = ""  # of a baseline; "": the network's own classifier
    any: dict[str, Any] = field(default_factory=dict)  # swept parameter of the scorer -> its values, None = all
    threshold: Entry | None = None
    note: str = ""
    place: str = ""  # file:line

    @property
    def deviation(self) -> float:
        """The deviation over runs with ddof 1, in points; NaN where none is published.

        One with ddof 0 is smaller by sqrt((n - 1) / n), which for n = 3 hides 18 %: it is rescaled.
        """
        if self.std is None or self.n is None:
            return math.nan
        return self.std * (self.n / (self.n - 1)) ** 0.5 if self.ddof == 0 else self.std

    @property
    def margin(self) -> float:
        """By how many points a number may be off and still be reproduced: 1, or what the file says, at most 1.5."""
        return MARGIN if self.tolerance is None else self.tolerance

    @property
    def reads(self) -> str:
        """Whose logits its baseline reads; "" without a baseline."""
        return (self.head or CLASSIFIER) if self.posthoc else ""

    @property
    def trained(self) -> Recipe:
        """Its recipe, of so many epochs as it says."""
        return self.recipe if self.epochs is None else replace(self.recipe, epochs=self.epochs)

    @property
    def sets(self) -> str:
        """What it was tested on, as a table shows it."""
        members = " + ".join(each.text for each in self.ood)
        return f"{self.group} ({members})" if self.group and members else self.group or members

    @property
    def method(self) -> str:
        """Training and scorer, as a table shows them."""
        scorer = self.distance or self.posthoc
        return " · ".join(each.text for each in (self.training, scorer) if each)

    @property
    def cell(self) -> tuple[Any, ...]:
        """What tells it from every other number of its source."""
        rest = ("value", "std", "ddof", "n", "tolerance", "note", "place")
        return tuple(repr(getattr(self, each.name)) for each in fields(self) if each.name not in rest)


COLUMNS = tuple(f.name for f in fields(Target) if f.name != "place")
REQUIRED = ("metric", "value", "source")


# ---- files ------------------------------------------------------------------------------------------------


def published() -> Path:
    """Return the folder of the published numbers: inside an installed package, or in the source tree."""
    package = Path(str(resources.files("oodbench")))
    inside = package / "published"
    return inside if inside.is_dir() else package.parent / "results" / "targets"


def find(given: str, beside: Path) -> Path:
    """Return the folder or file that is meant: `targets`, or a path relative to `beside`."""
    return published() if given == PUBLISHED else beside / Path(given).expanduser()


def load(path: Path, registry: Registry) -> list[Target]:
    """Return the targets of a CSV file, or of all in a folder. Raises UserError with the file and line of a mistake."""
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"there is no CSV file of targets {'in ' if path.is_dir() else ''}{path}")
    elsewhere = _elsewhere((path if path.is_dir() else path.parent) / ELSEWHERE)
    known = {room: {*registry.sources(room), *elsewhere.get(room, {})} for room in {*ROOMS.values()} - {"encoder"}}
    known["encoder"] = {*RESNETS, *elsewhere.get("encoder", {})}
    found = [target for file in files for target in _read(file, known)]
    first: dict[tuple[Any, ...], Target] = {}
    for each in found:
        other = first.setdefault(each.cell, each)
        if other is not each:
            raise UserError(f"{each.place}: the same cell, metric and source are in {other.place}, too")
    return found


def _elsewhere(file: Path) -> dict[str, dict[str, str]]:
    if not file.is_file():
        return {}
    read = document.read(file)
    for room, names in read.value.items():
        if room not in ROOMS.values():
            read.fail((room,), f"there is no such room{suggestion(room, ROOMS.values())}")
        if not isinstance(names, dict):
            read.fail((room,), f"is {names!r}, wanted a mapping from names to what they are")
    return read.value


def _read(file: Path, known: Mapping[str, Collection[str]]) -> Iterator[Target]:
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            header = reader.fieldnames or []
            _check_header(file, header)
            for values in reader:
                place = f"{file}:{reader.line_num}"
                if None in values or None in values.values():
                    raise UserError(f"{place}: has another number of columns than the {len(header)} of the first line")
                yield _target(values, place, known)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{file}:{reader.line_num}: is not CSV: {error}") from error


def _check_header(file: Path, header: Collection[str]) -> None:
    for name in header:
        if name not in COLUMNS:
            raise UserError(f"{file}:1: there is no column '{name}'{suggestion(name, COLUMNS)}")
    if len(set(header)) < len(header):
        raise UserError(f"{file}:1: a column stands twice")
    for name in REQUIRED:
        if name not in header:
            raise UserError(f"{file}:1: the column '{name}' is missing; wanted are {', '.join(REQUIRED)}")


# ---- lines ------------------------------------------------------------------------------------------------


def _target(values: Mapping[str, str], place: str, known: Mapping[str, Collection[str]]) -> Target:
    given: dict[str, Any] = {name: text.strip() for name, text in values.items() if text.strip()}
    for name, text in given.items():
        try:
            given[name] = _value(name, text, known)
        except UserError as error:
            raise UserError(f"{place}: {name}: {error}") from None
    try:
        found = _TARGET.validate_python(given | {"place": place})
    except ValidationError as error:
        first = error.errors()[0]
        what = (
            f"is {first['input']!r}, {first['msg'].removeprefix('Input ')}" if first["loc"][0] in given else "is empty"
        )
        raise UserError(f"{place}: {first['loc'][0]}: {what}") from None
    if found.std is not None and (found.ddof is None or found.n is None or found.n < 2):
        raise UserError(f"{place}: std: needs `ddof`, 0 or 1, and `n`, at least 2 runs")
    if found.distance and found.posthoc:
        raise UserError(f"{place}: posthoc: a cell has a distance or a baseline, not both")
    if found.any and not (found.distance or found.posthoc):
        raise UserError(f"{place}: any: names parameters of a distance or a baseline, and there is none")
    if found.head and not found.posthoc:
        raise UserError(f"{place}: head: is of a baseline, and there is no posthoc")
    if found.metric not in (*ACCURACIES, *QUALITY) and not (found.ood or found.group):
        raise UserError(f"{place}: ood: is empty, and so is group; one of them is needed for {found.metric}")
    return found


def _value(column: str, text: str, known: Mapping[str, Collection[str]]) -> Any:
    if column == "metric" and text not in ALLOWED:
        raise UserError(f"rows have no number '{text}'{suggestion(text, ALLOWED)}")
    if column == "group" and text not in GROUPS:
        raise UserError(f"there is no such group '{text}'{suggestion(text, GROUPS)}")
    if column == "ood":
        sets = (_entry(each) for each in _members(text))
        return tuple(_known(each, "dataset", {*known["dataset"], HELD_OUT}) for each in sets)
    if column in ROOMS:
        return _known(_entry(text), ROOMS[column], known[ROOMS[column]])
    if column == "any":
        return _swept(_yaml(text), text)
    return _settings(column, _yaml(text), text) if column in SETTINGS else text


def _swept(found: Any, text: str) -> dict[str, Any]:
    """Return which parameters a source swept, over which values: `[k]` or `{k: [50, 100]}`."""
    names = dict.fromkeys(found) if isinstance(found, list) else found
    if not isinstance(names, dict) or not all(each is None or isinstance(each, list) for each in names.values()):
        raise UserError(f"is {text}, wanted a list of parameters, or each with a list of its values: {{k: [50, 100]}}")
    return names


def _settings(column: str, found: Any, text: str) -> Any:
    """Return a recipe or a space with the defaults of what is not said, the recipe on top of a base by name."""
    cls = SETTINGS[column]
    allowed = {*(f.name for f in fields(cls)), *(["base"] if cls is Recipe else [])}
    found = {"base": found} if isinstance(found, str) and cls is Recipe else found
    if not isinstance(found, dict):
        raise UserError(f"is {text}, wanted a mapping of parameters, such as {{{min(allowed)}: …}}")
    for key in found:
        if key not in allowed:
            raise UserError(f"there is no such parameter '{key}'{suggestion(key, allowed)}")
    base = recipes.find(found["base"]).values if "base" in found else {}
    given = recipes.merged(base, {key: value for key, value in found.items() if key != "base"})
    try:
        made: Any = TypeAdapter(cls).validate_python(given if cls is not ImageFormat else {"size": 1} | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}") from None
    return given if cls is ImageFormat else made


def _members(text: str) -> list[str]:
    """Return what is joined by + outside of braces."""
    return re.split(r"\s*\+\s*(?![^{}]*\})", text)


def _known(entry: Entry, room: str, names: Collection[str]) -> Entry:
    own = room == "encoder" and ("/" in entry.name or ":" in entry.name)  # timm's, or a function
    if not own and entry.name not in names:
        raise UserError(f"there is no {room} '{entry.name}', here or in {ELSEWHERE}{suggestion(entry.name, names)}")
    return entry


@cache
def _entry(text: str) -> Entry:
    """Return a name, or a name with parameters, from what a study would write."""
    found = _yaml(text)
    if isinstance(found, str):
        return Entry(found, {})
    if isinstance(found, dict) and len(found) == 1:
        ((name, params),) = found.items()
        if params is None or isinstance(params, dict):
            return Entry(str(name), params or {})
    raise UserError(f"is {text}, wanted a name or {{name: {{parameter: value}}}}")


@cache
def _yaml(text: str) -> Any:
    if re.fullmatch(r"[a-z]\w*", text) and text not in ("null", "true", "false"):
        return text  # most of them; the parser is slow
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UserError(f"is {text}, which is not YAML: {str(error).partition(chr(10))[0]}") from error


_TARGET = TypeAdapter(Target)
