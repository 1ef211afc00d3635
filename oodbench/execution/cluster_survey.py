"""Measures the clusters that a study's detectors were fitted on, from features in the store; it never trains.

What is measured of a training, a space and a clustering is an artifact of the store, made again where one of them or
the code that measures has changed. `quality.csv` in the study's folder of results is an export of them: a row for each
training, space, clustering and split. Test items belong to the nearest centroid. Where the study keeps epochs, rows are
of each of them, too, and say which; their features are made where the weights are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from oodbench.api import Clustering, Clusters
from oodbench.execution.pipeline import Pipeline
from oodbench.scoring import cluster_quality
from oodbench.scoring import detectors as scoring
from oodbench.store.artifacts import digest
from oodbench.store.memo import NUMBER, Fields
from oodbench.store.rows import CLUSTERS, Results, frame
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import NONE, Run, Work, canonical
from oodbench.study.settings import Seen, Space
from oodbench.toolkit.linear_algebra import nearest_to
from oodbench.training import embed
from oodbench.training.banks import Piece
from oodbench.training.weights import plan_of

FILE = CLUSTERS
KIND = "quality"
RUN = ("id", "family", "protocol", "training", "outliers", "encoder", "recipe", "precision", "reference", "seed")
COLUMNS = (
    *("key", "train_key", *RUN, "epoch", "space", "clustering", "split"),
    *("clusters", "n", "noise", *cluster_quality.MEASURES, "error"),
)
Row = dict[str, Any]
Where = tuple[Space, Clustering | None]  # what detectors look at of a training


@dataclass(frozen=True)
class Survey:
    """What surveying a study came to."""

    rows: pd.DataFrame  # of the study as it is now, COLUMNS
    measured: int  # rows that were not there
    trainings: int
    missing: int  # trainings that have rows to make and no features in the store
    unkept: int  # epochs to keep that their trainings, which are done, did not


def survey(pipeline: Pipeline, only: Container[Where] | None = None) -> Survey:
    """Measure what is not measured yet, there only where it is asked for, and export and return everything."""
    planned = plan_of(pipeline.study).work
    rows: dict[str, list[Row]] = {}  # by key, once: two runs may come to the same weights
    measured = missing = 0
    for work in (dataclasses.replace(each, run=run) for each in planned for run in pipeline.encoders.course(each.run)):
        run, fields = work.run, artifacts(pipeline, work)
        there = {where: pipeline.library.memo.facts(KIND, each) for where, each in fields.items()}
        found = {where: facts["splits"] for where, facts in there.items() if facts}
        pending = {w: each for w, each in fields.items() if w not in found and (only is None or w in only)}
        bank = _bank(pipeline, run, {space.seen for space, _ in pending}) if pending else None
        if bank is not None:
            made = _measured(pipeline, run, pending, bank)
            found |= made
            measured += sum(map(len, made.values()))
        elif run.epoch is None:
            missing += bool(pending)
        for where, each in fields.items():
            rows.setdefault(digest(each), list(_rows(pipeline, run, where, digest(each), found)))
    table = frame((row for each in rows.values() for row in each), COLUMNS)
    if len(table):  # else what another store came to may lie there
        shown = table if pipeline.study.keep else table.drop(columns="epoch")
        Results(pipeline.study.results).write_clusters(shown)
    unkept = sum(len(pipeline.encoders.unkept(work.run)) for work in planned)
    return Survey(table, measured, len(planned), missing, unkept)


def epoch_of(run: Run) -> int:
    """Return after how many epochs a run is."""
    return run.recipe.epochs if run.epoch is None else run.epoch


def artifacts(pipeline: Pipeline, work: Work) -> dict[Where, Fields]:
    """Return every space and clustering of cells, and what the measures of their run depend on there.

    No clustering is one, too.
    """
    detectors = [cell.detector for cell in work.cells if cell.detector.distance]
    places = dict.fromkeys((detector.space, detector.clustering) for detector in detectors)
    return {where: _fields(pipeline, work.run, *where) for where in places}


def _fields(pipeline: Pipeline, run: Run, space: Space, clustering: Clustering | None) -> Fields:
    pieces = (Piece(run.id, "train", "fit", 1), Piece(run.id, "test", "all", *space.seen))
    return {
        "number": NUMBER["score"],
        "code": fingerprint_module(cluster_quality.__name__),
        "features": [digest(pipeline.banks.bank_fields(run, piece)) for piece in pieces],
        "space": dataclasses.asdict(space),
        "clustering": canonical(clustering),
        "source": pipeline.study.registry.fingerprint("clustering", clustering.name) if clustering else None,
    }


def _rows(pipeline: Pipeline, run: Run, where: Where, key: str, found: dict[Where, list[Row]]) -> Iterator[Row]:
    space, clustering = where
    shared = {name: run.labels[name] for name in RUN} | {"key": key, "train_key": pipeline.encoders.train_key(run)}
    shared |= {"epoch": epoch_of(run), "space": space.label, "clustering": clustering.label if clustering else NONE}
    return (shared | split for split in found.get(where, []))


# ---- features -----------------------------------------------------------------------------------------


def _bank(pipeline: Pipeline, run: Run, ways: Iterable[Seen]) -> scoring.Bank | None:
    """Return the ID features of a run, or None where some are not in the store."""
    train = pipeline.library.prepared(run.id, "train")
    fit = _stored(pipeline, run, Piece(run.id, "train", "fit", 1))
    test = {way: _stored(pipeline, run, Piece(run.id, "test", "all", *way)) for way in ways}
    there = {way: layers for way, layers in test.items() if layers is not None}
    if fit is None or len(there) < len(test):
        return None
    y = torch.from_numpy(train.y[pipeline.encoders.split(run)[0]])
    test_y = torch.from_numpy(np.array(pipeline.library.prepared(run.id, "test").y))
    return scoring.Bank(fit, y, len(train.classes), scoring.Known(there, test_y), None, ood={}, validation={})


def _stored(pipeline: Pipeline, run: Run, piece: Piece) -> embed.Layers | None:
    """Return features from the store; those of a kept epoch, which no run makes, are made of its weights."""
    if run.epoch is not None:
        there = pipeline.store.read("train", pipeline.encoders.train_key(run))
        return pipeline.banks.layers(run, piece) if there else None
    artifact = pipeline.library.memo.found("bank", pipeline.banks.bank_fields(run, piece))
    return None if artifact is None else load_file(artifact.file("features.safetensors"))


# ---- measuring ----------------------------------------------------------------------------------------


def _measured(pipeline: Pipeline, run: Run, fields: dict[Where, Fields], bank: scoring.Bank) -> dict[Where, list[Row]]:
    """Return the facts of both splits under each clustering, and remember those that have no error."""
    found: dict[Where, list[Row]] = {}
    pipeline.watch.stage(KIND, run.title)
    for space in dict.fromkeys(space for space, _ in fields):
        clusterings = [clustering for of, clustering in fields if of == space]
        try:
            splits = _in_space(pipeline, run, space, clusterings, bank)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one space that cannot be measured leaves the others their rows
            facts = {"error": f"{type(error).__name__}: {error}"}
            splits = [[{"split": split} | facts for split in ("train", "test")] for _ in clusterings]
        found |= {(space, clustering): each for clustering, each in zip(clusterings, splits, strict=True)}
    for where, each in found.items():
        if not any("error" in split for split in each):  # else it is tried again
            pipeline.library.memo.keep(KIND, fields[where], {"splits": each}, run.title)
    return found


def _in_space(
    pipeline: Pipeline, run: Run, space: Space, clusterings: list[Clustering | None], bank: scoring.Bank
) -> list[list[Row]]:
    """Return the facts of both splits under each clustering."""
    found = scoring.clustered(space, clusterings, bank, run.seed, pipeline.device)
    rows: list[list[Row]] = [[] for _ in clusterings]
    for split, f, y in (("train", found.train, bank.y), ("test", found.test, bank.test.y)):
        both = zip(clusterings, found.clusters, strict=True)
        groupings = [_grouping(clusters, f, split) if clustering else None for clustering, clusters in both]
        numbers = cluster_quality.measures(f, y.to(f.device), bank.classes, groupings)
        for row, clusters, assign, each in zip(rows, found.clusters, groupings, numbers, strict=True):
            row.append({"split": split} | _facts(clusters, assign, {"n": len(f)} | each))
    return rows


def _grouping(clusters: Clusters | str, f: Tensor, split: str) -> Tensor | None:
    """Return the cluster of each item (N,): as it was fitted, of test items the nearest; None where there are none."""
    if isinstance(clusters, str):
        return None
    return clusters.assign if split == "train" else nearest_to(clusters.centroid)(f)[1]


def _facts(clusters: Clusters | str, assign: Tensor | None, numbers: Row) -> Row:
    if isinstance(clusters, str):
        return {"error": clusters}
    if assign is None:
        return numbers
    return numbers | {"clusters": len(clusters.centroid), "noise": float((assign < 0).double().mean())}
