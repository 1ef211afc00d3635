"""Measures the clusters that a study's detectors were fitted on, from features in the store; it never trains.

The measures are rows of `quality.csv` in the study's folder of results: one for each training, space, clustering
and split. Test items belong to the nearest centroid. A row is made again where its training, its space, its
clustering or the code that measures has changed, or where it failed. Where the study keeps epochs, rows are of each of
them, too, and say which; their features are made where the weights are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from oodbench.api import Clustering, Clusters
from oodbench.execution.pipeline import Pipeline
from oodbench.scoring import cluster_quality
from oodbench.scoring import detectors as scoring
from oodbench.store.files import write_whole
from oodbench.store.memo import NUMBER, digest
from oodbench.store.rows import CLUSTERS, read_table
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import NONE, Run, Work, canonical
from oodbench.study.settings import Seen, Space
from oodbench.toolkit.linear_algebra import nearest_to
from oodbench.training import embed
from oodbench.training.banks import Piece
from oodbench.training.weights import plan_of

FILE = CLUSTERS
RUN = ("id", "family", "protocol", "training", "outliers", "encoder", "recipe", "precision", "reference", "seed")
INTEGERS = ("seed", "epoch", "clusters", "n")
NUMBERS = (*INTEGERS, "noise", *cluster_quality.MEASURES)
COLUMNS = ("key", "train_key", *RUN, "epoch", "space", "clustering", "split", *NUMBERS[2:], "error")
TYPES: Any = {name: "Int64" if name in INTEGERS else "float64" if name in NUMBERS else "str" for name in COLUMNS}
Row = dict[str, Any]


@dataclass(frozen=True)
class Survey:
    """What surveying a study came to."""

    rows: pd.DataFrame  # of the study as it is now, COLUMNS
    measured: int  # rows that were not there
    trainings: int
    missing: int  # trainings that have rows to make and no features in the store
    unkept: int  # epochs to keep that their trainings, which are done, did not


class Place(NamedTuple):
    """Where detectors of a training look, and the hash of everything that its measures depend on."""

    space: Space
    clustering: Clustering | None
    key: str

    @property
    def labels(self) -> dict[str, str]:
        return {"space": self.space.label, "clustering": self.clustering.label if self.clustering else NONE}


def survey(pipeline: Pipeline, only: Container[tuple[Space, Clustering | None]] | None = None) -> Survey:
    """Measure what is not measured yet, there only where it is asked for, keep it, and return everything."""
    path = pipeline.study.results / FILE
    known = _by_key(_read(path, pipeline.watch.warn))
    planned = plan_of(pipeline.study).work
    work = [
        (run, _places(pipeline, run, each)) for each in planned for run in (*pipeline.encoders.kept(each.run), each.run)
    ]
    keys = {place.key: epoch_of(run) for run, places in work for place in places}
    measured = missing = 0
    for run, places in work:
        pending = [
            place
            for place in places
            if place.key not in known and (only is None or (place.space, place.clustering) in only)
        ]
        bank = _bank(pipeline, run, {place.space.seen for place in pending}) if pending else None
        if bank is None:
            missing += bool(pending) and run.epoch is None
            continue
        pipeline.watch.stage("quality", run.title)
        rows = list(_measured(pipeline, run, pending, bank))
        known |= _by_key(rows)
        measured += len(rows)
        _write(pipeline, _in_order(known, keys))  # a killed survey goes on after the last training
    found = _in_order(known, keys)
    _write(pipeline, found)
    return Survey(
        found, measured, len(planned), missing, sum(len(pipeline.encoders.unkept(each.run)) for each in planned)
    )


def epoch_of(run: Run) -> int:
    """Return after how many epochs a run is."""
    return run.recipe.epochs if run.epoch is None else run.epoch


def _places(pipeline: Pipeline, run: Run, work: Work) -> list[Place]:
    """Return every space and clustering of a training's cells, once; no clustering is one, too."""
    detectors = [cell.detector for cell in work.cells if cell.detector.distance]
    found = dict.fromkeys((detector.space, detector.clustering) for detector in detectors)
    return [Place(space, clustering, _key(pipeline, run, space, clustering)) for space, clustering in found]


def _key(pipeline: Pipeline, run: Run, space: Space, clustering: Clustering | None) -> str:
    pieces = (_train(run), _test(run, space.seen))
    return digest(
        {
            "number": NUMBER["score"],
            "code": fingerprint_module(cluster_quality.__name__),
            "features": [digest(pipeline.banks.bank_fields(run, piece)) for piece in pieces],
            "space": dataclasses.asdict(space),
            "clustering": canonical(clustering),
            "source": pipeline.study.registry.fingerprint("clustering", clustering.name) if clustering else None,
        }
    )


def _train(run: Run) -> Piece:
    return Piece(run.id, "train", "fit", 1)


def _test(run: Run, seen: Seen) -> Piece:
    return Piece(run.id, "test", "all", *seen)


def _bank(pipeline: Pipeline, run: Run, ways: Iterable[Seen]) -> scoring.Bank | None:
    """Return the ID features of a run, or None where some are not in the store."""
    train = pipeline.library.prepared(run.id, "train")
    fit, test = _stored(pipeline, run, _train(run)), {way: _stored(pipeline, run, _test(run, way)) for way in ways}
    there = {way: layers for way, layers in test.items() if layers is not None}
    if fit is None or len(there) < len(test):
        return None
    y = torch.from_numpy(train.y[pipeline.encoders.split(run)[0]])
    test_y = torch.from_numpy(np.array(pipeline.library.prepared(run.id, "test").y))
    return scoring.Bank(fit, y, len(train.classes), scoring.Known(there, test_y), None, ood={}, validation={})


def _stored(pipeline: Pipeline, run: Run, piece: Piece) -> embed.Layers | None:
    """Return features from the store; those of a kept epoch, which no run makes, are made of its weights."""
    if run.epoch is not None:
        return (
            None
            if pipeline.store.read("train", pipeline.encoders.train_key(run)) is None
            else pipeline.banks.layers(run, piece)
        )
    artifact = pipeline.store.read("bank", digest(pipeline.banks.bank_fields(run, piece)))
    return None if artifact is None else load_file(artifact.file("features.safetensors"))


# ---- measuring ----------------------------------------------------------------------------------------


def _measured(pipeline: Pipeline, run: Run, places: list[Place], bank: scoring.Bank) -> Iterator[Row]:
    """Yield two rows of each place, one for each split."""
    by_space: dict[Space, list[Place]] = {}
    for place in places:
        by_space.setdefault(place.space, []).append(place)
    shared = {name: run.labels[name] for name in RUN} | {"train_key": pipeline.encoders.train_key(run)}
    for members in by_space.values():
        try:
            rows = list(_in_space(pipeline, run, members, bank))
        except Exception as error:  # noqa: BLE001 - one space that cannot be measured leaves the others their rows
            message = f"{type(error).__name__}: {error}"
            rows = [_row(place, split, {"error": message}) for place in members for split in ("train", "test")]
        yield from (shared | row for row in rows)


def _in_space(pipeline: Pipeline, run: Run, places: list[Place], bank: scoring.Bank) -> Iterator[Row]:
    found = scoring.clustered(places[0].space, [place.clustering for place in places], bank, run.seed, pipeline.device)
    for split, f, y in (("train", found.train, bank.y), ("test", found.test, bank.test.y)):
        groupings = [_grouping(place, each, f, split) for place, each in zip(places, found.clusters, strict=True)]
        numbers = cluster_quality.measures(f, y.to(f.device), bank.classes, groupings)
        for place, clusters, assign, each in zip(places, found.clusters, groupings, numbers, strict=True):
            if isinstance(clusters, str):
                yield _row(place, split, {"error": clusters})
            else:
                yield _row(place, split, each | {"n": len(f)} | _counts(clusters, assign))


def _grouping(place: Place, clusters: Clusters | str, f: Tensor, split: str) -> Tensor | None:
    """Return the cluster of each item (N,): as it was fitted, of test items the nearest; None where there are none."""
    if place.clustering is None or isinstance(clusters, str):
        return None
    return clusters.assign if split == "train" else nearest_to(clusters.centroid)(f)[1]


def _counts(clusters: Clusters, assign: Tensor | None) -> Row:
    if assign is None:
        return {}
    return {"clusters": len(clusters.centroid), "noise": float((assign < 0).double().mean())}


def _row(place: Place, split: str, facts: Row) -> Row:
    return {"key": place.key, **place.labels, "split": split, **facts}


# ---- remembering --------------------------------------------------------------------------------------


def _by_key(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["key"], []).append(row)
    return found


def _in_order(known: dict[str, list[Row]], keys: dict[str, int]) -> pd.DataFrame:
    rows = [row | {"epoch": epoch} for key, epoch in keys.items() for row in known.get(key, [])]
    return pd.DataFrame.from_records(rows, columns=list(COLUMNS)).astype(TYPES).fillna({"error": ""})


def _read(path: Path, warn: Callable[[str], None]) -> list[Row]:
    """Return the rows of a file but those that failed or lack the other split; of no file or other columns, none."""
    table = read_table(path, TYPES, warn)
    if table is None or [*table.columns] not in ([*COLUMNS], _plain(COLUMNS)):
        return []
    table = table[table["error"] == ""]
    both = table.groupby("key")["split"].transform("nunique") == 2
    rows: list[Row] = table[both].to_dict("records")  # type: ignore[assignment]
    return rows


def _write(pipeline: Pipeline, rows: pd.DataFrame) -> None:
    shown = rows if pipeline.study.keep else rows[_plain(COLUMNS)]
    write_whole(pipeline.study.results / FILE, shown.to_csv(index=False).encode())


def _plain(columns: Iterable[str]) -> list[str]:
    """Return the columns of a study that keeps no epochs."""
    return [column for column in columns if column != "epoch"]
