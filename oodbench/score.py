"""Bring your own features: the detector grid on arrays from files, with no training and no image data."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from oodbench import data, probe, scoring, stages
from oodbench.api import ClassifierHead, Clustering, Distance, Plugin, Posthoc, Threshold
from oodbench.environment import commit, libraries, version
from oodbench.errors import UserError
from oodbench.features import FeatureFile, read
from oodbench.grid import CLASSIFIER, NONE, PROBE, Detector, detectors, digest, resolved
from oodbench.lab import NUMBER, Watch, linear_head
from oodbench.registry import Registry
from oodbench.results import Results
from oodbench.runner import as_row, sources
from oodbench.spec import Reference, Space
from oodbench.study import NAME, Detectors, load_grid, results_root


@dataclass(frozen=True, kw_only=True)
class Given:
    """The files that features come in, and what is to be done with them."""

    train: Path
    id: Path
    ood: dict[str, dict[str, Path]]  # group -> name -> file
    val: Path | None = None  # ID features that nothing was fitted on; without it a share of `train` is held out
    validation: dict[str, Path] = field(
        default_factory=dict
    )  # name -> OOD features that thresholds and choices may see
    grid: Path | None = None  # without it, every plugin with its defaults
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
        val = {} if self.val is None else {"val": self.val}
        seen = {f"validation {name}": each for name, each in self.validation.items()}
        return {"train": self.train, "id": self.test, **val, **self.ood, **seen}


def score(given: Given, how: scoring.How, watch: Watch) -> Outcome:
    """Make the rows that are missing for these features and this grid, and return all of this name.

    Raises UserError where files do not fit together.
    """
    if not NAME.fullmatch(given.name) or given.name == "store":
        raise UserError(f"--name {given.name!r} cannot name a folder")
    axes = load_grid(given.grid, tuple(given.validation)) if given.grid else _everything(tuple(given.validation))
    loaded = _load(given)
    left_out: Counter[str] = Counter()
    cells = list(_cells(axes, loaded, left_out))
    if not cells:
        raise UserError(f"no cell is left: {'; '.join(left_out)}")
    results = Results(results_root() / given.name, watch.warn)
    contents = {name: each.content for name, each in loaded.every.items()}
    reference = f"val({given.val.name})" if given.val else axes.reference.label
    base = {"training": given.training, "seed": given.seed, "reference": reference}
    train_key = digest({**base, "files": contents})
    if given.val is not None and axes.reference.kind == "train":
        raise UserError("`reference: train` and --val contradict each other")
    keys = {each: _key(axes.registry, each, train_key) for each in cells}
    ids = {each: digest({**base, "id": given.id.stem, "detector": each.canonical}) for each in cells}
    _write_plan(results, given, {ids[each]: keys[each] for each in cells}, left_out)
    known = results.read()
    done = set(zip(known["cell"], known["key"], known["ood"], strict=True))
    todo = [each for each in cells if any((ids[each], keys[each], name) not in done for name in loaded.ood)]
    watch.planned(0, len(cells), len(cells) - len(todo))
    if todo:
        paths = {name: str(each.path) for name, each in loaded.every.items()}
        results.write_run(train_key, {"parameters": {**base, "files": paths, "contents": contents}})
        bank = _bank(axes.reference, loaded, given.seed, how.device)
        facts = _facts(given, reference, bank, train_key, str(how.device))
        groups = {name: group for group, members in given.ood.items() for name in members}
        watch.stage("score", given.training)
        rows = list(_rows(scoring.verdicts(todo, bank, list(loaded.ood), given.seed, how), facts, ids, keys, groups))
        results.write(rows)
        watch.scored(len(todo), len({row["cell"] for row in rows if row["status"] == "error"}))
    rows_now = results.current()
    failed = int((rows_now["status"] == "error").sum())
    return Outcome(results.folder.parent, rows_now, len(todo), failed, dict(left_out))


def _rows(
    verdicts: Iterator[scoring.Verdict],
    facts: dict[str, Any],
    ids: dict[Detector, str],
    keys: dict[Detector, str],
    groups: dict[str, str],
) -> Iterator[dict[str, Any]]:
    before = time.perf_counter()
    for verdict in verdicts:
        seconds, before = time.perf_counter() - before, time.perf_counter()
        identity = {
            "cell": ids[verdict.detector],
            "key": keys[verdict.detector],
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
    ood = {name: read(path) for members in given.ood.values() for name, path in members.items()}
    if not ood:
        raise UserError("give at least one OOD set: --ood NAME=FILE, --near NAME=FILE or --far NAME=FILE")
    validation = {name: read(path) for name, path in given.validation.items()}
    loaded = _Loaded(read(given.train), read(given.id), read(given.val) if given.val else None, ood, validation)
    for each in loaded.every.values():
        for layer, f in each.layers.items():
            mine = loaded.train.layers.get(layer)
            if mine is not None and mine.shape[1] != f.shape[1]:
                raise UserError(f"{each.path}: {f.shape[1]} columns, {given.train} has {mine.shape[1]} ({layer})")
    owners: dict[str, Path] = {}
    for each in loaded.every.values():
        other = owners.setdefault(each.content, each.path)
        if other != each.path:
            raise UserError(f"{each.path} holds the same as {other}")
    y = loaded.train.labels
    if y is not None and not torch.equal(y.unique(), torch.arange(int(y.max()) + 1)):
        raise UserError(
            f"{given.train}: labels are 0, 1, ... with an item of each class; they are {y.unique().tolist()}"
        )
    return loaded


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
    if detector.space.views > 1:
        return f"features in files have one view, not {detector.space.label}"
    parts: tuple[Plugin | None, ...] = (clustering, detector.distance, detector.posthoc, detector.threshold)
    for part in parts:
        if part and classes is None and resolved(part, 1) != part:
            return f"{part.label} counts in classes, and there are neither labels nor logits"
    if clustering:
        return _unclustered(clustering, detector.threshold, classes, loaded)
    return _without_classifier(detector.posthoc, loaded) if detector.posthoc else ""


def _unclustered(clustering: Clustering, threshold: Threshold, classes: int | None, loaded: _Loaded) -> str:
    if clustering.labels and loaded.train.labels is None:
        return f"{clustering.label} needs labels, {loaded.train.path.name} has none"
    if clustering.labels and classes == 1:
        return f"{clustering.label} needs labels, there is one class"
    if threshold.clusters and resolved(clustering, classes or 1).single:
        return f"{threshold.label} needs several clusters, {clustering.label} makes one"
    return ""


def _without_classifier(posthoc: Posthoc, loaded: _Loaded) -> str:
    """Return why a baseline cannot be: it reads logits, a head's weights, or a probe fitted on labels."""
    if loaded.train.labels is None:
        return f"{posthoc.label} needs labels, {loaded.train.path.name} has none"
    if _classes(loaded) == 1:
        return f"{posthoc.label} needs a classifier, there is one class"
    logits = [name for name, each in loaded.every.items() if "logits" in each.layers]
    if logits and len(logits) < len(loaded.every) and loaded.train.weight is None:
        return f"{posthoc.label} needs logits in every file, or the head's weight and bias in {loaded.train.path.name}"
    if posthoc.linear and _head_kind(loaded) == CLASSIFIER and loaded.train.weight is None:
        return f"{posthoc.label} needs the head's weight and bias in {loaded.train.path.name}"
    return ""


# ---- the bank ----------------------------------------------------------------------------------------------


def _bank(reference: Reference, loaded: _Loaded, seed: int, device: torch.device) -> scoring.Bank:
    train, y = loaded.train, loaded.train.labels
    y = torch.zeros(len(train), dtype=torch.int64) if y is None else y
    fit, fit_y = train.layers, y
    known: scoring.Known | None = None
    if loaded.val is not None:
        known = scoring.Known({1: _layers(loaded.val.layers)}, _labels_of(loaded.val))
    elif reference.kind == "val":
        kept, held = data.held_out_split(y.numpy(), reference.share, stages.seed_of(seed, "reference"))
        known = scoring.Known({1: _layers({name: f[held] for name, f in train.layers.items()})}, y[held])
        fit, fit_y = {name: f[kept] for name, f in train.layers.items()}, y[kept]
    classes = _classes(loaded) or 1
    linear = _linear(loaded, fit["penultimate"], fit_y, classes)
    return scoring.Bank(
        fit=_layers(fit),
        y=fit_y,
        classes=classes,
        test=scoring.Known({1: _layers(loaded.test.layers)}, _labels_of(loaded.test)),
        reference=known,
        ood={name: {1: _layers(each.layers)} for name, each in loaded.ood.items()},
        validation={name: {1: _layers(each.layers)} for name, each in loaded.validation.items()},
        correct=_correct(loaded.test, linear),
        head=_head(linear, device) if classes > 1 else None,
    )


def _layers(layers: dict[str, Tensor]) -> stages.Layers:
    return {name: f[None] for name, f in layers.items()}


def _labels_of(file: FeatureFile) -> Tensor:
    return torch.full((len(file),), -1) if file.labels is None else file.labels


def _linear(loaded: _Loaded, h: Tensor, y: Tensor, classes: int) -> probe.Linear | None:
    """Return the linear head: the files' own, or a probe where there are neither logits nor a head."""
    weight, bias = loaded.train.weight, loaded.train.bias
    if weight is not None and bias is not None:
        return probe.Linear(weight, bias)
    if "logits" in loaded.train.layers or loaded.train.labels is None or classes == 1:
        return None
    return probe.linear(h, y)


def _head(linear: probe.Linear | None, device: torch.device) -> ClassifierHead:
    if linear is not None:
        return linear_head(*(each.to(device) for each in linear))

    def unknown(h: Tensor) -> Tensor:
        raise ValueError("what turns features into logits is not known; give `weight` and `bias` in the training file")

    return ClassifierHead(unknown, None, None)


def _correct(test: FeatureFile, linear: probe.Linear | None) -> Tensor | None:
    if test.labels is None or (linear is None and "logits" not in test.layers):
        return None
    logits = test.layers["logits"] if "logits" in test.layers else linear(test.layers["penultimate"])  # type: ignore[misc]
    return logits.argmax(1) == test.labels


# ---- rows ------------------------------------------------------------------------------------------------------


def _key(registry: Registry, detector: Detector, train_key: str) -> str:
    numbers = {"number": NUMBER["score"], "probe": NUMBER["probe"]}
    code = {"detector": detector.canonical, "sources": sources(registry, detector)}
    return digest({**numbers, "train": train_key, **code})


def _facts(given: Given, reference: str, bank: scoring.Bank, train_key: str, device: str) -> dict[str, Any]:
    accuracy = None if bank.correct is None else float(bank.correct.double().mean())
    reads = CLASSIFIER if "logits" in bank.test.layers[1] else PROBE
    columns = ("outliers", "encoder", "recipe", "precision")
    return dict.fromkeys(columns, NONE) | {
        "id": given.id.stem,
        "family": given.id.stem,
        "protocol": "all classes",
        "training": given.training,
        "seed": given.seed,
        "reference": reference,
        "classes": bank.classes,
        "accuracy": accuracy,
        "accuracy_by": NONE if accuracy is None else reads,
        "train_key": train_key,
        "version": version(),
        "commit": commit(),
        "libraries": ", ".join(f"{name} {each}" for name, each in libraries().items()),
        "device": device,
        "warnings": [],
    }


def _write_plan(results: Results, given: Given, cells: dict[str, str], left_out: Counter[str]) -> None:
    """Keep which cells there are, with those that earlier calls of the same name scored."""
    before = results.plan() or {"cells": {}, "sets": {}}
    sets = {name: (group, "") for group, members in given.ood.items() for name in members}
    results.write_plan(
        {
            "study": given.name,
            "cells": before["cells"] | cells,
            "sets": before["sets"] | {given.id.stem: before["sets"].get(given.id.stem, {}) | sets},
            "left_out": dict(left_out),
        }
    )
