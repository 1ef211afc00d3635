"""A study: what its file says, as checked values, and what each ID set of it is tested on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from oodbench.api import Clustering, Dataset, Distance, Posthoc, Threshold, Training
from oodbench.study.declarations import CellsSpec, ClaimSpec, ScoresSpec, Select, TableSpec
from oodbench.study.document import Document
from oodbench.study.registry import Registry
from oodbench.study.settings import Encoder, ImageFormat, Precision, Recipe, Reference, Space

HELD_OUT = "held_out"  # under `ood:`, the classes that the ID set leaves out
GROUPS = ("near", "far")  # of the OOD sets of a study
DRY = ".dry"  # ends the name of a study on stand-in data, and so its folder's
UNGROUPED = "ood"  # the group of features whose user does not say
Share = Annotated[float, Interval(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The top-level keys of a study that are single values."""

    name: str = ""  # default: the file's stem
    plugins: tuple[str, ...] = ()  # files or folders of further plugins, relative to the study
    data: str | None = None  # folder of downloaded data; default: $OODBENCH_DATA, else ./data
    store: str | None = None  # folder of artifacts; default: $OODBENCH_STORE, else results/store
    image: ImageFormat  # what every image is turned into
    # frozen-probe accuracy, as a share, below which tables mark an encoder; null: c + (1 - c) / 4 with c = 1 / classes
    learned: Share | None = None
    variance: Literal["machine"] | None = None  # run it once more as a lesser CPU, and say by how much rows differ
    allow_overlap: bool = False  # True: go on when an OOD test image is also in ID train or in the outliers


@dataclass(frozen=True)
class Match:
    """An entry of `skip:`: the name of a part of a cell, and the values that its parameters may have."""

    name: str  # "" for what has none: a seed, a precision, a space
    params: dict[str, list[Any]]
    text: str

    def fits(self, part: Any) -> bool:
        if part is None or (self.name and self.name not in (part.name, part.shown_as)):
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

    @property
    def plugins(self) -> dict[str, list[Any]]:
        """All plugins by room."""
        return {
            "clustering": self.clusterings,
            "distance": self.distances,
            "posthoc": self.posthocs,
            "threshold": self.thresholds,
        }


@dataclass(frozen=True)
class Setup:
    """What an ID set is tested on."""

    ood: dict[str, dict[str, Dataset]]  # group -> name -> set
    reference: Reference
    validation: list[Dataset]  # OOD sets, of which the `train` split chooses; no test sees them
    outliers: list[Dataset]
    suite: str  # where it is from, and what of that the study changed; empty where it is the study's own
    covariate: list[Dataset] = field(default_factory=list)  # test images of ID's classes under a covariate shift


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
    curve: CellsSpec = field(default_factory=CellsSpec)
    scores: ScoresSpec | None = None  # cells whose scores by image are kept
    keep: tuple[int, ...] = ()  # epochs after which the weights are kept, ascending, beside the last; 0 = untrained
    warns: tuple[str, ...] = ()  # what each row warns of
    added: dict[str, list[int]] = field(default_factory=dict)  # Run.but_seed -> seeds of `run --until-decided`
    cells: frozenset[str] | None = None  # the only cells that a dry run takes; None = all
    runs: frozenset[str] | None = None  # Run.named of the only trainings that a unit of a cluster takes; None = all
    missing: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # ID label -> OOD test set that is gone without -> why

    def tested(self, id_: Dataset) -> dict[str, dict[str, Dataset]]:
        """Return the OOD test sets of an ID set that are not gone without: group -> name -> set."""
        missing = self.missing.get(id_.label, {})
        found = {
            group: {name: each for name, each in members.items() if name not in missing}
            for group, members in self.setups[id_.label].ood.items()
        }
        return {group: members for group, members in found.items() if members}

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
            found += [*setup.validation, *setup.covariate]
            found += [setup.reference.held_out] if setup.reference.held_out else []
        return found

    @property
    def plugins(self) -> dict[str, list[Any]]:
        """All plugins by room."""
        return {"dataset": self.datasets, "training": self.trainings, **self.detectors.plugins}

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
        return folder_of(self.file, given, variable, default)


def folder_of(file: Path, given: str | None, variable: str, default: Path) -> Path:
    """Return a folder that a study's file names relative to itself, else the environment, else the default."""
    if given is not None:
        return file.parent / Path(given).expanduser()
    return Path(os.environ.get(variable) or default)


def results_root() -> Path:
    """Return the folder of all results: $OODBENCH_RESULTS, else ./results."""
    return Path(os.environ.get("OODBENCH_RESULTS") or "results")
