"""Bring your own features: the detector grid on arrays from files, with no training and no image data."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from oodbench.api import ClassifierHead, Clustering, Distance, Plugin, Posthoc, Threshold
from oodbench.data import prepare
from oodbench.data.feature_files import FeatureFile, read
from oodbench.errors import UserError, suggestion
from oodbench.execution.runner import as_row, sources
from oodbench.scoring import detectors as scoring
from oodbench.store.files import scratch
from oodbench.store.memo import NUMBER, Watch, digest
from oodbench.store.provenance import commit, libraries, version
from oodbench.store.rows import Results
from oodbench.study.declarations import NAME
from oodbench.study.grid import CLASSIFIER, NONE, PROBE, Detector, detectors, needs_several, resolved
from oodbench.study.reader import load_grid
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN, Reference, Space
from oodbench.study.study import Detectors, results_root
from oodbench.toolkit.seeds import seed_of
from oodbench.training import embed, probes
from oodbench.training.banks import linear_head

REDO = ("score", "failed")
PLAN_LOCK = ".plan.lock"  # several calls of one name may be under way


@dataclass(frozen=True, kw_only=True)
class Given:
    """The files that features come in, and what is to be done with them."""

    train: Path
    id: tuple[str, Path]  # what the tables call the ID set, and its test features
    ood: list[tuple[str, str, Path]]  # group, name, file
    val: Path | None = None  # ID features that nothing was fitted on; without it a share of `train` is held out
    validation: dict[str, Path] = field(default_factory=dict)  # name -> OOD that thresholds and choices may see
    grid: Path | None = None  # without it, every plugin with its defaults
    redo: str = ""  # one of REDO
    name: str  # of the folder of results
    training: str  # what the tables call whatever made the features
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What scoring came to."""

    results: Path
    rows: pd.DataFrame  # of everything scored under this name
    scored: int  # cells
    failed: int  # error rows
    left_out: dict[str, int]


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


Key = tuple[Detector, str]  # of a row: a detector and the name of an OOD set


def score(given: Given, how: scoring.How, watch: Watch) -> Outcome:
    """Make the rows that are missing for these features and this grid, and return all of this name.

    Raises UserError where files do not fit together.
    """
    _check(given)
    axes = load_grid(given.grid, tuple(given.validation)) if given.grid else _everything(tuple(given.validation))
    if given.val is not None and axes.reference != Reference():
        said = f"`reference: {axes.reference.label}`"
        raise UserError(f"{given.grid}: {said} and --val contradict each other; give one of them")
    loaded = _load(given)
    left_out = Counter(_unseen(axes, given))
    cells = list(_cells(axes, loaded, left_out))
    if not cells:
        raise UserError(f"no cell is left: {'; '.join(left_out)}")
    reference = f"val({given.val.name})" if given.val else axes.reference.label
    base = {"id": given.id[0], "training": given.training, "seed": given.seed, "reference": reference}
    train_key = digest({**base, "files": loaded.fixed})
    wanted = list(itertools.product(cells, loaded.ood))
    ids, keys = _identities(axes, wanted, base, train_key, loaded)
    # Checked before anything is written: a share of the training items may leave nothing to fit on.
    bank = _bank(axes.reference, loaded, given.seed, how.memory)
    results = Results(results_root() / given.name, watch.warn)
    by_set = {ood: {ids[each, ood]: keys[each, ood] for each in cells} for ood in loaded.ood}
    _write_plan(results, given, base, by_set, loaded, watch)
    known = results.read()
    kept = known[known["status"] != "error"] if given.redo == "failed" else known[:0] if given.redo else known
    done = set(zip(kept["cell"], kept["key"], strict=True))
    missing = [each for each in wanted if (ids[each], keys[each]) not in done]
    todo, sets = list(dict.fromkeys(each for each, _ in missing)), list(dict.fromkeys(ood for _, ood in missing))
    watch.planned(0, len(cells), len(cells) - len(todo))
    if todo:
        _write_run(results, train_key, base, loaded)
        watch.stage("score", given.training)
        bank = _with_classifier(bank, loaded, any(each.posthoc for each in todo), how.device)
        facts = _facts(given, reference, loaded, bank, train_key, str(how.device))
        groups = {name: group for group, name, _ in given.ood}
        how = dataclasses.replace(how, compat=axes.compat)
        rows = list(_rows(scoring.verdicts(todo, bank, sets, given.seed, how), facts, ids, keys, groups))
        results.write(rows)
        watch.scored(len(todo), len({row["detector"] for row in rows if row["status"] == "error"}))
    rows_now = results.current()
    failed = int((rows_now["status"] == "error").sum())
    return Outcome(results.folder.parent, rows_now, len(todo), failed, dict(left_out))


def _check(given: Given) -> None:
    """Raise UserError where names cannot be, before any file is read."""
    if not NAME.fullmatch(given.name) or given.name == "store":
        raise UserError(
            f"--name {given.name!r} cannot name a folder; letters, digits, blanks and . + - _ can, not 'store'"
        )
    if given.redo and given.redo not in REDO:
        raise UserError(f"--redo {given.redo}: there is no such stage{suggestion(given.redo, REDO)}")
    if not given.ood:
        raise UserError("give at least one OOD set: --ood NAME=FILE, --near NAME=FILE or --far NAME=FILE")
    seen: dict[str, str] = {}
    for group, name, _ in given.ood:
        if name in seen:
            raise UserError(f"--{group} {name}: a set of this name is given with --{seen[name]}, too")
        if name in (scoring.TRAIN, scoring.ID_TEST, scoring.REFERENCE) or name.startswith("validation "):
            raise UserError(f"--{group} {name}: the name means something else; take another")
        seen[name] = group


def _unseen(axes: Detectors, given: Given) -> dict[str, int]:
    """Return which thresholds are left out of the default grid, where no OOD is there to set them on."""
    if given.grid or given.validation:
        return {}
    registry = axes.registry
    loaded: list[Threshold] = [registry.load("threshold", name)() for name in registry.sources("threshold")]  # type: ignore[misc]
    return {f"{each.label} is set on OOD, and there is no --validation": 1 for each in loaded if each.needs_ood}


def _rows(
    verdicts: Iterator[scoring.Verdict],
    facts: dict[str, Any],
    ids: dict[Key, str],
    keys: dict[Key, str],
    groups: dict[str, str],
) -> Iterator[dict[str, Any]]:
    before = time.perf_counter()
    for verdict in verdicts:
        seconds, before = time.perf_counter() - before, time.perf_counter()
        identity = {
            "cell": ids[verdict.detector, verdict.ood],
            "key": keys[verdict.detector, verdict.ood],
            "group": groups[verdict.ood],
            "ood_data": "",
        }
        yield as_row(facts, verdict, identity, seconds)


def _everything(saw: tuple[str, ...]) -> Detectors:
    """Return every plugin with its defaults, on raw and on unit-norm features."""
    registry = Registry()

    def plugins(room: str) -> list[Any]:
        return [registry.load(room, name)() for name in registry.sources(room)]

    clusterings: list[Clustering] = plugins("clustering")
    distances: list[Distance] = plugins("distance")
    posthocs: list[Posthoc] = plugins("posthoc")
    thresholds: list[Threshold] = plugins("threshold")
    return Detectors(
        registry=registry,
        reference=Reference(),
        spaces=[Space(), Space(unit=True)],
        clusterings=clusterings,
        distances=distances,
        posthocs=posthocs,
        thresholds=[each for each in thresholds if saw or not each.needs_ood],
        saw=saw,
    )


def _load(given: Given) -> _Loaded:
    loaded = _Loaded(
        train=read(given.train),
        test=read(given.id[1]),
        val=read(given.val) if given.val else None,
        ood={name: read(path) for _, name, path in given.ood},
        validation={name: read(path) for name, path in given.validation.items()},
    )
    before: dict[str, FeatureFile] = {}
    for option, each in loaded.every.items():
        _check_columns(each, loaded.train)
        for other, file in before.items():
            if torch.equal(each.layers["penultimate"], file.layers["penultimate"]):  # whatever their formats are
                raise UserError(f"{option} and {other} are the same features: {each.path}, {file.path}")
        before[option] = each
    _check_classes(loaded)
    return loaded


def _check_columns(file: FeatureFile, train: FeatureFile) -> None:
    for layer, f in file.layers.items():
        mine = train.layers.get(layer)
        if mine is not None and mine.shape[1] != f.shape[1]:
            raise UserError(f"{file.path}: {f.shape[1]} columns, {train.path} has {mine.shape[1]} ({layer})")


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


def _classes(loaded: _Loaded) -> int | None:
    """Return the number of ID classes; None where neither labels nor logits tell."""
    if loaded.train.labels is not None:
        return int(loaded.train.labels.max()) + 1
    return loaded.train.layers["logits"].shape[1] if "logits" in loaded.train.layers else None


# ---- which cells there are -----------------------------------------------------------------------------


def _cells(axes: Detectors, loaded: _Loaded, left_out: Counter[str]) -> Iterator[Detector]:
    head = _head_kind(loaded)
    for each in detectors(axes, left_out):
        reason = _senseless(each, loaded)
        if reason:
            left_out[reason] += 1
        else:
            yield dataclasses.replace(each, head=head) if each.posthoc else each


def _head_kind(loaded: _Loaded) -> str:
    return CLASSIFIER if "logits" in loaded.train.layers or loaded.train.weight is not None else PROBE


def _senseless(detector: Detector, loaded: _Loaded) -> str:
    classes, clustering, layer = _classes(loaded), detector.clustering, detector.space.layer
    lacking = [each.path.name for each in loaded.every.values() if layer not in each.layers]
    if lacking:
        return f"{', '.join(lacking)} have no {layer} layer"
    if detector.space.seen != PLAIN:
        return f"features in files have one view, not {detector.space.label}"
    parts: tuple[Plugin | None, ...] = (clustering, detector.distance, detector.posthoc, detector.threshold)
    for part in parts:
        if part and classes is None and resolved(part, 1) != part:
            return f"{part.label} counts in classes, and there are neither labels nor logits"
    if clustering:
        return _unclustered(clustering, detector, classes, loaded)
    if detector.posthoc:
        return _negative(detector.posthoc, loaded.train) or _without_classifier(detector.posthoc, loaded)
    return ""


def _negative(posthoc: Posthoc, train: FeatureFile) -> str:
    if posthoc.rectified and (train.layers["penultimate"] < 0).any():
        return f"{posthoc.label} takes features that are never negative, those of {train.path.name} are"
    return ""


def _unclustered(clustering: Clustering, detector: Detector, classes: int | None, loaded: _Loaded) -> str:
    if clustering.labels and loaded.train.labels is None:
        return f"{clustering.label} needs labels, {loaded.train.path.name} has none"
    if clustering.labels and classes == 1:
        return f"{clustering.label} needs labels, there is one class"
    if resolved(clustering, classes or 1).single and (needy := needs_several(detector)):
        return f"{needy} needs several clusters, {clustering.label} makes one"
    return ""


def _without_classifier(posthoc: Posthoc, loaded: _Loaded) -> str:
    """Return why a baseline cannot be: it reads logits, a head's weights, or a probe fitted on labels."""
    if loaded.train.labels is None:
        return f"{posthoc.label} needs labels, {loaded.train.path.name} has none"
    if _classes(loaded) == 1:
        return f"{posthoc.label} needs a classifier, there is one class"
    logits = [name for name, each in loaded.every.items() if "logits" in each.layers]
    if posthoc.val and loaded.val is not None and loaded.val.labels is None:
        return f"{posthoc.label} needs labels, {loaded.val.path.name} has none"
    if logits and len(logits) < len(loaded.every) and loaded.train.weight is None:
        return f"{posthoc.label} needs logits in every file, or the head's weight and bias in {loaded.train.path.name}"
    needs_head = posthoc.linear or posthoc.applies
    if needs_head and _head_kind(loaded) == CLASSIFIER and loaded.train.weight is None:
        return f"{posthoc.label} needs the head's weight and bias in {loaded.train.path.name}"
    return ""


# ---- the bank ----------------------------------------------------------------------------------------------


def _bank(reference: Reference, loaded: _Loaded, seed: int, memory: int) -> scoring.Bank:
    """Return the features of all sets, without a classifier."""
    train, y = loaded.train, loaded.train.labels
    y = torch.zeros(len(train), dtype=torch.int64) if y is None else y
    fit, fit_y = train.layers, y
    known: scoring.Known | None = None
    if loaded.val is not None:
        known = scoring.Known({PLAIN: _layers(loaded.val.layers)}, _labels_of(loaded.val))
    elif reference.kind == "val":
        kept, held = prepare.held_out_split(y.numpy(), reference.share, seed_of(seed, "reference"))
        lost = set(y.tolist()) - set(y[kept].tolist())
        if lost:
            raise UserError(f"{train.path}: {reference.label} leaves no item of class {min(lost)}; give --val, or more")
        val, fit = ({name: _rows_of(f, each, memory) for name, f in train.layers.items()} for each in (held, kept))
        known, fit_y = scoring.Known({PLAIN: _layers(val)}, y[held]), y[kept]
    return scoring.Bank(
        fit=_layers(fit),
        y=fit_y,
        classes=_classes(loaded) or 1,
        test=scoring.Known({PLAIN: _layers(loaded.test.layers)}, _labels_of(loaded.test)),
        reference=known,
        ood={name: {PLAIN: _layers(each.layers)} for name, each in loaded.ood.items()},
        validation={name: {PLAIN: _layers(each.layers)} for name, each in loaded.validation.items()},
    )


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


def _labels_of(file: FeatureFile) -> Tensor:
    return torch.full((len(file),), -1) if file.labels is None else file.labels


def _with_classifier(bank: scoring.Bank, loaded: _Loaded, baselines: bool, device: torch.device) -> scoring.Bank:
    """Return the bank with what baselines read, and which ID test items are classified right."""
    linear = _linear(loaded, bank, baselines)
    return dataclasses.replace(bank, correct=_correct(loaded.test, linear), head=_head(linear, bank, device))


def _linear(loaded: _Loaded, bank: scoring.Bank, baselines: bool) -> probes.Linear | None:
    """Return the linear head: the files' own, or a probe where there are neither logits nor a head, but labels.

    A probe takes its time: it is fitted where baselines read it or the ID accuracy is to be had of it.
    """
    weight, bias = loaded.train.weight, loaded.train.bias
    if weight is not None and bias is not None:
        return probes.Linear(weight, bias)
    if "logits" in loaded.train.layers or loaded.train.labels is None or bank.classes == 1:
        return None
    return probes.linear(bank.fit["penultimate"][0], bank.y) if baselines or loaded.test.labels is not None else None


def _head(linear: probes.Linear | None, bank: scoring.Bank, device: torch.device) -> ClassifierHead | None:
    if bank.classes == 1:
        return None
    if linear is not None:
        return linear_head(*(each.to(device) for each in linear))

    def unknown(h: Tensor) -> Tensor:
        raise ValueError("what turns features into logits is not known; give `weight` and `bias` in the training file")

    return ClassifierHead(unknown, None, None)


def _correct(test: FeatureFile, linear: probes.Linear | None) -> Tensor | None:
    if test.labels is None or (linear is None and "logits" not in test.layers):
        return None
    logits = test.layers["logits"] if "logits" in test.layers else linear(test.layers["penultimate"])  # type: ignore[misc]
    return logits.argmax(1) == test.labels


# ---- rows ------------------------------------------------------------------------------------------------------


def _identities(
    axes: Detectors, wanted: list[Key], base: dict[str, Any], train_key: str, loaded: _Loaded
) -> tuple[dict[Key, str], dict[Key, str]]:
    """Return the identity of each row's cell, and its key: parameters, code and the content of files.

    A cell here is of one OOD set: each encoder has its own file of it.
    """
    compat = {"compat": True} if axes.compat else {}
    codes = {each: _code(axes.registry, each) | compat for each, _ in wanted}
    ids = {(each, ood): digest({**base, "ood": ood, "detector": each.canonical}) for each, ood in wanted}
    contents = {ood: {"train": train_key, "ood": file.content} for ood, file in loaded.ood.items()}
    return ids, {(each, ood): digest({**codes[each], **contents[ood]}) for each, ood in wanted}


def _code(registry: Registry, detector: Detector) -> dict[str, Any]:
    """Return what a detector's numbers depend on, but for the features."""
    numbers = {"number": NUMBER["score"]} | ({"probe": NUMBER["probe"]} if detector.posthoc else {})
    return {**numbers, "detector": detector.canonical, "sources": sources(registry, detector)}


def _facts(
    given: Given, reference: str, loaded: _Loaded, bank: scoring.Bank, train_key: str, device: str
) -> dict[str, Any]:
    accuracy = None if bank.correct is None else float(bank.correct.double().mean())
    reads = CLASSIFIER if "logits" in loaded.test.layers or loaded.train.weight is not None else PROBE
    columns = ("outliers", "encoder", "recipe", "precision")
    return dict.fromkeys(columns, NONE) | {
        "id": given.id[0],
        "family": given.id[0],
        "protocol": "all classes",
        "training": given.training,
        "seed": given.seed,
        "reference": reference,
        "classes": _classes(loaded),
        "accuracy": accuracy,
        "accuracy_by": NONE if accuracy is None else reads,
        "train_key": train_key,
        "id_data": loaded.test.content,
        "version": version(),
        "commit": commit(),
        "libraries": ", ".join(f"{name} {each}" for name, each in libraries().items()),
        "device": device,
        "warnings": [],
    }


def _write_plan(
    results: Results,
    given: Given,
    base: dict[str, Any],
    cells: dict[str, dict[str, str]],
    loaded: _Loaded,
    watch: Watch,
) -> None:
    """Keep which cells there are, with those of earlier calls of this name whose files are still the same.

    `cells` are, for each OOD set, the identities of its cells and their keys. `features` holds, for each encoder, the
    content of its files and which cells came of which OOD set.
    """
    folder, owner = results.folder.parent, digest(base)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / PLAN_LOCK):
        plan = results.plan() or {"study": given.name, "cells": {}, "sets": {}, "left_out": {}, "features": {}}
        if "features" not in plan:
            raise UserError(f"--name {given.name}: {folder} holds the results of a study; take another name")
        mine = plan["features"].get(owner, {})
        if mine.get("files") != loaded.fixed:
            if mine:
                watch.warn(_gone(given, mine, loaded))
            _drop(plan["cells"], mine.get("cells", {}))
            mine = {"files": loaded.fixed, "ood": {}, "cells": {}}
        changed = {name for name, each in loaded.ood.items() if mine["ood"].get(name) != each.content}
        _drop(plan["cells"], {name: mine["cells"].pop(name) for name in changed & mine["cells"].keys()})
        for name, new in cells.items():
            plan["cells"].update(new)
            mine["cells"][name] = list(dict.fromkeys([*mine["cells"].get(name, []), *new]))
            mine["ood"][name] = loaded.ood[name].content
        plan["features"][owner] = mine
        plan["sets"].setdefault(given.id[0], {}).update({name: (group, "") for group, name, _ in given.ood})
        results.write_plan(plan)


def _gone(given: Given, before: dict[str, Any], loaded: _Loaded) -> str:
    """Return what to say where rows leave the tables, because files that all of them depend on are others now."""
    files = before["files"]
    changed = sorted(each for each in files.keys() | loaded.fixed if files.get(each) != loaded.fixed.get(each))
    return (
        f"--training {given.training} was scored with other files before ({', '.join(changed)}): its rows on "
        f"{', '.join(before['ood'])} leave the tables. Name another encoder by another --training"
    )


def _drop(cells: dict[str, str], gone: dict[str, list[str]]) -> None:
    for cell in itertools.chain.from_iterable(gone.values()):
        cells.pop(cell, None)


def _write_run(results: Results, train_key: str, base: dict[str, Any], loaded: _Loaded) -> None:
    """Keep where the features came from, with the OOD sets of earlier calls."""
    with FileLock(results.folder.parent / PLAN_LOCK):
        before = (results.run(train_key) or {"parameters": {"files": {}, "contents": {}}})["parameters"]
        files = before["files"] | {name: str(each.path) for name, each in loaded.every.items()}
        contents = before["contents"] | {name: each.content for name, each in loaded.every.items()}
        results.write_run(train_key, {"parameters": {**base, "files": files, "contents": contents}})
