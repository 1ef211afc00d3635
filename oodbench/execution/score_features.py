"""Bring your own features: the detector grid on arrays from files, with no training and no image data."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodbench.api import ClassifierHead, Plugin, Posthoc, Threshold
from oodbench.data import duplicates, prepare
from oodbench.data.feature_files import FeatureFile, read
from oodbench.errors import UserError, suggestion
from oodbench.execution.runner import Bookkeeping, Outcome, Wanted, scored_by
from oodbench.scoring import detectors as scoring
from oodbench.scoring.fitted import FittedDetector
from oodbench.store.artifacts import digest
from oodbench.store.files import scratch
from oodbench.store.memo import Watch
from oodbench.store.rows import Results
from oodbench.store.sharing import locked
from oodbench.study.axes import one_line
from oodbench.study.declarations import NAME
from oodbench.study.grid import CLASSIFIER, NONE, PROBE, Detector, detectors, resolved, senseless_of_one_cluster
from oodbench.study.reader import load_grid
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN, Reference, Space
from oodbench.study.study import DRY, Detectors, results_root
from oodbench.toolkit.seeds import seed_of
from oodbench.training import embed, probes
from oodbench.training.banks import linear_head

REDO = ("score", "failed")
Source = Path | FeatureFile
PLAN_LOCK = ".plan.lock"  # several calls of one name may be under way


@dataclass(frozen=True, kw_only=True)
class Given:
    """The features, in files or at hand, and what is to be done with them."""

    train: Source
    id: tuple[str, Source]  # what the tables call the ID set, and its test features
    ood: Sequence[tuple[str, str, Source]]  # group, name, file
    val: Source | None = None  # ID features that nothing was fitted on; without it a share of `train` is held out
    validation: Mapping[str, Source] = field(default_factory=dict)  # name -> OOD that thresholds and choices may see
    grid: Path | Mapping[str, Any] | Detectors | None = None  # without it, every plugin with its defaults
    redo: str = ""  # one of REDO
    name: str  # of the folder of results
    root: Path | None = None  # that this folder is in; default: that of all results
    training: str  # what the tables call whatever made the features
    seed: int = 0

    @property
    def folder(self) -> Path:
        return (self.root or results_root()) / self.name


@dataclass(frozen=True)
class _Loaded:
    train: FeatureFile
    test: FeatureFile
    val: FeatureFile | None
    ood: dict[str, FeatureFile]
    validation: dict[str, FeatureFile]

    @property
    def every(self) -> dict[str, FeatureFile]:
        """All files, by the option that named them."""
        val = {} if self.val is None else {"--val": self.val}
        ood = {f"OOD {name}": each for name, each in self.ood.items()}
        seen = {f"--validation {name}": each for name, each in self.validation.items()}
        return {"--train": self.train, "--id": self.test, **val, **ood, **seen}

    @property
    def fixed(self) -> dict[str, str]:
        """The content of all files that every row depends on: all but the OOD test sets."""
        return {name: each.content for name, each in self.every.items() if not name.startswith("OOD ")}

    @property
    def classes(self) -> int | None:
        """The number of ID classes; None where neither labels nor logits tell."""
        if self.train.labels is not None:
            return int(self.train.labels.max()) + 1
        return self.train.layers["logits"].shape[1] if "logits" in self.train.layers else None

    @property
    def head(self) -> str:
        """Whose logits baselines read."""
        return CLASSIFIER if "logits" in self.train.layers or self.train.weight is not None else PROBE


def score(given: Given, how: scoring.How, watch: Watch) -> Outcome:
    """Make the rows that are missing for these features and this grid, and return all of this name.

    Raises UserError where files do not fit together.
    """
    _check(given)
    left_out: Counter[str] = Counter()
    saw = tuple(given.validation)
    axes = _everything(saw, left_out) if given.grid is None else given.grid
    axes = axes if isinstance(axes, Detectors) else load_grid(axes, saw)
    if given.val is not None and axes.reference != Reference():
        said = f"`reference: {axes.reference.label}`"
        raise UserError(f"{given.grid}: {said} and --val contradict each other; give one of them")
    loaded = _load(given)
    cells = list(_cells(axes, loaded, left_out))
    if not cells:
        raise UserError(f"no cell is left: {'; '.join(left_out)}")
    how = dataclasses.replace(how, compat=axes.compat)
    shared = _shared(loaded, given.val is None and axes.reference.kind == "val")
    if shared:
        watch.warn(f"duplicates: {'; '.join(shared.values())}")
    results = Results(given.folder, watch.warn)
    features = FileFeatures(given, axes, cells, loaded, shared, how, results)
    features.write_plan(watch, left_out)
    outcome = Bookkeeping(features.results, how, given.redo, watch).run([features])
    return dataclasses.replace(outcome, left_out=dict(left_out))


def _check(given: Given) -> None:
    """Raise UserError where names cannot be, before any file is read."""
    if not NAME.fullmatch(given.name) or given.name == "store" or given.name.endswith(DRY):
        raise UserError(
            f"--name {given.name!r} cannot name a folder; letters, digits, blanks and . + - _ can, "
            f"not 'store' and not {DRY} at the end"
        )
    if given.redo and given.redo not in REDO:
        raise UserError(f"--redo {given.redo}: there is no such stage{suggestion(given.redo, REDO)}")
    if not given.ood:
        python = "ood={'NAME': features}"
        raise UserError(f"give at least one OOD set: --ood NAME=FILE, or near, or far; from Python {python}")
    named = [("id", given.id[0]), ("training", given.training), *((group, name) for group, name, _ in given.ood)]
    for option, name in [*named, *(("validation", name) for name in given.validation)]:
        try:
            one_line(name, 100)  # it may be a file's
        except ValueError as error:
            raise UserError(f"{option} {name[:100]!r}: a name {error}") from error
    seen: dict[str, str] = {}
    for group, name, _ in given.ood:
        if name in seen:
            raise UserError(f"{group} {name}: a set of this name is given as {seen[name]}, too")
        if name in (scoring.TRAIN, scoring.ID_TEST, scoring.REFERENCE) or name.startswith("validation "):
            raise UserError(f"{group} {name}: the name means something else; take another")
        seen[name] = group


def _everything(saw: tuple[str, ...], left_out: Counter[str]) -> Detectors:
    """Return every plugin with its defaults, on raw and unit-norm features; what is set on OOD where there is any."""
    registry = Registry()

    def plugins(room: str) -> list[Any]:
        return [registry.load(room, name)() for name in registry.sources(room)]

    thresholds: list[Threshold] = plugins("threshold")
    thresholds.sort(key=lambda each: each.name != "pooled")  # of those that rank alike, tables show the first
    blind = [] if saw else [each for each in thresholds if each.needs_ood]
    left_out.update(f"{each.label} is set on OOD, and there is no validation OOD" for each in blind)
    return Detectors(
        registry=registry,
        reference=Reference(),
        spaces=[Space(), Space(unit=True)],
        clusterings=plugins("clustering"),
        distances=plugins("distance"),
        posthocs=plugins("posthoc"),
        thresholds=[each for each in thresholds if each not in blind],
        saw=saw,
    )


def _load(given: Given) -> _Loaded:
    def arrays(source: Source) -> FeatureFile:
        return source if isinstance(source, FeatureFile) else read(source)

    loaded = _Loaded(
        train=arrays(given.train),
        test=arrays(given.id[1]),
        val=arrays(given.val) if given.val else None,
        ood={name: arrays(each) for _, name, each in given.ood},
        validation={name: arrays(each) for name, each in given.validation.items()},
    )
    return _fitting(loaded)


def _fitting(loaded: _Loaded) -> _Loaded:
    """Return sets that fit together, with classes numbered alike. Raises UserError where they do not."""
    before: dict[str, FeatureFile] = {}
    for option, each in loaded.every.items():
        named = (each.columns, loaded.train.columns)
        if None not in named and named[0] != named[1]:
            raise UserError(f"{each.path}: its columns are not those of {loaded.train.path}, in their order")
        for layer, f in each.layers.items():
            mine = loaded.train.layers.get(layer, f)
            if mine.shape[1] != f.shape[1]:
                raise UserError(f"{each.path}: {f.shape[1]} columns, {loaded.train.path} has {mine.shape[1]} ({layer})")
        for other, file in before.items():
            if each is not file and torch.equal(
                each.layers["penultimate"], file.layers["penultimate"]
            ):  # whatever their formats are
                raise UserError(f"{option} and {other} are the same features: {each.path}, {file.path}")
        before[option] = each
    val = loaded.val and _numbered(loaded.val, loaded.train)
    loaded = dataclasses.replace(loaded, test=_numbered(loaded.test, loaded.train), val=val)
    _check_classes(loaded)
    return loaded


def _numbered(file: FeatureFile, train: FeatureFile) -> FeatureFile:
    """Return a file whose labels number the classes as those of the training file do, where labels are texts."""
    if file.labels is None or train.labels is None or file.names == train.names:
        return file
    if file.names is None or train.names is None:
        texts, numbers = (train, file) if file.names is None else (file, train)
        raise UserError(f"the labels of {texts.path} are texts, those of {numbers.path} numbers")
    for name in file.names:
        if name not in train.names:
            raise UserError(
                f"{file.path}: no item of {train.path} has the label '{name}'{suggestion(name, train.names)}"
            )
    number = torch.tensor([train.names.index(name) for name in file.names])
    return dataclasses.replace(file, labels=number[file.labels], names=train.names)


def _shared(loaded: _Loaded, held_out: bool) -> dict[tuple[str, str], str]:
    """Return what is to be said of each pair of sets, by option, that have equal items.

    Those of --train alone count where some of it is held out as reference: detectors are fitted on the others.
    """
    hashes = {option: prepare.digests(each.layers["penultimate"].numpy()) for option, each in loaded.every.items()}
    said = {}
    again = len(hashes["--train"]) - len(np.unique(hashes["--train"], axis=0))
    if held_out and again:
        what = "thresholds are set on some of them, detectors fitted on others"
        said["--train", "--train"] = f"{again} of {len(hashes['--train'])} items of --train are there before ({what})"
    for one, other in itertools.combinations(hashes, 2):
        _, same = duplicates.exact(hashes[one], hashes[other])
        if len(same) and not (one.startswith("OOD ") and other.startswith("OOD ")):
            shown = ", ".join(map(str, same[:5])) + (", ..." if len(same) > 5 else "")
            said[one, other] = f"{len(same)} of {len(hashes[other])} items of {other} are also in {one} (rows {shown})"
    return said


def _check_classes(loaded: _Loaded) -> None:
    """Refuse labels that are not 0, 1, ..., and logits and heads of other classes than the labels have."""
    train, y = loaded.train, loaded.train.labels
    if y is None:
        return
    found = y.unique()
    classes = len(found)
    if not torch.equal(found, torch.arange(classes)):
        shown = ", ".join(map(str, found[:10].tolist())) + (", ..." if classes > 10 else "")
        raise UserError(f"{train.path}: `labels` are 0, 1, ... with an item of each class; these are {shown}")
    for each in (loaded.test, loaded.val):
        if each is not None and each.labels is not None and not ((each.labels >= 0) & (each.labels < classes)).all():
            low, high = int(each.labels.min()), int(each.labels.max())
            raise UserError(
                f"{each.path}: `labels` reach from {low} to {high}, {train.path} has the classes 0 to {classes - 1}"
            )
    widths = {"logits": train.layers.get("logits"), "weight": None if train.weight is None else train.weight.T}
    for name, value in widths.items():
        if value is not None and value.shape[1] != classes:
            raise UserError(f"{train.path}: `{name}` is of {value.shape[1]} classes, `labels` of {classes}; drop one")


# ---- which cells there are -----------------------------------------------------------------------------


def _cells(axes: Detectors, loaded: _Loaded, left_out: Counter[str]) -> Iterator[Detector]:
    for each in detectors(axes, left_out):
        if reason := next(_senseless(each, loaded), ""):
            left_out[reason] += 1
        else:
            yield dataclasses.replace(each, head=loaded.head) if each.posthoc else each


def _senseless(detector: Detector, loaded: _Loaded) -> Iterator[str]:
    """Yield why a detector cannot be on these features, what is plainest first."""
    classes, clustering, layer = loaded.classes, detector.clustering, detector.space.layer
    lacking = [each.path.name for each in loaded.every.values() if layer not in each.layers]
    if lacking:
        yield f"{', '.join(lacking)} have no {layer} layer"
    if detector.space.seen != PLAIN:
        yield f"features in files have one view, not {detector.space.label}"
    parts: tuple[Plugin | None, ...] = (clustering, detector.distance, detector.posthoc, detector.threshold)
    for part in parts:
        if part and classes is None and resolved(part, 1) != part:
            yield f"{part.label} counts in classes, and there are neither labels nor logits"
    if detector.posthoc:
        yield from _without_classifier(detector.posthoc, loaded)
    if clustering and clustering.labels and loaded.train.labels is None:
        yield f"{clustering.label} needs labels, {loaded.train.path.name} has none"
    if clustering and clustering.labels and classes == 1:
        yield f"{clustering.label} needs labels, there is one class"
    if why := senseless_of_one_cluster(detector, classes or 1):
        yield why


def _without_classifier(posthoc: Posthoc, loaded: _Loaded) -> Iterator[str]:
    """Yield why a baseline cannot be: it reads logits, a head's weights, or a probe fitted on labels."""
    train, val = loaded.train, loaded.val
    if posthoc.network:
        yield f"{posthoc.label} passes images through the network, and features come without them"
    if posthoc.rectified and (train.layers["penultimate"] < 0).any():
        yield f"{posthoc.label} takes features that are never negative, those of {train.path.name} are"
    if train.labels is None:
        yield f"{posthoc.label} needs labels, {train.path.name} has none"
    if loaded.classes == 1:
        yield f"{posthoc.label} needs a classifier, there is one class"
    if posthoc.val and val is not None and val.labels is None:
        yield f"{posthoc.label} needs labels, {val.path.name} has none"
    logits = sum("logits" in each.layers for each in loaded.every.values())
    if 0 < logits < len(loaded.every) and train.weight is None:
        yield f"{posthoc.label} needs logits in every file, or the head's weight and bias in {train.path.name}"
    if (posthoc.linear or posthoc.applies) and loaded.head == CLASSIFIER and train.weight is None:
        yield f"{posthoc.label} needs the head's weight and bias in {train.path.name}"


# ---- the features --------------------------------------------------------------------------------------


class FileFeatures:
    """The features of one encoder from files, and the rows of a grid of detectors on them.

    A cell is of one OOD set: each encoder has its own file of it.
    """

    trains = False
    allowed = True

    def __init__(
        self,
        given: Given,
        axes: Detectors,
        cells: list[Detector],
        loaded: _Loaded,
        shared: dict[tuple[str, str], str],
        how: scoring.How,
        results: Results,
    ) -> None:
        self.given, self.loaded, self.shared, self.results = given, loaded, shared, results
        self.title, self.seed, self.device = given.training, given.seed, how.device
        reference = f"val({loaded.val.path.name})" if loaded.val else axes.reference.label
        self.base = {"id": given.id[0], "training": given.training, "seed": given.seed, "reference": reference}
        self.key = digest({**self.base, "files": loaded.fixed})
        self.wanted = [
            Wanted(
                each,
                ood,
                group,
                cell=digest({**self.base, "ood": ood, "detector": each.canonical}),
                key=digest({**scored_by(axes, each), "train": self.key, "ood": loaded.ood[ood].content}),
            )
            for each, (group, ood, _) in itertools.product(cells, given.ood)
        ]
        # Made before anything is written: a share of the training items may leave nothing to fit on.
        self._unclassified = _bank(axes.reference, loaded, given.seed, how.memory)

    @property
    def facts(self) -> dict[str, Any]:
        return dict.fromkeys(("outliers", "encoder", "recipe", "precision"), NONE) | {
            **self.base,
            "family": self.given.id[0],
            "protocol": "all classes",
            "classes": self.loaded.classes,
            "train_key": self.key,
            "id_data": self.loaded.test.content,
        }

    def lock(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def measured(self) -> dict[str, Any]:
        self.keep({})
        if self._correct is None:
            return {"accuracy": None, "accuracy_by": NONE}
        reads = CLASSIFIER if "logits" in self.loaded.test.layers or self.loaded.train.weight is not None else PROBE
        return {"accuracy": float(self._correct.double().mean()), "accuracy_by": reads}

    def bank(self, detectors: Sequence[Detector]) -> scoring.Bank:
        head = self._head() if any(each.posthoc for each in detectors) else None
        return dataclasses.replace(self._unclassified, correct=self._correct, head=head)

    def notes(self, ood: str) -> list[str]:
        others = {f"OOD {name}" for name in self.loaded.ood} - {f"OOD {ood}"}
        return [f"duplicates: {said}" for pair, said in self.shared.items() if others.isdisjoint(pair)]

    @property
    def scores(self) -> None:
        return None

    def keep(self, facts: dict[str, Any]) -> None:
        """Keep where the features came from, with the OOD sets of earlier calls."""
        with locked(self.results.folder.parent / PLAN_LOCK):
            before = (self.results.run(self.key) or {"parameters": {"files": {}, "contents": {}}})["parameters"]
            files = before["files"] | {name: str(each.path) for name, each in self.loaded.every.items()}
            contents = before["contents"] | {name: each.content for name, each in self.loaded.every.items()}
            parameters = {**self.base, "files": files, "contents": contents}
            self.results.write_run(self.key, {"parameters": parameters} | facts)

    def write_plan(self, watch: Watch, left_out: Counter[str]) -> None:
        """Keep which cells there are, with those of earlier calls of this name whose files are still the same.

        `features` holds, for each encoder, the content of its files and which cells came of which OOD set.
        """
        given, loaded, owner = self.given, self.loaded, digest(self.base)
        self.results.open()
        folder = self.results.folder.parent
        with locked(folder / PLAN_LOCK):
            plan = self.results.plan()
            if plan is None and len(self.results.read(["cell"])):
                what = "plan.json, which says of which features the rows are, is lost or damaged"
                raise UserError(f"{folder}: {what}; take another --name, or remove the folder to score all anew")
            plan = plan or {"study": given.name, "cells": {}, "sets": {}, "left_out": {}, "features": {}}
            if "features" not in plan:
                raise UserError(f"--name {given.name}: {folder} holds the results of a study; take another name")
            contents = {name: file.content for name, file in loaded.ood.items()}
            nothing: dict[str, Any] = {"files": loaded.fixed, "ood": {}, "cells": {}}
            was = mine = plan["features"].get(owner, nothing)
            if was["files"] != loaded.fixed:
                watch.warn(_gone(given, was, loaded))
                mine = nothing
            ood = mine["ood"] | contents
            cells = {name: each for name, each in mine["cells"].items() if mine["ood"][name] == ood[name]}
            gone = {*itertools.chain(*was["cells"].values())} - {*itertools.chain(*cells.values())}
            by_set = sorted(self.wanted, key=lambda each: [*contents].index(each.ood))
            for each in by_set:
                cells[each.ood] = list(dict.fromkeys([*cells.get(each.ood, []), each.cell]))
            stay = {cell: key for cell, key in plan["cells"].items() if cell not in gone}
            plan["cells"] = stay | {each.cell: each.key for each in by_set}
            plan["features"][owner] = {"files": loaded.fixed, "ood": ood, "cells": cells}
            plan["sets"].setdefault(given.id[0], {}).update({name: (group, "") for group, name, _ in given.ood})
            self.results.write_plan(plan | {"left_out": dict(left_out)})
            lost = self.results.run(self.key) is None
        if lost:
            self.keep({})

    @cached_property
    def _linear(self) -> probes.Linear | None:
        return _linear(self.loaded.train, self._unclassified)

    @cached_property
    def _correct(self) -> Tensor | None:
        """Which ID test items (M,) are classified right; None where that is not known."""
        test = self.loaded.test
        logits = test.layers.get("logits")
        if test.labels is not None and logits is None and self._linear is not None:
            logits = self._linear(test.layers["penultimate"])
        return None if test.labels is None or logits is None else logits.argmax(1) == test.labels

    def _head(self) -> ClassifierHead | None:
        return None if self._unclassified.classes == 1 else _head(self._linear, self.device)


def _linear(train: FeatureFile, bank: scoring.Bank) -> probes.Linear | None:
    """Return the linear head: the files' own, or a probe where there are neither logits nor a head, but labels."""
    if train.weight is not None and train.bias is not None:
        return probes.Linear(train.weight, train.bias)
    if "logits" in train.layers or train.labels is None or bank.classes == 1:
        return None
    return probes.linear(bank.fit["penultimate"][0], bank.y)


def _head(linear: probes.Linear | None, device: torch.device) -> ClassifierHead:
    if linear is not None:
        return linear_head(*(each.to(device) for each in linear))

    def unknown(h: Tensor) -> Tensor:
        raise ValueError("what turns features into logits is not known; give `weight` and `bias` in the training file")

    return ClassifierHead(unknown, None, None)


def fitted(axes: Detectors, train: FeatureFile, val: FeatureFile | None, seed: int, how: scoring.How) -> FittedDetector:
    """Return the one detector of a grid, fitted as `score` fits it. Raises UserError where it makes no sense here."""
    loaded = _fitting(_Loaded(train=train, test=train, val=val, ood={}, validation={}))
    left_out: Counter[str] = Counter()
    cells = list(_cells(axes, loaded, left_out))
    if not cells:
        raise UserError("; ".join(left_out))
    (detector,) = cells
    bank = _bank(axes.reference, loaded, seed, how.memory)
    if detector.posthoc:
        bank = dataclasses.replace(bank, head=_head(_linear(train, bank), how.device))
    return FittedDetector(detector, bank, seed, how)


def _bank(reference: Reference, loaded: _Loaded, seed: int, memory: int) -> scoring.Bank:
    """Return the features of all sets, without a classifier."""
    train = loaded.train
    fit, y = train.layers, torch.zeros(len(train), dtype=torch.int64) if train.labels is None else train.labels
    known = None if loaded.val is None else _known(loaded.val)
    if known is None and reference.kind == "val":
        kept, held = prepare.held_out_split(y.numpy(), reference.share, seed_of(seed, "reference"))
        lost = set(y.tolist()) - set(y[kept].tolist())
        if lost:
            raise UserError(f"{train.path}: {reference.label} leaves no item of class {min(lost)}; give --val, or more")
        val, fit = ({name: _rows_of(f, each, memory) for name, f in train.layers.items()} for each in (held, kept))
        known, y = scoring.Known({PLAIN: _layers(val)}, y[held]), y[kept]
    ood, validation = (
        {name: _known(each).layers for name, each in files.items()} for files in (loaded.ood, loaded.validation)
    )
    return scoring.Bank(_layers(fit), y, loaded.classes or 1, _known(loaded.test), known, ood, validation)


def _rows_of(f: Tensor, places: NDArray[np.int64], memory: int) -> Tensor:
    """Return rows of f (M, D): in memory where a quarter of it holds them, else in a mapped file, gone with them."""
    if 16 * len(places) * f.shape[1] <= memory:
        return f[places]
    file = scratch(len(places), f.shape[1])
    step = max(256, memory // (64 * f.shape[1]))
    for start in range(0, len(places), step):
        file[start : start + step] = f[places[start : start + step]]
    return torch.from_numpy(file)


def _layers(layers: dict[str, Tensor]) -> embed.Layers:
    return {name: f[None] for name, f in layers.items()}


def _known(file: FeatureFile) -> scoring.Known:
    y = torch.full((len(file),), -1) if file.labels is None else file.labels
    return scoring.Known({PLAIN: _layers(file.layers)}, y)


def _gone(given: Given, before: dict[str, Any], loaded: _Loaded) -> str:
    """Return what to say where rows leave the tables, because files that all of them depend on are others now."""
    files = before["files"]
    changed = sorted(each for each in files.keys() | loaded.fixed if files.get(each) != loaded.fixed.get(each))
    return (
        f"training {given.training} was scored with other files before ({', '.join(changed)}): its rows on "
        f"{', '.join(before['ood'])} leave the tables. Name another encoder by another `training`"
    )
