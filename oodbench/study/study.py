"""A study file as checked, typed values: every mistake is found here, before any work.

Under the keys that are axes a list is a sweep and a mapping sets parameters. A parameter whose own type
is a list takes a list as its value and a list of lists as a sweep.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_type_hints

from annotated_types import Interval
from pydantic import TypeAdapter, ValidationError

from oodbench.api import Clustering, Dataset, Distance, Plugin, Posthoc, Threshold, Training
from oodbench.errors import UserError, suggestion
from oodbench.store.columns import FLOATS, INTEGERS, LABELS
from oodbench.study import recipes as cookbook
from oodbench.study import suites as suite
from oodbench.study.class_protocol import class_count
from oodbench.study.declarations import ClaimSpec, problems
from oodbench.study.document import Document, Trail, read
from oodbench.study.registry import Registry
from oodbench.study.settings import RESNETS, Encoder, ImageFormat, Precision, Recipe, Reference, ResNet, Space, flat

HELD_OUT = "held_out"  # under `ood:`, the classes that the ID set leaves out
GROUPS = ("near", "far")  # of the OOD sets of a study
DRY = ".dry"  # ends the name of a study on stand-in data, and so its folder's
PUBLISHED = "targets"  # under `against:`, the published numbers that come with the package
LAST = "last"  # under `keep:`, the epoch that a training ends with
UNGROUPED = "ood"  # the group of features whose user does not say
AXES = (
    *("id", "training", "outliers", "encoder", "recipe", "precision", "seed"),
    *("space", "clustering", "distance", "posthoc", "threshold"),
)
SELECTABLE = ("space", "clustering", "distance", "posthoc")  # axes whose settings rank items in other ways
NAME = re.compile(r"\w[\w .+-]*")  # of studies and tables, which become files
Seed = Annotated[int, Interval(ge=0, lt=2**63)]
Share = Annotated[float, Interval(gt=0, le=1)]
T = TypeVar("T")
P = TypeVar("P", bound=Plugin)


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table that a study declares: one number for each combination of row and column."""

    rows: tuple[str, ...]  # columns of the row file: training, distance, ...
    columns: tuple[str, ...] = ("ood",)
    value: str | tuple[str, ...] = "auroc"
    of: dict[str, Any] = field(default_factory=dict)  # keep rows where each column has this label, or one of these
    caption: str = ""
    against: str = ""  # published numbers that its rows are held against: a file or folder, relative to the study

    @property
    def values(self) -> tuple[str, ...]:
        return (self.value,) if isinstance(self.value, str) else self.value


@dataclass(frozen=True, kw_only=True)
class Select:
    """Axes whose settings are chosen, not compared: by ID reference against validation OOD, never by a test set."""

    over: tuple[str, ...]  # of SELECTABLE
    by: Literal["val_auroc", "val_fpr95_id", "val_fpr95_ood"] = "val_auroc"


@dataclass(frozen=True, kw_only=True)
class CurveSpec:
    """Which cells are followed over the epochs that a study keeps; nothing said: one for each distance."""

    of: dict[str, Any] = field(default_factory=dict)  # keep cells where each label is this, or one of these


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The top-level keys of a study that are single values."""

    name: str = ""  # default: the file's stem
    plugins: tuple[str, ...] = ()  # files or folders of further plugins, relative to the study
    data: str | None = None  # folder of downloaded data; default: $OODBENCH_DATA, else ./data
    store: str | None = None  # folder of artifacts; default: $OODBENCH_STORE, else results/store
    image: ImageFormat
    learned: Share | None = None  # frozen-probe accuracy below which tables mark an encoder; default: see learned.py
    allow_overlap: bool = False  # True: go on when an OOD test image is also in ID train or in the outliers


@dataclass(frozen=True)
class Match:
    """An entry of `skip:`: the name of a part of a cell, and the values that its parameters may have."""

    name: str  # "" for what has none: a seed, a precision, a space
    params: dict[str, list[Any]]
    text: str

    def fits(self, part: Any) -> bool:
        if part is None or (self.name and part.name != self.name):
            return False
        if isinstance(part, int | str):
            return all(part in allowed for allowed in self.params.values())
        values = part.params if hasattr(part, "params") else vars(part)
        return all(values.get(key) in allowed for key, allowed in self.params.items())


@dataclass(frozen=True)
class Skip:
    """Leaves out the cells that fit one match of each axis."""

    entries: dict[str, list[Match]]


@dataclass(frozen=True, kw_only=True)
class Detectors:
    """The axes of detectors: what scores features, whatever made them."""

    registry: Registry
    reference: Reference  # where ID sets differ in theirs, one of them: they are of one kind
    spaces: list[Space]
    clusterings: list[Clustering]
    distances: list[Distance]
    posthocs: list[Posthoc]
    thresholds: list[Threshold]
    saw: tuple[str, ...] = ()  # labels of the validation OOD sets
    compat: bool = False  # also the numbers that other codebases' rules give on the same scores


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an ID set is tested on."""

    ood: dict[str, dict[str, Dataset]]  # group -> name -> set
    reference: Reference
    validation: list[Dataset]  # OOD sets, of which the `train` split chooses; no test sees them
    outliers: list[Dataset]
    suite: str  # where it is from, and what of that the study changed; empty where it is the study's own


@dataclass(frozen=True, kw_only=True)
class Study:
    document: Document
    name: str
    detectors: Detectors
    settings: Settings
    ids: list[Dataset]
    setups: dict[str, Setup]  # by ID label
    encoders: list[Encoder]
    recipes: dict[str, dict[str, Recipe]]  # training name -> variant's label -> recipe
    recipes_shown: dict[str, dict[str, str]]  # training name -> variant's label -> what rows say of it
    precisions: list[Precision]
    seeds: list[int]
    trainings: list[Training]
    select: Select | None
    skips: list[Skip]
    tables: dict[str, TableSpec]
    claims: dict[str, ClaimSpec] = field(default_factory=dict)
    curve: CurveSpec = CurveSpec()
    keep: tuple[int, ...] = ()  # epochs after which the weights are kept, ascending, beside the last; 0 = untrained
    warns: tuple[str, ...] = ()  # what each row warns of
    cells: frozenset[str] | None = None  # the only cells that a dry run takes; None = all

    @property
    def file(self) -> Path:
        return self.document.file

    @property
    def registry(self) -> Registry:
        return self.detectors.registry

    @property
    def ood(self) -> dict[str, dict[str, dict[str, Dataset]]]:
        """The OOD test sets: ID label -> group -> name -> set."""
        return {label: each.ood for label, each in self.setups.items()}

    @property
    def outliers(self) -> list[Dataset]:
        return list(dict.fromkeys(each for setup in self.setups.values() for each in setup.outliers))

    @property
    def suites(self) -> list[str]:
        """Where the data is from, where that is a suite."""
        return list(dict.fromkeys(each.suite for each in self.setups.values() if each.suite))

    @property
    def datasets(self) -> list[Dataset]:
        """All data sets, in whatever role."""
        found = [*self.ids, *self.outliers]
        for setup in self.setups.values():
            found += [each for members in setup.ood.values() for each in members.values()]
            found += [*setup.validation, *([setup.reference.held_out] if setup.reference.held_out else [])]
        return found

    @property
    def plugins(self) -> dict[str, list[Plugin]]:
        """All plugins by room."""
        axes = self.detectors
        return {
            "dataset": [*self.datasets],
            "training": [*self.trainings],
            "clustering": [*axes.clusterings],
            "distance": [*axes.distances],
            "posthoc": [*axes.posthocs],
            "threshold": [*axes.thresholds],
        }

    @property
    def data(self) -> Path:
        return self._folder(self.settings.data, "OODBENCH_DATA", Path("data"))

    @property
    def store(self) -> Path:
        return self._folder(self.settings.store, "OODBENCH_STORE", results_root() / "store")

    @property
    def results(self) -> Path:
        return results_root() / self.name

    def _folder(self, given: str | None, variable: str, default: Path) -> Path:
        if given is not None:
            return self.file.parent / Path(given).expanduser()
        return Path(os.environ.get(variable) or default)


def results_root() -> Path:
    """Return the folder of all results: $OODBENCH_RESULTS, else ./results."""
    return Path(os.environ.get("OODBENCH_RESULTS") or "results")


def load(file: Path) -> Study:
    """Read a study and check every key, name and parameter of it."""
    return _Reader(read(file)).study()


def load_grid(file: Path, saw: tuple[str, ...]) -> Detectors:
    """Read a file of detectors alone: the keys of a study that score, without those that train."""
    reader = _GridReader(read(file))
    reader.registry = reader.open_registry()
    return reader.detectors(saw)


def results_of(file: Path) -> Path:
    """Return the folder of a study's results, without checking the rest of the file."""
    return results_root() / _name(read(file))


def _name(document: Document) -> str:
    """Return the name of a study, which is also a folder's."""
    name = document.value.get("name") or document.file.stem
    if not isinstance(name, str) or not NAME.fullmatch(name) or name == "store":
        document.fail(("name",), f"{name!r} cannot name a folder; letters, digits, blanks and . + - _ can, not 'store'")
    if name.endswith(DRY):
        document.fail(("name",), f"{name!r}: names that end in {DRY} are of dry runs")
    return name


def tables_of(file: Path) -> tuple[dict[str, TableSpec], Select | None, float | None]:
    """Return the tables that a study or a grid declares, what it selects, and below which accuracy nothing was learned.

    No plugin is imported.
    """
    document = read(file)
    reader = _Reader(document) if "training" in document.value else _GridReader(document)
    return reader.tables(), reader.select(), reader.learned()


def registry_of(file: Path) -> Registry:
    """Return the plugins that a study or a grid may name; none is imported."""
    document = read(file)
    return (_Reader if "training" in document.value else _GridReader)(document).open_registry()


def claims_of(file: Path) -> dict[str, ClaimSpec]:
    """Return the claims that a study declares; no plugin is imported."""
    return _Reader(read(file)).claims()


KEYS = {
    *(f.name for f in dataclasses.fields(Settings)),
    *AXES,
    *("suite", "ood", "reference", "skip", "tables", "validation", "select", "keep", "curve", "claims", "compat"),
}
REQUIRED = ("image", "id", "ood", "encoder", "training", "threshold")
GRID_KEYS = {
    *("plugins", "space", "clustering", "distance", "posthoc", "threshold", "reference", "tables", "select", "compat"),
}


class _Reader:
    """Turns the plain values of a document into typed ones, with the place of each mistake."""

    keys = KEYS
    required: tuple[str, ...] = REQUIRED
    validation_hint = "the key 'validation'"

    def __init__(self, document: Document) -> None:
        for key in document.value:
            if key not in self.keys:
                document.fail((key,), f"there is no such key{suggestion(key, self.keys)}")
        self.document = suite.resolve(document)
        self.fail = self.document.fail
        self.top = self.document.value
        for key in self.required:
            if key not in self.top:
                self.fail((), f"the key '{key}' is missing; wanted are {', '.join(self.required)}")
        if not {"distance", "posthoc"} & set(self.top):
            self.fail((), "the key 'distance' is missing, and 'posthoc', too; one of them is needed, or both")

    def study(self) -> Study:
        settings = self.one(Settings, {k: v for k, v in self.top.items() if k in _SETTINGS}, ())
        self.registry = self.open_registry()
        trainings = self.plugins(Training, "training", ("training",))
        ids, setups = self.setups()
        validation = [each for setup in setups.values() for each in setup.validation]
        recipes = self.recipes([training.name for training in trainings])
        study = Study(
            document=self.document,
            name=_name(self.document),
            detectors=self.detectors(tuple(dict.fromkeys(each.label for each in validation))),
            settings=settings,
            ids=ids,
            setups=setups,
            encoders=self.encoders(),
            recipes={name: {label: each.recipe for label, each in found.items()} for name, found in recipes.items()},
            recipes_shown={
                name: {label: each.shown for label, each in found.items()} for name, found in recipes.items()
            },
            precisions=self.precisions(),
            seeds=self.seeds(),
            trainings=trainings,
            select=self.select(),
            skips=self.skips(),
            tables=self.tables(),
            claims=self.claims(),
            curve=self.curve(),
            keep=self.keep(),
        )
        self.check_outliers(study)
        self.check_epochs(study)
        self.check_keep(study)
        self.check_skips(study)
        return study

    def detectors(self, saw: tuple[str, ...]) -> Detectors:
        """Return the axes of detectors; `saw` are the labels of the validation OOD sets."""
        compat = self.top.get("compat", False)
        if not isinstance(compat, bool):
            self.fail(("compat",), f"is {compat!r}, should be true or false")
        found = Detectors(
            registry=self.registry,
            reference=self.reference(self.part("reference", 0)),
            spaces=self.sweeps(Space, ("space",)) if "space" in self.top else [Space()],
            clusterings=self.optional(Clustering, "clustering", "clustering"),
            distances=self.optional(Distance, "distance", "distance"),
            posthocs=self.optional(Posthoc, "posthoc", "posthoc"),
            thresholds=self.plugins(Threshold, "threshold", ("threshold",)),
            saw=saw,
            compat=compat,
        )
        needy = [each.label for each in found.distances if each.clusters]
        if needy and not found.clusterings:
            self.fail(("distance",), f"{', '.join(needy)} needs clusters; say which with the key 'clustering'")
        for each in found.thresholds:
            if each.needs_ood and each.level != type(each).level:
                self.fail(("threshold",), f"{each.name} takes no level: validation OOD sets its cut")
        needy = [each.label for each in found.thresholds if each.needs_ood]
        if needy and not saw:
            self.fail(("threshold",), f"{', '.join(needy)} is set on OOD; say on which: {self.validation_hint}")
        if "select" in self.top and not saw:
            self.fail(("select",), f"chooses by validation OOD; say which: {self.validation_hint}")
        if saw and found.reference.kind == "train":
            self.fail(
                ("reference",), "`train` holds nothing out, and validation OOD stands against a held-out reference"
            )
        self.check_select(found)
        return found

    def open_registry(self) -> Registry:
        """Return the package's plugins, and those that the file brings along."""
        (paths,) = self.values(tuple[str, ...], self.top.get("plugins", []), ("plugins",))
        try:
            return Registry([self.document.file.parent / path for path in paths])
        except UserError as error:
            self.fail(("plugins",), str(error).removeprefix("plugins: "))

    # ---- suites

    def part(self, key: str, i: int) -> Trail:
        """Return where the value of a key for the ID sets of a suite is: that of the suite, or the study's for all."""
        return (key, i) if (key, i) in self.document.origin else (key,)

    def setups(self) -> tuple[list[Dataset], dict[str, Setup]]:
        """Return the ID sets and, by label, what each is tested on: as the study says, or each of its suites."""
        ids: list[Dataset] = []
        found: dict[str, Setup] = {}
        names = suite.labels(self.document) or [""]
        for i, name in enumerate(names):
            mine = self.plugins(Dataset, "dataset", self.part("id", i))
            for each in mine:
                if each.label in found:
                    self.fail(
                        ("suite", i), f"{each.label} is an ID set of {found[each.label].suite}, too; run them apart"
                    )
            ood = self.ood(mine, self.part("ood", i))
            reference = self.reference(self.part("reference", i))
            validation, outliers = (self.optional(Dataset, "dataset", key, i) for key in ("validation", "outliers"))
            for each in mine:
                found[each.label] = Setup(
                    ood=ood[each.label], reference=reference, validation=validation, outliers=outliers, suite=name
                )
            ids += mine
        return ids, found

    # ---- values

    def get(self, trail: Trail) -> Any:
        value: Any = self.top
        for part in trail:
            value = value[part]
        return value

    def mapping(self, trail: Trail) -> dict[str, Any]:
        value = self.get(trail) if trail[0] in self.top else {}
        if not isinstance(value, dict):
            self.fail(trail, f"is {value!r}, wanted a mapping")
        return value

    def values(self, hint: Any, value: Any, trail: Trail) -> list[Any]:
        """Return the values of a parameter: one, or several where a list sweeps over it."""
        if dataclasses.is_dataclass(hint):
            return self.sweep(hint, value, trail)
        try:
            return [TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)]
        except ValidationError as error:
            if not isinstance(value, list):
                self.fail(trail, _what_is_wrong(value, error))
        if not value:
            self.fail(trail, "is an empty list: there is nothing to sweep over")
        return [each for i, item in enumerate(value) for each in self.values(hint, item, (*trail, i))]

    def sweep(self, cls: Any, raw: Any, trail: Trail) -> list[Any]:
        """Return an instance for each combination of the parameters in a mapping."""
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            self.fail(trail, f"is {raw!r}, wanted a mapping of parameters")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for key in raw:
            if key not in fields:
                self.fail((*trail, key), f"there is no such parameter{suggestion(key, fields)}")
        for name, f in fields.items():
            if name not in raw and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                self.fail(trail, f"the parameter '{name}' is missing")
        hints = get_type_hints(cls, include_extras=True)
        options = [self.values(hints[key], value, (*trail, key)) for key, value in raw.items()]
        return [self._construct(cls, dict(zip(raw, each, strict=True)), trail) for each in itertools.product(*options)]

    def _construct(self, cls: type[T], params: dict[str, Any], trail: Trail) -> T:
        try:
            return cls(**params)
        except ValueError as error:
            self.fail(trail, str(error))

    def one(self, cls: type[T], raw: Any, trail: Trail) -> T:
        found = self.sweep(cls, raw, trail)
        if len(found) != 1:
            self.fail(trail, "takes one value each, a sweep is not possible here")
        return found[0]  # type: ignore[no-any-return]

    def sweeps(self, cls: type[T], trail: Trail) -> list[T]:
        """Return the instances of an axis that has no names: a mapping, or a list of mappings."""
        value = self.get(trail)
        items = [(trail, value)] if not isinstance(value, list) else [((*trail, i), v) for i, v in enumerate(value)]
        return self.filled([each for at, item in items for each in self.sweep(cls, item, at)], trail)

    def filled(self, found: list[T], trail: Trail) -> list[T]:
        """Return an axis, each entry once. Two that a table could not tell apart are refused."""
        if not found:
            self.fail(trail, "the axis is empty")
        once = list({repr(each): each for each in found}.values())
        labels: dict[str, T] = {}
        for each in once:
            label = getattr(each, "label", repr(each))
            if label in labels:
                self.fail(trail, f"two entries are both shown as '{label}': {labels[label]} and {each}")
            labels[label] = each
        return once

    # ---- axes

    def entries(self, value: Any, trail: Trail) -> Iterator[tuple[str, Any, Trail]]:
        """Yield (name, parameters, trail) of each entry of an axis: a name, {name: parameters}, or a list of them."""
        if isinstance(value, str):
            yield value, {}, trail
        elif isinstance(value, dict):
            for name, params in value.items():
                yield name, params, (*trail, name)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if item is None:
                    self.fail((*trail, i), "is empty")
                yield from self.entries(item, (*trail, i))
        elif value is not None:
            self.fail(trail, f"is {value!r}, wanted a name, {{name: parameters}} or a list of these")

    def plugins(self, contract: type[P], room: str, trail: Trail, value: Any = None) -> list[P]:
        found: list[P] = []
        for name, params, at in self.entries(self.get(trail) if value is None else value, trail):
            cls = self.plugin_class(room, name, at)
            new = self.sweep(cls, params, at)
            for each in new:
                if isinstance(each, Dataset):
                    self.check_classes(each, at)
            found += new
        return self.filled(found, trail)

    def optional(self, contract: type[P], room: str, key: str, i: int = 0) -> list[P]:
        """Return the plugins under a key that a study may go without; of several suites, those of one."""
        return self.plugins(contract, room, self.part(key, i)) if key in self.top else []

    def check_classes(self, dataset: Dataset, trail: Trail) -> None:
        try:
            class_count(dataset)
        except UserError as error:
            self.fail(trail, str(error))

    def plugin_class(self, room: str, name: str, trail: Trail) -> type[Plugin]:
        try:
            return self.registry.load(room, name)
        except UserError as error:
            self.fail(trail, str(error))

    def precisions(self) -> list[Precision]:
        if "precision" not in self.top:
            return ["float32"]
        found: list[Precision] = self.filled(
            self.values(Precision, self.top["precision"], ("precision",)), ("precision",)
        )
        if "auto" in found and len(found) > 1:
            self.fail(("precision",), "has 'auto' in a list: on every device it is one of the others")
        return found

    def seeds(self) -> list[int]:
        if "seed" not in self.top:
            return [0]
        return self.filled(self.values(Seed, self.top["seed"], ("seed",)), ("seed",))

    def reference(self, trail: Trail = ("reference",)) -> Reference:
        value = self.get(trail) if "reference" in self.top else "val"
        if isinstance(value, dict) and list(value) == ["val"]:
            return self.one(Reference, {"share": value["val"]}, trail)
        if isinstance(value, dict) and list(value) == ["set"]:
            return self.held_out_set(value["set"], (*trail, "set"))
        if value not in ("val", "train"):
            self.fail(trail, f"is {value!r}, should be 'val' or 'train', {{val: share}} or {{set: data set}}")
        return self.one(Reference, {"kind": value}, trail)

    def held_out_set(self, value: Any, trail: Trail) -> Reference:
        """Return the reference that is a data set of its own."""
        found: list[Dataset] = self.plugins(Dataset, "dataset", trail)
        if len(found) != 1:
            self.fail(trail, f"is one data set, not {', '.join(each.label for each in found)}")
        return Reference(kind="set", held_out=found[0])

    def encoders(self) -> list[Encoder]:
        found: list[Encoder] = []
        for name, params, trail in self.entries(self.get(("encoder",)), ("encoder",)):
            if name in RESNETS:
                found += [
                    Encoder(name=name, params=dataclasses.asdict(each)) for each in self.sweep(ResNet, params, trail)
                ]
            elif re.fullmatch(r"timm/[\w.\-]+", name):
                found += self.sweep(_Nothing, params, trail) and [Encoder(name=name)]
            elif re.fullmatch(r"[\w.]+:\w+", name):
                found += self.functions(name, params, trail)
            else:
                known = suggestion(name, [*RESNETS, "timm/NAME", "package.module:function"])
                self.fail(trail, f"there is no encoder '{name}'{known}")
        return self.filled(found, ("encoder",))

    def functions(self, name: str, params: Any, trail: Trail) -> list[Encoder]:
        """Return an encoder for each combination of the parameters of a user's own function."""
        params = {} if params is None else params
        if not isinstance(params, dict):
            self.fail(trail, f"is {params!r}, wanted a mapping of parameters")
        for folder in (self.document.file.parent.resolve(), Path.cwd()):  # where a user's own module may lie
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
        options = [value if isinstance(value, list) else [value] for value in params.values()]
        combinations = itertools.product(*options)
        return [Encoder(name=name, params=dict(zip(params, each, strict=True))) for each in combinations]

    def recipes(self, trainings: list[str]) -> dict[str, dict[str, _Variant]]:
        """Return the recipes of each training by label: the study's, changed by what stands under `for:`."""
        raw = self.top.get("recipe", {})
        items: list[tuple[Trail, Any]] = [(("recipe",), raw)]
        if isinstance(raw, list):
            items = [(("recipe", i), item) for i, item in enumerate(raw)]
        if not items:
            self.fail(("recipe",), "the axis is empty")
        found: dict[str, list[_Variant]] = {name: [] for name in trainings}
        for trail, item in items:
            changes = (item.get("for") or {}) if isinstance(item, dict) else {}
            if not isinstance(changes, dict):
                self.fail((*trail, "for"), f"is {changes!r}, wanted a mapping from training to parameters")
            for name in changes:
                if name not in found:
                    self.fail((*trail, "for", name), f"the study has no training '{name}'{suggestion(name, found)}")
            general = {k: v for k, v in item.items() if k != "for"} if isinstance(item, dict) else item
            shared = self.recipe(general, trail)
            own = {name: self.recipe(change or {}, (*trail, "for", name)) for name, change in changes.items()}
            for name in trainings:
                found[name] += self.variants(_merge(shared, own.get(name, {})), trail)
        return {name: _labelled(variants) for name, variants in found.items()}

    def recipe(self, raw: Any, trail: Trail) -> dict[str, Any]:
        """Return a recipe as it stands in the file, each parameter checked; a name alone is the base of no changes."""
        if isinstance(raw, str):
            self.named(raw, trail)
            return {"base": raw}
        if not isinstance(raw, dict):
            self.fail(trail, f"is {raw!r}, wanted a mapping of parameters or a recipe's name")
        if "base" in raw:
            self.named(raw["base"], (*trail, "base"))
        self.allowed(Recipe, {key: value for key, value in raw.items() if key != "base"}, trail)
        return dict(raw)

    def named(self, name: Any, trail: Trail) -> dict[str, Any]:
        """Return the parameters of a recipe that comes with the package."""
        if not isinstance(name, str):
            self.fail(trail, f"is {name!r}, wanted a recipe's name")
        try:
            return cookbook.find(name).values
        except UserError as error:
            self.fail(trail, str(error))

    def variants(self, raw: dict[str, Any], trail: Trail) -> list[_Variant]:
        """Return a recipe for each combination of parameters, on top of those of a recipe by name."""
        changes = {key: value for key, value in raw.items() if key != "base"}
        if "base" not in raw:
            return [_Variant(each.label, each) for each in self.sweep(Recipe, changes, trail)]
        values = self.named(raw["base"], trail)
        base = self.one(Recipe, values, trail)
        found = self.sweep(Recipe, _merge(values, changes), trail)
        return [_Variant("; ".join(filter(None, (raw["base"], each.unlike(base)))), each) for each in found]

    # ---- ood, skip, tables

    def ood(self, ids: list[Dataset], trail: Trail = ("ood",)) -> dict[str, dict[str, dict[str, Dataset]]]:
        groups = self.mapping(trail)
        for group in groups:
            if group not in GROUPS:
                self.fail((*trail, group), f"there is no such group{suggestion(group, GROUPS)}")
        if not groups:
            self.fail(trail, "the axis is empty")
        return {each.label: self.ood_groups(each, ids, trail) for each in ids}

    def ood_groups(self, id_: Dataset, ids: list[Dataset], trail: Trail) -> dict[str, dict[str, Dataset]]:
        found: dict[str, dict[str, Dataset]] = {}
        for group, value in self.mapping(trail).items():
            members: dict[str, Dataset] = {}
            for name, each in self.ood_sets(id_, ids, value, (*trail, group)):
                if members.setdefault(name, each) != each:
                    self.fail((*trail, group), f"two sets are both shown as '{name}': {members[name]} and {each}")
            if not members:
                self.fail((*trail, group), "the group is empty")
            for other, known in found.items():
                for name in known.keys() & members.keys():
                    self.fail((*trail, group), f"{name} is in {other}, too; a set is in one group")
            found[group] = members
        return found

    def ood_sets(self, id_: Dataset, ids: list[Dataset], value: Any, trail: Trail) -> Iterator[tuple[str, Dataset]]:
        """Yield the sets of a group for one ID set, by name; `{id name: [sets]}` gives each ID set its own."""
        by_id = isinstance(value, dict) and all(isinstance(v, list | str) for v in value.values())
        if by_id:
            names = {each.name for each in ids}
            for name in value:
                if name not in names:
                    self.fail((*trail, name), f"the study has no ID set '{name}'{suggestion(name, names)}")
            if id_.name not in value:
                self.fail(trail, f"has no sets for the ID set '{id_.name}'")
            value, trail = value[id_.name], (*trail, id_.name)
        for name, params, at in self.entries(value, trail):
            if name == HELD_OUT:
                yield HELD_OUT, self.held_out(id_, at)
            else:
                found = self.sweep(self.plugin_class("dataset", name, at), params, at)
                for each in found:
                    self.check_classes(each, at)
                yield from ((each.label, each) for each in found)

    def held_out(self, id_: Dataset, trail: Trail) -> Dataset:
        left_out = id_.without if id_.without is not None else id_.only if id_.only is not None else id_.keep
        if left_out is None:
            self.fail(trail, f"the ID set {id_.label} leaves no class out; give it keep, only or without")
        names = left_out if isinstance(left_out, tuple) else (left_out,)
        if id_.without is not None:
            return dataclasses.replace(id_, keep=names, without=None)
        return dataclasses.replace(id_, without=names, keep=None, only=None)

    def tables(self) -> dict[str, TableSpec]:
        specs = self.mapping(("tables",))
        for name in specs:
            if not NAME.fullmatch(name):
                self.fail(("tables", name), f"{name!r} cannot name a file")
        return {name: self.table(spec, ("tables", name)) for name, spec in specs.items()}

    def table(self, raw: Any, trail: Trail) -> TableSpec:
        spec = self.one(TableSpec, raw, trail)
        for key, given in (("rows", spec.rows), ("value", spec.values)):
            if not given:
                self.fail((*trail, key), "is empty")
        for key, columns, known in (
            ("rows", spec.rows, LABELS),
            ("columns", spec.columns, LABELS),
            ("of", tuple(spec.of), LABELS),
            ("value", spec.values, (*FLOATS, *INTEGERS)),
        ):
            for column in columns:
                if column not in known:
                    kind = "number" if key == "value" else "label"
                    self.fail((*trail, key), f"rows have no {kind} '{column}'{suggestion(column, known)}")
        layout = (*spec.rows, *spec.columns)
        if len(set(layout)) < len(layout):
            self.fail(trail, f"a label stands twice in rows and columns: {', '.join(layout)}")
        for column, wanted in spec.of.items():
            if wanted is None or wanted == []:
                self.fail((*trail, "of", column), "is empty")
        if spec.against not in ("", PUBLISHED) and not (self.document.file.parent / spec.against).exists():
            self.fail((*trail, "against"), f"there is no file or folder {spec.against}; '{PUBLISHED}' is the package's")
        return spec

    def claims(self) -> dict[str, ClaimSpec]:
        found = {}
        for name, raw in self.mapping(("claims",)).items():
            found[name] = self.one(ClaimSpec, raw, ("claims", name))
            for trail, message in problems(found[name]):
                self.fail(("claims", name, *trail), message)
        return found

    def select(self) -> Select | None:
        if "select" not in self.top:
            return None
        found = self.one(Select, self.top["select"], ("select",))
        for axis in found.over:
            if axis not in SELECTABLE:
                self.fail(("select", "over"), f"there is nothing to choose of '{axis}'{suggestion(axis, SELECTABLE)}")
        if not found.over or len(set(found.over)) < len(found.over):
            self.fail(("select", "over"), f"is {list(found.over)}, wanted are axes, each once")
        return found

    def learned(self) -> float | None:
        """Return the study's floor of the frozen-probe accuracy."""
        if "learned" not in self.top:
            return None
        found: list[float | None] = self.values(Share | None, self.top["learned"], ("learned",))
        if len(found) != 1:
            self.fail(("learned",), "takes one value each, a sweep is not possible here")
        return found[0]

    def check_select(self, axes: Detectors) -> None:
        """Refuse a choice where there is one setting of everything: after the run it would be too late to say so."""
        select = self.select()
        plugins: dict[str, list[Any]] = {
            "clustering": axes.clusterings,
            "distance": axes.distances,
            "posthoc": axes.posthocs,
        }
        for axis in select.over if select else ():
            names = [""] * len(axes.spaces) if axis == "space" else [each.name for each in plugins[axis]]
            if len(set(names)) < len(names):
                return
        if select:
            self.fail(("select",), f"nothing to choose: nothing has several settings of {', '.join(select.over)}")

    def curve(self) -> CurveSpec:
        spec = self.one(CurveSpec, self.top.get("curve"), ("curve",))
        known = [label for label in LABELS if label not in ("ood", "group")]
        for column, wanted in spec.of.items():
            if column not in known:
                self.fail(("curve", "of", column), f"cells have no label '{column}'{suggestion(column, known)}")
            if wanted is None or wanted == []:
                self.fail(("curve", "of", column), "is empty")
        return spec

    def keep(self) -> tuple[int, ...]:
        value = self.top.get("keep", [])
        if not isinstance(value, list):
            self.fail(("keep",), f"is {value!r}, wanted a list of epochs; 0 is before the first step, '{LAST}' the end")
        for i, each in enumerate(value):
            if each != LAST and not (type(each) is int and each >= 0):
                self.fail(("keep", i), f"is {each!r}, wanted an epoch, from 0 = before the first step, or '{LAST}'")
        return tuple(sorted({each for each in value if each != LAST}))

    def skips(self) -> list[Skip]:
        value = self.top.get("skip") or []
        if not isinstance(value, list):
            self.fail(("skip",), f"is {value!r}, wanted a list of mappings from axis to name")
        return [self.skip(item, ("skip", i)) for i, item in enumerate(value)]

    def skip(self, item: Any, trail: Trail) -> Skip:
        if not isinstance(item, dict) or not item:
            self.fail(trail, f"is {item!r}, wanted a mapping from axis to name")
        axes = [axis for axis in AXES if axis != "recipe"]
        for axis in item:
            if axis not in axes:
                self.fail((*trail, axis), f"there is no such axis to skip by{suggestion(axis, axes)}")
        for axis, value in item.items():
            if value is None or value == []:
                self.fail((*trail, axis), "is empty")
        return Skip({axis: list(self.matches(axis, value, (*trail, axis))) for axis, value in item.items()})

    def matches(self, axis: str, value: Any, trail: Trail) -> Iterator[Match]:
        """Yield what an axis of a skip may be: any of a list."""
        if axis in ("seed", "precision"):
            hint = Seed if axis == "seed" else Precision
            yield Match("", {axis: self.values(hint, value, trail)}, str(value))
        elif axis == "space":
            for item in value if isinstance(value, list) else [value]:
                yield Match("", self.allowed(Space, item, trail), str(item))
        else:
            for name, params, at in self.entries(value, trail):
                text = f"{name}({params})" if params else name
                yield Match(name, self.allowed(self.class_of(axis, name, at), params, at), text)

    def class_of(self, axis: str, name: str, trail: Trail) -> type | None:
        if axis == "encoder":
            return ResNet if name in RESNETS else None
        return self.plugin_class("dataset" if axis in ("id", "outliers") else axis, name, trail)

    def allowed(self, cls: type | None, raw: Any, trail: Trail) -> dict[str, list[Any]]:
        """Return the values that each of some parameters may have."""
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            self.fail(trail, f"is {raw!r}, wanted a mapping of parameters")
        if cls is None:
            return {key: value if isinstance(value, list) else [value] for key, value in raw.items()}
        hints = get_type_hints(cls, include_extras=True)
        fields = [f.name for f in dataclasses.fields(cls)]
        for key in raw:
            if key not in fields:
                self.fail((*trail, key), f"there is no such parameter{suggestion(key, fields)}")
        return {key: self.values(hints[key], value, (*trail, key)) for key, value in raw.items()}

    def check_skips(self, study: Study) -> None:
        known: dict[str, list[Any]] = {
            "id": study.ids,
            "training": study.trainings,
            "outliers": study.outliers,
            "encoder": study.encoders,
            "clustering": study.detectors.clusterings,
            "distance": study.detectors.distances,
            "posthoc": study.detectors.posthocs,
            "threshold": study.detectors.thresholds,
        }
        for i, skip in enumerate(study.skips):
            for axis, matches in skip.entries.items():
                names = {each.name for each in known.get(axis, [])}
                for match in matches:
                    if match.name and match.name not in names:
                        hint = suggestion(match.name, names)
                        self.fail(("skip", i, axis), f"the study has no {axis} '{match.name}'{hint}")

    def check_epochs(self, study: Study) -> None:
        for training in study.trainings:
            for recipe in study.recipes[training.name].values():
                if 0 < recipe.epochs < training.least_epochs:
                    self.fail(
                        ("training",),
                        f"{training.label} warms up and needs {training.least_epochs} epochs, the recipe has "
                        f"{recipe.epochs}; its last part would never be trained",
                    )

    def check_keep(self, study: Study) -> None:
        for training, variants in study.recipes.items():
            for recipe in variants.values():
                for each in study.keep:
                    if each > recipe.epochs:
                        where = ("keep", self.top["keep"].index(each))
                        self.fail(where, f"there is no epoch {each}: {training} ends with epoch {recipe.epochs}")

    def check_outliers(self, study: Study) -> None:
        needy = sorted({training.label for training in study.trainings if training.outliers})
        if needy and not study.outliers:
            self.fail(("training",), f"{', '.join(needy)} needs outliers; say which with the key 'outliers'")


class _GridReader(_Reader):
    """Reads a file of detectors alone, which score features that are there already."""

    keys = GRID_KEYS
    required = ("threshold",)
    validation_hint = "the option --validation"

    def held_out_set(self, value: Any, trail: Trail) -> Reference:
        self.fail(trail, "features come without images; give those of the held-out set with --val")


_SETTINGS = {f.name for f in dataclasses.fields(Settings)}


@dataclass(frozen=True)
class _Nothing:
    """Takes no parameters."""


def _what_is_wrong(value: Any, error: ValidationError) -> str:
    wants = " or ".join(dict.fromkeys(each["msg"].removeprefix("Input ") for each in error.errors()))
    if any(each["type"] == "string_pattern_mismatch" for each in error.errors()):
        return f"is {value!r}, {wants}"  # a pattern is no list of choices
    allowed = re.findall(r"'([^']+)'", wants)
    hint = suggestion(value, allowed) if isinstance(value, str) and allowed else ""
    return f"is {value!r}, {wants}{hint}"


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


class _Variant(NamedTuple):
    shown: str  # its name, if it has one, and what was changed
    recipe: Recipe


def _labelled(variants: list[_Variant]) -> dict[str, _Variant]:
    """Return recipes, each once, by a label that tells them apart: what differs, or their names where they have any."""
    once = list({each.recipe: each for each in reversed(variants)}.values())[::-1]
    if len(once) > 1 and any(each.shown != each.recipe.label for each in once):
        return {each.shown: each for each in once}
    values = [flat(dataclasses.asdict(each.recipe)) for each in once]
    varying = [key for key in values[0] if len({repr(each[key]) for each in values}) > 1]
    labels = [", ".join(f"{key}={each[key]}" for key in varying) for each in values]
    return dict(zip(labels, once, strict=True))
