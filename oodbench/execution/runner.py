"""Runs a study: makes the rows that are missing, training by training. The bookkeeping takes any encoder's features."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from oodbench.api import Dataset
from oodbench.data import needs
from oodbench.data.inputs import inputs
from oodbench.data.missing_sets import missing_sets, needed_by
from oodbench.data.prepare import LazyImages
from oodbench.errors import UserError
from oodbench.execution import audit
from oodbench.execution.checks import Checks
from oodbench.execution.pipeline import Options, Pipeline, pick_device
from oodbench.scoring import detectors as scoring
from oodbench.scoring import metrics
from oodbench.store import scores as image_scores
from oodbench.store.artifacts import digest, digest_of, written
from oodbench.store.columns import COLUMNS
from oodbench.store.files import FileError
from oodbench.store.heartbeat import Heartbeat
from oodbench.store.memo import NUMBER, Watch
from oodbench.store.process import Kept
from oodbench.store.provenance import commit, libraries, machine, now, version
from oodbench.store.rows import SAME, Results
from oodbench.study.grid import NONE, Detector, Plan, Run, Work
from oodbench.study.reader import check_owner, stamp
from oodbench.study.study import Detectors, Study
from oodbench.training import weights

Known = dict[tuple[str, str, str, str], bool]  # cell, OOD set, key of the cell, content of the set -> is it no error
_OF_SYSTEM = [n for n, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, OSError)]
# Errors of the machine, or of what a user has to change, rather than of a method: their rows are tried again.
PASSING = re.compile(
    rf"^(?:{'|'.join(_OF_SYSTEM)}|MemoryError|OutOfMemoryError|UserError|\w*(?:Timeout|Connection|HTTP|URL|SSL)\w*):"
    r"|\[Errno \d+\]|\(os error \d+\)|can't allocate memory|can't start new thread|CUDA error|was ended by signal"
)
# Those of them that every other training would meet, too: they end a run.
_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EFBIG)
LOST_DEVICE = re.compile(r"CUDA error: (?!out of memory)")  # nothing runs on it any more in this process
SOON, LATER = 0.1, 5.0  # seconds between two looks for a training that no other process works on any more
NAMED = 8  # covariate-shifted sets that a row names
WRONG, PIXELS = 12, 64  # images of a set that are kept with scores, and their longer side at most
GOES_ON = "what is finished is kept, and the same command goes on"
ENDING = [os.strerror(each) for each in _OF_DISK]


class Wanted(NamedTuple):
    """A row that is to be there."""

    detector: Detector
    ood: str
    group: str
    cell: str  # hash of the cell's parameters; with `ood` the identity of the row
    key: str  # hash of everything that the numbers depend on, but for `ood_data`
    ood_data: str = ""  # content of the OOD set, where it is not in the key


class FeatureSource(Protocol):
    """Where the features of one encoder come from, and the rows that its detectors are to have."""

    title: str
    key: str  # names the encoder
    seed: int
    trains: bool  # whether the encoder is trained here

    @property
    def allowed(self) -> bool: ...  # whether its features are there or may be made
    @property
    def wanted(self) -> Sequence[Wanted]: ...
    @property
    def facts(self) -> dict[str, Any]: ...  # the columns that all rows share and that are known beforehand
    @property
    def scores(self) -> ScoresKept | None: ...  # of which rows scores by image are kept; None: of none

    def lock(self) -> AbstractContextManager[bool]:
        """Return a lock on the encoder; it gives False where another process has it."""

    def measured(self) -> dict[str, Any]:
        """Return the columns that are measured of the encoder, which is made and kept where it is missing."""

    def bank(self, detectors: Sequence[Detector]) -> scoring.Bank:
        """Return the features on every set, as these detectors read them."""

    def notes(self, ood: str) -> list[str]:
        """Return what rows on an OOD set warn of, whatever their detectors are."""

    def keep(self, facts: dict[str, Any]) -> None:
        """Keep the encoder's parameters beside the rows, with facts about it."""


class Embedded(NamedTuple):
    """The features of an encoder, and the columns that are measured of it."""

    measured: dict[str, Any]
    bank: scoring.Bank


@dataclass(frozen=True)
class Outcome:
    """What making rows came to."""

    rows: pd.DataFrame  # that are up to date
    scored: int  # cells
    failed: int  # error rows, old ones included
    missing: int  # cells left undone because of `cached_only`
    trained: int = 0  # encoders
    unkept: int = 0  # epochs to keep of trainings that are done: `keep` came later
    left_out: dict[str, int] = field(default_factory=dict)  # reason -> cells that there are not


class Bookkeeping:
    """The rows in a folder of results. With `redo`, each is made again, once; with `failed` error rows alone."""

    def __init__(self, results: Results, how: scoring.How, redo: str, watch: Watch) -> None:
        self.results, self.how, self.redo, self.watch = results, how, redo, watch
        self._redone: set[tuple[str, str]] = set()  # rows that were made here

    def known(self, source: FeatureSource) -> Known:
        """Return the rows of an encoder that count as done."""
        rows = self.results.read((*SAME, "status", "error"), training=source.key)
        found: Known = {}
        for *same, status, error in zip(*(rows[name].tolist() for name in (*SAME, "status", "error")), strict=True):
            cell, ood, key, content = same
            again = status != "ok" if self.redo == "failed" else self.redo or (error and PASSING.search(error))
            if not again or (cell, ood) in self._redone:
                found[cell, ood, key, content] = status == "ok"
        return found

    def pending(self, source: FeatureSource) -> list[Wanted]:
        """Return the rows that are missing, were made by other code or from other data, or lack scores to be kept."""
        scores, known = source.scores, self.known(source)
        found = ((each, known.get((each.cell, each.ood, each.key, each.ood_data))) for each in source.wanted)
        return [each for each, is_ok in found if is_ok is None or (is_ok and scores and scores.lacks(each))]

    def run(self, sources: Sequence[FeatureSource], columns: Iterable[str] = COLUMNS) -> Outcome:
        """Make every row that is pending; the outcome's rows have these columns."""
        pending = [(each, cells) for each in sources if (cells := _cells(self.pending(each)))]
        todo = [(each, cells) for each, cells in pending if each.allowed]
        total, left = sum(_cells(each.wanted) for each in sources), sum(cells for _, cells in pending)
        missing = left - sum(cells for _, cells in todo)
        self.watch.planned(sum(each.trains for each, _ in todo), total, total - left)
        scored, pause = 0, SOON
        while todo:  # what no other process works on, then what one has left or let fall
            others = []
            for each, cells in todo:
                with each.lock() as mine:
                    if not mine:
                        others.append((each, cells))
                        continue
                    wanted = self.pending(each)
                    self.watch.found(cells - _cells(wanted))
                    if wanted:
                        self.make(each, wanted)
                        scored += _cells(wanted)
            if others:
                self.watch.stage("wait", f"{len(others)} trainings that another process works on")
                pause = SOON if len(others) < len(todo) else min(2 * pause, LATER)
                time.sleep(pause)
            todo = others
        rows = self.results.current(columns)
        return Outcome(rows, scored, int((rows["status"] == "error").sum()), missing)

    def make(self, source: FeatureSource, wanted: Sequence[Wanted]) -> None:
        """Make rows of an encoder, all or none of them."""
        self._write(self._whole(source, wanted))

    def _whole(self, source: FeatureSource, wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
        try:
            return list(self.rows(source, wanted))
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a plugin's own kind of end, such as a cancelled task of asyncio
            raise UserError(f"{source.title}: {type(error).__name__}: {error}; {GOES_ON}") from error

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.results.write(rows)
        self._redone.update((row["cell"], row["ood"]) for row in rows)
        failed = [row for row in rows if row["status"] == "error"]
        self.watch.scored(*(len({row["detector"] for row in each}) for each in (rows, failed)))

    def embedded(self, source: FeatureSource, detectors: Sequence[Detector]) -> Embedded | str:
        """Return an encoder's features, made where they are missing, and what is measured of it; else why it failed."""
        try:
            return Embedded(source.measured(), source.bank(detectors))
        except FileError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - what fails is rows
            message = f"{type(error).__name__}: {error}"
            _end_where_all_would(source.title, message, error)
            if self.how.device.type == "cuda":
                torch.cuda.empty_cache()  # what did not fit left it full of holes
            self.watch.failed(source.title, message)
            source.keep({"error": message})
            return message

    def fail(self, source: FeatureSource, why: str) -> None:
        """Make every row that is pending of an encoder an error row."""
        if wanted := self.pending(source):
            self._write(list(self.rows(source, wanted, why)))

    def rows(self, source: FeatureSource, wanted: Sequence[Wanted], failed: str = "") -> Iterator[dict[str, Any]]:
        """Yield the rows of every detector of these on every OOD set of these; what fails, or has `failed`, is rows."""
        detectors, sets = (list(dict.fromkeys(part)) for part in zip(*(each[:2] for each in wanted), strict=True))
        identities, notes = {each[:2]: each for each in source.wanted}, {ood: source.notes(ood) for ood in sets}
        facts, process = source.facts | self._circumstances(), Kept()
        made = failed or self.embedded(source, detectors)
        if isinstance(made, str):
            found = iter([scoring.Judged(each, ood, {}, [], made) for each in detectors for ood in sets])
        else:
            facts |= made.measured
            self.watch.stage("score", source.title)
            how = dataclasses.replace(self.how, keep_scores=source.scores is not None)
            found = scoring.judged(detectors, made.bank, sets, source.seed, how)
        before = time.perf_counter()
        for done, each in enumerate(found, 1):
            _end_where_all_would(source.title, each.error)
            seconds, before = time.perf_counter() - before, time.perf_counter()
            if changed := process.put_back():
                self.watch.warn(f"{source.title}: a plugin has changed {', '.join(changed)}; it is put back")
            row = identities[each.detector, each.ood]
            if each.scores is not None and source.scores and row.cell in source.scores.cells:
                source.scores.keep(row, each.scores)
            yield facts | _row(each, row, notes[each.ood], seconds)
            self.watch.scoring(done, len(wanted))

    def _circumstances(self) -> dict[str, str]:
        installed = ", ".join(f"{name} {each}" for name, each in libraries().items())
        made_by = {"version": version(), "commit": commit(), "libraries": installed, "device": str(self.how.device)}
        return made_by | {"scored_on": ", ".join(machine(str(self.how.device)).values())}


def _end_where_all_would(title: str, message: str, cause: BaseException | None = None) -> None:
    """Raise UserError for a fault of the machine that every other training would meet, too."""
    if any(each in message for each in ENDING) or LOST_DEVICE.search(message):
        raise UserError(f"{title}: {message}; {GOES_ON}") from cause


def scored_by(axes: Detectors, detector: Detector) -> dict[str, Any]:
    """Return what a detector's numbers depend on, but for the features: part of the key of its rows."""
    called = {room: each.shown_as for room, each in detector.plugins.items() if each.shown_as}
    return {
        "number": NUMBER["score"],
        "detector": detector.canonical,
        "sources": {room: axes.registry.fingerprint(room, each.name) for room, each in detector.plugins.items()},
        **({"probe": NUMBER["probe"]} if detector.posthoc else {}),
        **({"compat": True} if axes.compat else {}),
        **({"called": called} if called else {}),
    }


def _cells(wanted: Sequence[Wanted]) -> int:
    return len({each.detector for each in wanted})


def _row(judged: scoring.Judged, wanted: Wanted, notes: list[str], seconds: float) -> dict[str, Any]:
    """Return what the row of a detector on an OOD set does not share with the others of its encoder."""
    return {
        **judged.detector.labels,
        **judged.numbers,
        **{name: getattr(wanted, name) for name in ("cell", "key", "ood", "group", "ood_data")},
        "status": "error" if judged.error else "ok",
        "warnings": "; ".join([*notes, *judged.warnings]),
        "error": judged.error,
        "detector": json.dumps(judged.detector.canonical),
        "scored_at": now(),
        "score_seconds": round(seconds, 4),
    }


# ---- a study ---------------------------------------------------------------------------------------------


class Runner:
    """A study, its pipeline and its rows."""

    def __init__(self, study: Study, options: Options | None = None, watch: Watch | None = None) -> None:
        self.options = options or Options()
        device = pick_device(self.options.device)
        self.watch = Heartbeat(study.results, str(device), watch or Watch())
        self.pipeline = Pipeline(study, self.options, self.watch)
        self.study, self.fail = self.pipeline.study, study.document.fail
        self.library, self.encoders = self.pipeline.library, self.pipeline.encoders
        self.results = Results(study.results, self.watch.warn)
        how = scoring.How(self.pipeline.device, self.options.memory, study.detectors.compat)
        self.bookkeeping = Bookkeeping(self.results, how, self.options.redo, self.watch)
        self._near: dict[tuple[str, str], list[str]] = {}

    @cached_property
    def whole(self) -> Plan:
        """The plan of the study, whatever part of it is to be made."""
        return weights.plan_of(self.study)

    @cached_property
    def plan(self) -> Plan:
        """The plan of what is to be made."""
        return self.whole.only(self.options.only)

    @cached_property
    def checks(self) -> Checks:
        return Checks(self.pipeline, self.plan, self.whole)

    def run(self, columns: Iterable[str] = COLUMNS) -> Outcome:
        """Make every row of the study that is not there, and return these columns of all of them."""
        sources = self.begin()
        with self.watch.beating():
            outcome = self.bookkeeping.run(sources, columns)
            for each in sources:  # of rows that are there already
                if self.encoders.has_weights(each.run) and self.results.run(each.key) is None:
                    each.measured()
        return dataclasses.replace(outcome, trained=self.encoders.trainings, unkept=len(self.unkept()))

    def begin(self) -> list[TrainedFeatures]:
        """Refuse what cannot work, look for near duplicates, write the plan of the study, and return its trainings."""
        check_owner(self.study.document, self.study.results, self.results.plan() or {})
        with self.watch.heard() as said:
            self.checks.check()
            inputs = self.inputs()  # before what follows from them, so that what changes meanwhile is noticed later
            self.results.open()
            found = audit.audit(self.pipeline, [work.run for work in self.plan.work])
            if message := audit.warning(found, self.study.file):
                self.watch.warn(message)
            self._near = audit.notes(found)
            sources = [self.source(work) for work in self.plan.work]
            facts = self.plan_facts(sources)
        self.results.write_plan(facts | self._begun(inputs, said, sources))
        return sources

    def _begun(self, inputs: str, said: list[str], sources: Sequence[TrainedFeatures]) -> dict[str, Any]:
        """Return what `finished` has to know; nothing where a later run has to look again."""
        damaged = any(each.startswith(str(self.pipeline.store.root)) for each in said)
        if not inputs or damaged or self.options.only:
            return {}
        scores = sorted(cell for each in sources if each.scores for cell in each.scores.cells)
        epochs = {each.key: [*map(self.encoders.train_key, self.encoders.kept(each.run))] for each in sources}
        kept = {key: keys for key, keys in epochs.items() if keys}
        return {"begun": {"inputs": inputs, "said": said, "scores": scores, "epochs": kept}}

    def inputs(self) -> str:
        """Return a hash of what the plan follows from here; "" where that is not there."""
        study = self.study
        try:
            loaded = [
                weights.source(training, encoder, study.settings.image.channels, study.file.parent).content()
                for training in study.trainings
                for encoder in study.encoders
                if training.weights is not None
            ]
            return inputs(self.library, [self.encoders.auto_precision, *loaded])
        except UserError:  # of weights; a run says it
            return ""

    def finished(self, columns: Iterable[str] = COLUMNS) -> Outcome | None:
        """Return what a run comes to where it has nothing to do, with these columns of all rows; else None.

        That the last run's plan is still the study's is told by a hash of all that it follows from, that every row is
        there by the rows themselves. What was warned of before that run is said again.
        """
        plan = self.results.plan() or {}
        begun, asked = plan.get("begun"), self.options.redo or self.options.only
        if begun is None or asked or plan.get("set", []) != self.study.document.changes:
            return None
        if begun["inputs"] != self.inputs():
            return None
        check_owner(self.study.document, self.study.results, plan)
        said = [*begun["said"]]
        rows = Results(self.study.results, said.append).current({*columns, "status", "error", "train_key"})
        if rows.attrs.get("lacking", "unknown") or any(PASSING.search(each) for each in rows["error"].unique() if each):
            return None
        if self._lost(rows, begun):
            return None
        self.results.open()
        for each in said:
            self.watch.warn(each)
        with self.watch.beating():  # what is left of processes that are gone is removed
            unkept = [each for key, keys in begun["epochs"].items() if self._has(key) for each in keys]
        failed = int((rows["status"] == "error").sum())
        return Outcome(rows, 0, failed, 0, unkept=sum(not self._has(each) for each in unkept))

    def _has(self, train_key: str) -> bool:
        return self.pipeline.store.has("train", train_key)

    def _lost(self, rows: pd.DataFrame, begun: dict[str, Any]) -> bool:
        """Return whether something beside rows is not there: the facts of a training, or scores by image."""
        if any(self._has(key) and self.results.run(key) is None for key in rows["train_key"].unique()):
            return True
        scored = rows[rows["cell"].isin(begun["scores"]) & (rows["status"] == "ok")]
        names = map(image_scores.name, scored["key"], scored["ood"], scored["ood_data"])
        audited = (self.study.results / f"{audit.NAME}.json").is_file()
        return not audited or not all(self.pipeline.store.has(image_scores.KIND, each) for each in names)

    def begin_part(self) -> None:
        """Begin with some trainings of a study that was checked and planned: what their rows say of duplicates."""
        self.results.open()
        pairs = audit.pairs(work.run for work in self.plan.work)
        self._near = audit.notes([audit.shared(self.pipeline, *each) for each in pairs])

    def unkept(self) -> list[Run]:
        """Return the runs at epochs that the study keeps, and that their trainings, which are done, did not."""
        return [each for work in self.plan.work for each in self.encoders.unkept(work.run)]

    def plan_facts(self, sources: Sequence[TrainedFeatures] = ()) -> dict[str, Any]:
        """Return what tables have to know: the key of each cell, the OOD sets of each ID set, what was left out.

        A set that the study goes without has the content that the last plan had of it, if the study is the same. Where
        a part of it is made, trainings of others whose data is not here are `unplanned`.
        """
        cells: dict[str, str] = {}
        sets: dict[str, dict[str, tuple[str, str]]] = {}
        counts = []
        last = (self.results.plan() or {}) if self.study.missing else {}
        unplanned = self._unplanned() if self.options.only else []
        ready = {} if self.options.only else {source.run.named: source for source in sources}
        for work in self.whole.work:
            if work.run.title in unplanned:
                continue
            source = ready.get(work.run.named) or self.source(work)
            wanted, before = source.wanted, len(cells)
            cells.update((each.cell, each.key) for each in wanted)
            sets[work.run.id.label] = self._sets(work.run.id, {each.ood: each.ood_data for each in wanted}, last)
            counts.append((work.run.title, work.run.id.label, work.run.seed, len(cells) - before))
        path = os.path.relpath(self.study.file.resolve(), self.study.results.resolve())
        file = path.encode(errors="replace").decode()  # a name may be no Unicode
        facts = {"study": self.study.name, "file": file, "of": stamp(self.study.document), "work": counts}
        facts |= {"set": self.study.document.changes} if self.study.document.changes else {}
        facts |= {"unplanned": unplanned} if unplanned else {}
        own = ((each.shown_as, each.called("").label) for each in self.study.datasets)
        called = {alias: label for alias, label in own if alias}
        data: dict[str, Any] = {"missing": self.study.missing} if self.study.missing else {}
        if others := needs.other_files(needs.needs(self.study), self.library):
            data["other files"] = others
        return facts | {"called": called, "cells": cells, "sets": sets, "left_out": dict(self.whole.left_out)} | data

    def _unplanned(self) -> list[str]:
        """Return the trainings that no row is to be made of, and whose data is not here to tell their keys."""
        made = {work.run.title for work in self.plan.work}
        others = [work.run for work in self.whole.work if work.run.title not in made]
        missing = missing_sets(self.study) if others else []
        return [run.title for run in others if needed_by(missing, [run])]

    def _sets(self, id_: Dataset, contents: dict[str, str], last: dict[str, Any]) -> dict[str, tuple[str, str]]:
        """Return group and content of each OOD set of an ID set, given the contents of those that are here."""
        declared = {name: group for group, members in self.study.setups[id_.label].ood.items() for name in members}
        is_same = last.get("of") == stamp(self.study.document)
        known = last["sets"].get(id_.label, {}) if last and is_same else {}
        contents = {name: known.get(name, ("", ""))[1] for name in declared} | contents
        return {name: (group, contents[name]) for name, group in declared.items()}

    def source(self, work: Work) -> TrainedFeatures:
        """Return what makes the features of a training, and the rows that its cells are to have."""
        return TrainedFeatures(work, self.pipeline, self.results, self._near)

    def rows(self, work: Work) -> Iterator[dict[str, Any]]:
        """Yield the rows of cells on every OOD set; what fails is rows, too."""
        source = self.source(work)
        return self.bookkeeping.rows(source, source.wanted)


class TrainedFeatures:
    """The features of a training of a study, which its pipeline makes, and the rows of its cells.

    `near` is what rows say of near duplicates, see audit.notes.
    """

    trains = True

    def __init__(
        self, work: Work, pipeline: Pipeline, results: Results, near: dict[tuple[str, str], list[str]]
    ) -> None:
        self.work, self.pipeline, self.results, self.near = work, pipeline, results, near
        self.run, self.title, self.seed = work.run, work.run.title, work.run.seed
        self.key = pipeline.encoders.train_key(work.run)
        self.id_data = pipeline.library.prepared(work.run.id, "train").content

    @property
    def allowed(self) -> bool:
        return not self.pipeline.options.cached_only or self.pipeline.encoders.has_weights(self.run)

    @cached_property
    def wanted(self) -> list[Wanted]:
        run, library = self.run, self.pipeline.library
        sets = [(name, group) for group, members in run.ood.items() for name in members]
        base: dict[str, Any] = {"train": self.key, "test": library.prepared(run.id, "test").content}
        base |= {"called": run.called} if run.called else {}
        if run.validation:
            base["validation"] = {each.label: library.prepared(each, "train").content for each in run.validation}
        if run.covariate:
            base["covariate"] = {each.label: library.prepared(each, "test").content for each in run.covariate}
        if run.reference.held_out:
            base["reference"] = library.reference_set(run.reference.held_out).content
        contents = {name: library.prepared(each, "test").content for name, each in run.sets.items()}
        shared, known = {name: written(value) for name, value in base.items()}, self.pipeline.scored_by
        found = []
        for cell in self.work.cells:
            detector = cell.detector
            if detector.written not in known:
                parts = scored_by(self.pipeline.study.detectors, detector)
                known[detector.written] = {name: written(value) for name, value in parts.items()}
            key = digest_of(shared | known[detector.written])
            found += [Wanted(detector, name, group, cell.id, key, contents[name]) for name, group in sets]
        return found

    @property
    def facts(self) -> dict[str, Any]:
        classes = len(self.pipeline.library.prepared(self.run.id, "train").classes)
        precision = self.pipeline.encoders.precision(self.run)
        found = {"classes": classes, "train_key": self.key, "id_data": self.id_data}
        found["covariate"] = _said([each.label for each in self.run.covariate])
        return self.run.labels | {"precision": precision} | found

    def lock(self, wait: bool = False) -> AbstractContextManager[bool]:
        return self.pipeline.store.lock(f"run-{self.key}", wait)

    def measured(self) -> dict[str, Any]:
        artifact = self.pipeline.encoders.trained(self.run)
        accuracy, right = self.pipeline.banks.accuracies(self.run), self.pipeline.banks.correct_shifted(self.run)
        shifted = {name: float(each.double().mean()) for name, each in right.items()}
        self.keep({"accuracies": accuracy} | ({"accuracies under shift": shifted} if shifted else {}) | artifact.meta)
        by = "classifier" if accuracy["classifier"] is not None else "linear"
        losses = artifact.meta["losses"]
        return {f"accuracy_{name}": value for name, value in accuracy.items()} | {
            "accuracy": accuracy[by],
            "accuracy_shifted": float(torch.cat([*right.values()]).double().mean()) if right else None,
            "accuracy_by": NONE if accuracy[by] is None else f"{by} probe" if by == "linear" else by,
            "loss": losses[-1] if losses else None,
            "train_seconds": artifact.meta["seconds"],
            "trained_on": ", ".join(artifact.meta.get("machine", {}).values()),
        }

    def bank(self, detectors: Sequence[Detector]) -> scoring.Bank:
        asked = set(detectors)
        ways = dataclasses.replace(self.work, cells=[cell for cell in self.work.cells if cell.detector in asked]).ways
        baselines = [each.posthoc for each in detectors if each.posthoc]
        return self.pipeline.bank(self.run, ways, bool(baselines), any(each.network for each in baselines))

    def notes(self, ood: str) -> list[str]:
        seen, _ = audit.sides(self.run)
        said = [self.pipeline.study.warns, self.pipeline.library.prepared(self.run.id, "train").warnings]
        said += [self.pipeline.library.prepared(each, "test").warnings for each in (self.run.id, self.run.sets[ood])]
        return [note for each in (*said, *(self.near.get((side.name, ood), []) for side in seen)) for note in each]

    def keep(self, facts: dict[str, Any]) -> None:
        self.results.write_run(self.key, {"parameters": self.run.canonical} | facts)

    @cached_property
    def scores(self) -> ScoresKept | None:
        spec = self.pipeline.study.scores
        declared = [] if spec is None else self.work.of(spec).cells
        compared = self.work.compared(self.pipeline.study.claims.values()) if spec and spec.claims else []
        cells = frozenset(cell.id for cell in (*declared, *compared))
        return ScoresKept(self.pipeline, self.run, cells) if cells else None


def _said(labels: Sequence[str]) -> str:
    """Return labels as a column has them: of many their number, and a hash that tells them from others."""
    return ", ".join(labels) if len(labels) <= NAMED else f"{len(labels)} sets #{digest(labels)[:6]}"


@dataclass(frozen=True)
class ScoresKept:
    """Scores by image of some cells of a training, which the store keeps."""

    pipeline: Pipeline
    run: Run
    cells: frozenset[str]

    def lacks(self, row: Wanted) -> bool:
        at = image_scores.name(row.key, row.ood, row.ood_data)
        return row.cell in self.cells and not self.pipeline.store.has(image_scores.KIND, at)

    def keep(self, row: Wanted, found: scoring.ImageScores) -> None:
        library, run = self.pipeline.library, self.run
        sides = (run.id, -found.id_), (run.sets[row.ood], found.ood)  # ID is wrong where scores are high
        wrong = [_least(library.prepared(of, "test").x, score) for of, score in sides]
        reference, id_, ood = (each.astype(np.float32) for each in (found.reference, found.id_, found.ood))
        scores = image_scores.KeptScores(found.cut, reference, id_, ood, *wrong)
        image_scores.keep(self.pipeline.store, (row.key, row.ood, row.ood_data), row.cell, scores)


def _least(images: NDArray[np.uint8] | LazyImages, score: metrics.Floats) -> image_scores.Wrong:
    """Return the images of the least scores, at most as large as a page shows them."""
    order = np.argsort(score, kind="stable")[:WRONG]
    found = images[order]
    step = -(-max(found.shape[1:3]) // PIXELS)
    small = [Image.fromarray(each.squeeze()).reduce(step) for each in found]
    return image_scores.Wrong(order, np.stack([np.asarray(each).reshape(*each.size[::-1], -1) for each in small]))
