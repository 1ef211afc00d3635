"""Runs a study: checks it, makes the rows that are missing, training by training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any, TypeVar

import pandas as pd

from oodbench.api import Dataset, Plugin
from oodbench.data import prepare
from oodbench.data.library import Split
from oodbench.errors import UserError, suggestion
from oodbench.execution import audit
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.scoring import detectors as scoring
from oodbench.store.memo import NUMBER, Silent, Watch, digest
from oodbench.store.provenance import commit, libraries, now, version
from oodbench.store.rows import Results
from oodbench.study.document import Trail
from oodbench.study.grid import LAYER_HEAD, NONE, Cell, Detector, Plan, Run, Work, canonical, has_shifted
from oodbench.study.registry import Registry
from oodbench.study.study import Study
from oodbench.training import augment, batches, distributed, embed, networks
from oodbench.training.weights import plan_of

T = TypeVar("T")
SPLITS: tuple[Split, ...] = ("train", "test")
Known = dict[tuple[str, str], tuple[str, str]]  # (cell, OOD set) -> (key of the cell, content of the set)


@dataclass(frozen=True)
class Outcome:
    """What running a study came to."""

    rows: pd.DataFrame  # of the study's cells
    trained: int  # encoders
    scored: int  # cells
    failed: int  # error rows, old ones included
    missing: int  # cells left undone because of `cached_only`
    unkept: int = 0  # epochs to keep of trainings that are done: `keep` came later


class Runner:
    """A study, its pipeline and its rows."""

    def __init__(self, study: Study, options: Options | None = None, watch: Watch | None = None) -> None:
        self.study = study
        self.fail = study.document.fail
        self.options = options or Options()
        self.watch: Watch = watch or Silent()
        self.pipeline = Pipeline(study, self.options, self.watch)
        self.library, self.encoders = self.pipeline.library, self.pipeline.encoders
        self.results = Results(study.results, self.watch.warn)
        self._redone: set[tuple[str, str]] = set()  # rows that this runner has made
        self._near: dict[tuple[str, str], list[str]] = {}  # what rows say of near duplicates, see audit.notes
        self._dims: dict[str, int] = {}  # encoder -> penultimate features

    @cached_property
    def plan(self) -> Plan:
        return plan_of(self.study)

    def run(self) -> Outcome:
        """Make every row of the study that is not there, and return all of them."""
        self.check()
        self._audit()
        self.results.write_plan(self.plan_facts())
        known = self.known()
        pending = [todo for work in self.plan.work if (todo := self.pending(work, known)).cells]
        missing = scored = 0
        total = len(self.plan.cells)
        done = total - sum(len(work.cells) for work in pending)
        if self.options.cached_only:
            missing = sum(len(work.cells) for work in pending if not self.encoders.has_weights(work.run))
            pending = [work for work in pending if self.encoders.has_weights(work.run)]
        self.watch.planned(len(pending), total, done)
        for wait in (False, True):  # first what no other process works on, then what is left
            left = []
            for work in pending:
                with self.pipeline.store.lock("run", self.encoders.train_key(work.run), wait=wait) as mine:
                    if mine:
                        todo = self.pending(work, self.known())
                        self.watch.scored(len(work.cells) - len(todo.cells), 0)  # another process was faster
                        scored += self._score(todo)
                    else:
                        left.append(work)
            pending = left
            if pending:
                self.watch.stage("wait", f"{len(pending)} trainings that another process works on")
        rows = self.results.current()
        failed = int((rows["status"] == "error").sum())
        unkept = len(self.unkept())
        return Outcome(rows, self.encoders.trainings, scored, failed, missing, unkept)

    def unkept(self) -> list[Run]:
        """Return the runs at epochs that the study keeps, and that their trainings, which are done, did not."""
        return [each for work in self.plan.work for each in self.encoders.unkept(work.run)]

    def plan_facts(self) -> dict[str, Any]:
        """Return what tables have to know: the key of each cell, the OOD sets of each ID set, what was left out."""
        sets: dict[str, dict[str, tuple[str, str]]] = {}
        for work in self.plan.work:
            contents = self.contents(work.run)
            groups = {name: group for group, members in work.run.ood.items() for name in members}
            sets[work.run.id.label] = {name: (groups[name], contents[name]) for name in groups}
        return {
            "study": self.study.name,
            "cells": {cell.id: key for work in self.plan.work for cell, key in self.keys(work)},
            "sets": sets,
            "left_out": dict(self.plan.left_out),
        }

    # ---- what is there

    def known(self) -> Known:
        """Return the rows that count as done."""
        rows = self.results.read()
        found: Known = dict(
            zip(
                zip(rows["cell"], rows["ood"], strict=True),
                zip(rows["key"], rows["ood_data"], strict=True),
                strict=True,
            )
        )
        if not self.options.redo:
            return found
        failed = {each for each, status in zip(found, rows["status"], strict=True) if status != "ok"}
        again = failed if self.options.redo == "failed" else set(found)
        return {each: key for each, key in found.items() if each not in again or each in self._redone}

    def pending(self, work: Work, known: Known) -> Work:
        """Return the cells that miss a row, or have one made by other code or from other data."""
        contents = self.contents(work.run)

        def missing(cell: Cell, key: str) -> bool:
            return any(known.get((cell.id, name)) != (key, content) for name, content in contents.items())

        return replace(work, cells=[cell for cell, key in self.keys(work) if missing(cell, key)])

    def contents(self, run: Run) -> dict[str, str]:
        """Return the content of each OOD test set by its name."""
        return {name: self.library.prepared(each, "test").content for name, each in run.sets.items()}

    def keys(self, work: Work) -> list[tuple[Cell, str]]:
        """Return each cell with the hash of everything that its numbers depend on, but for the OOD sets."""
        base = {
            "number": NUMBER["score"],
            "train": self.encoders.train_key(work.run),
            "test": self.library.prepared(work.run.id, "test").content,
        }
        if work.run.validation:
            base["validation"] = {
                each.label: self.library.prepared(each, "train").content for each in work.run.validation
            }
        if work.run.reference.held_out:
            base["reference"] = self.library.reference_set(work.run.reference.held_out).content
        if self.study.detectors.compat:
            base["compat"] = True
        probe = {"probe": NUMBER["probe"]}
        return [
            (
                cell,
                digest(
                    {
                        **base,
                        "detector": cell.detector.canonical,
                        "sources": sources(self.study.registry, cell.detector),
                    }
                    | (probe if cell.detector.posthoc else {})
                ),
            )
            for cell in work.cells
        ]

    # ---- rows

    def _score(self, work: Work) -> int:
        """Make the rows of cells and return the number of cells."""
        if work.cells:
            rows = list(self.rows(work))
            self.results.write(rows)
            self._redone.update((row["cell"], row["ood"]) for row in rows)
            self.watch.scored(len(work.cells), len({row["cell"] for row in rows if row["status"] == "error"}))
        return len(work.cells)

    def rows(self, work: Work) -> Iterator[dict[str, Any]]:
        """Yield the rows of cells on every OOD set; what fails is rows, too."""
        run = work.run
        cells = {cell.detector: (cell.id, key) for cell, key in self.keys(work)}
        groups = {name: group for group, members in run.ood.items() for name in members}
        contents = self.contents(run)
        facts, verdicts = self._verdicts(work)
        before = time.perf_counter()
        for verdict in verdicts:
            seconds, before = time.perf_counter() - before, time.perf_counter()
            cell, key = cells[verdict.detector]
            identity = {"cell": cell, "key": key, "group": groups[verdict.ood], "ood_data": contents[verdict.ood]}
            warnings = [*facts["warnings"], *self._notes(run, verdict.ood)]
            yield as_row(facts | {"warnings": warnings}, verdict, identity, seconds)

    def _verdicts(self, work: Work) -> tuple[dict[str, Any], Iterator[scoring.Verdict]]:
        """Return the columns that all rows of a run share, and the verdicts; a failed training is rows, too."""
        run, sets = work.run, list(work.run.sets)
        detectors = [cell.detector for cell in work.cells]
        facts = self._facts(run)
        try:
            facts |= self._trained_facts(run)
            bank = self.pipeline.bank(run, work.ways, any(detector.posthoc for detector in detectors))
        except Exception as error:  # noqa: BLE001 - the error is what the rows say, and the grid goes on
            message = f"{type(error).__name__}: {error}"
            self.watch.failed(run.title, message)
            self.results.write_run(self.encoders.train_key(run), {"parameters": run.canonical, "error": message})
            return facts, (scoring.Verdict(d, name, {}, [], message) for d in detectors for name in sets)
        self.watch.stage("score", run.title)
        return facts, scoring.verdicts(detectors, bank, sets, run.seed, self._how())

    def _how(self) -> scoring.How:
        return scoring.How(self.pipeline.device, self.options.memory, self.study.detectors.compat)

    def _facts(self, run: Run) -> dict[str, Any]:
        id_ = self.library.prepared(run.id, "train")
        return run.labels | {
            "precision": self.encoders.precision(run),
            "classes": len(id_.classes),
            "train_key": self.encoders.train_key(run),
            "id_data": id_.content,
            "version": version(),
            "commit": commit(),
            "libraries": ", ".join(f"{name} {each}" for name, each in libraries().items()),
            "device": str(self.pipeline.device),
            "warnings": [*self.study.warns, *id_.warnings],
        }

    def _trained_facts(self, run: Run) -> dict[str, Any]:
        artifact = self.encoders.trained(run)
        accuracy = self.pipeline.banks.accuracies(run)
        facts = {"parameters": run.canonical, "accuracies": accuracy} | artifact.meta
        self.results.write_run(self.encoders.train_key(run), facts)
        by = "classifier" if accuracy["classifier"] is not None else "linear"
        losses = artifact.meta["losses"]
        return {f"accuracy_{name}": value for name, value in accuracy.items()} | {
            "accuracy": accuracy[by],
            "accuracy_by": NONE if accuracy[by] is None else f"{by} probe" if by == "linear" else by,
            "loss": losses[-1] if losses else None,
            "train_seconds": artifact.meta["seconds"],
        }

    # ---- checks before any work

    def absent(self) -> list[Dataset]:
        """Return the data sets whose files are not here, each once."""
        found = {str(canonical(each)): each for each in self.study.datasets}
        return [each for each in found.values() if not prepare.here(each, self.study.data)]

    def check(self) -> None:
        """Prepare the data and raise UserError about what cannot work, before anything is trained."""
        self.check_study()
        for work in self.plan.work:
            self.library.prepared(work.run.id, "test")
            self._check_sizes(work)
            self._check_reference(work.run)
        self._check_overlap()

    def check_study(self) -> None:
        """Raise UserError about what cannot work whatever is in the data; reads none."""
        if not self.plan.work:
            reasons = "; ".join(self.plan.left_out)
            self.fail((), f"no cell is left: {reasons}")
        self.check_tables()
        for recipe in {work.run.recipe for work in self.plan.work}:
            if 0 < recipe.epochs <= recipe.warmup:
                self.watch.warn(
                    f"the warm-up takes {recipe.warmup} of {recipe.epochs} epochs: the rate never gets to lr"
                )
        self._check_installed(self.study.datasets)
        for work in self.plan.work:
            run = work.run
            self._checked(("recipe",), partial(augment.check, run.recipe.augment, run.image.channels))
            self._feature_dim(run)
            self._check_modules(work)

    def check_tables(self) -> None:
        """Refuse a declared table, or a curve, of what no row will have."""
        labels: dict[str, set[str]] = {}
        for cell in self.plan.cells:
            for column, label in (cell.run.labels | cell.detector.labels).items():
                labels.setdefault(column, set()).add(str(label))
        sets = [(name, group) for work in self.plan.work for group, members in work.run.ood.items() for name in members]
        labels |= {"ood": {name for name, _ in sets}, "group": {group for _, group in sets}}
        chosen: dict[Trail, dict[str, Any]] = {("tables", name): spec.of for name, spec in self.study.tables.items()}
        for trail, of in (chosen | {("curve",): self.study.curve.of}).items():
            for column, wanted in of.items():
                for each in wanted if isinstance(wanted, list) else [wanted]:
                    if str(each) not in labels[column]:
                        hint = suggestion(each, labels[column])
                        self.fail((*trail, "of", column), f"no row has {column} '{each}'{hint}")

    def _check_sizes(self, work: Work) -> None:
        run, train = work.run, self.library.prepared(work.run.id, "train")
        fit = train.y[self.encoders.split(run)[0]]
        items, classes = len(fit), len(train.classes)
        self._checked(("recipe",), lambda: batches.check(run.recipe, items))
        missing = [name for k, name in enumerate(train.classes) if not (fit == k).any()]
        if missing:
            self.fail(("reference",), f"{run.id.label}: {run.reference.label} leaves no training image of {missing[0]}")
        if not self.encoders.has_weights(run):
            trail = ("recipe", "devices")
            self._checked(trail, lambda: distributed.check(run.recipe, items, self.pipeline.device))
        heads = {layer: form for layer, head in LAYER_HEAD.items() if (form := run.training.heads.get(head))}
        widths = {
            layer: self._checked(("training",), partial(networks.head_dim, form, classes))
            for layer, form in heads.items()
        }
        widths["penultimate"] = self._feature_dim(run)
        if has_shifted(run.training):
            widths["shifted"] = embed.shifted_dim(run.training, classes)
        self._checked(("training",), lambda: self.encoders.check_weights(run))
        for space in {cell.detector.space for cell in work.cells}:
            if space.pca is not None and space.pca > min(widths[space.layer], items):
                self.fail(
                    ("space",),
                    f"pca={space.pca} is wider than the features: {run.title} has {widths[space.layer]} {space.layer} "
                    f"dimensions and {items} training items",
                )

    def _check_reference(self, run: Run) -> None:
        """Refuse a reference set of other classes than the ID set's: its labels would mean other things."""
        if run.reference.held_out:
            mine = self.library.prepared(run.id, "train").classes
            its = self.library.reference_set(run.reference.held_out).classes
            if its != mine:
                its_text, mine_text = (", ".join(each[:5]) + ", ..." * (len(each) > 5) for each in (its, mine))
                what = f"the {len(its)} classes of {run.reference.held_out.label} ({its_text}) are not the {len(mine)}"
                self.fail(("reference",), f"{what} of {run.id.label} ({mine_text})")

    def _check_modules(self, work: Work) -> None:
        plugins: set[Plugin] = {work.run.training}
        for cell in work.cells:
            detector = cell.detector
            parts = (detector.clustering, detector.distance, detector.posthoc, detector.threshold)
            plugins |= {each for each in parts if each}
        self._check_installed(plugins)

    def _check_installed(self, plugins: Iterable[Plugin]) -> None:
        for plugin in plugins:
            for module, how in plugin.requires.items():
                if find_spec(module) is None:
                    raise UserError(f"{self.study.file}: {plugin.label} needs {module}: {how}")

    def _feature_dim(self, run: Run) -> int:
        known = run.encoder.label
        if known not in self._dims:
            self._dims[known] = self._checked(("encoder",), lambda: networks.feature_dim(run.encoder, run.image))
        return self._dims[known]

    def _checked(self, trail: Trail, look: Callable[[], T]) -> T:
        """Return what is found, or say where in the study the mistake is."""
        try:
            return look()
        except UserError as error:
            self.fail(trail, str(error))

    def _check_overlap(self) -> None:
        """Refuse, or warn of, equal images in two sets that must share none."""
        wanted = [each for each in audit.pairs(self.pipeline, self._runs()) if audit.refused(*each)]
        found = [message for each in wanted if (message := self._overlap(*each))]
        if found and not self.study.settings.allow_overlap:
            self.fail((), f"{'; '.join(found)}; `allow_overlap: true` goes on all the same")
        for message in found:
            self.watch.warn(message)

    def _overlap(self, one: audit.Side, other: audit.Side) -> str:
        a, b = (self.library.prepared(each.dataset, each.split) for each in (one, other))
        return _shared((one.name, other.name), a, b)

    def _runs(self) -> list[Run]:
        return [work.run for work in self.plan.work]

    def _audit(self) -> None:
        """Record what sets share, and warn of what is not refused."""
        found = audit.audit(self.pipeline, self._runs())
        if message := audit.warning(found, self.study.file):
            self.watch.warn(message)
        self._near = audit.notes(found)

    def _notes(self, run: Run, ood: str) -> list[str]:
        """Return what the rows of a run on an OOD set say of the test sets, and of near duplicates in what it sees."""
        seen, _ = audit.sides(self.pipeline, run)
        tests = [self.library.prepared(each, "test").warnings for each in (run.id, run.sets[ood])]
        return [*sum(tests, ()), *(note for each in seen for note in self._near.get((each.name, ood), []))]


def sources(registry: Registry, detector: Detector) -> dict[str, str]:
    """Return the fingerprint of each plugin of a detector."""
    plugins = {
        "clustering": detector.clustering,
        "distance": detector.distance,
        "posthoc": detector.posthoc,
        "threshold": detector.threshold,
    }
    return {room: registry.fingerprint(room, each.name) for room, each in plugins.items() if each}


def as_row(facts: dict[str, Any], verdict: scoring.Verdict, identity: dict[str, str], seconds: float) -> dict[str, Any]:
    """Return the row of a verdict; facts are what all rows of an encoder share."""
    return (
        facts
        | verdict.detector.labels
        | verdict.numbers
        | identity
        | {
            "status": "error" if verdict.error else "ok",
            "ood": verdict.ood,
            "warnings": "; ".join([*facts["warnings"], *verdict.warnings]),
            "error": verdict.error,
            "detector": json.dumps(verdict.detector.canonical),
            "scored_at": now(),
            "score_seconds": round(seconds, 4),
        }
    )


def _shared(names: tuple[str, str], one: prepare.Prepared, other: prepare.Prepared) -> str:
    same = prepare.overlap(one.digest, other.digest)
    if not len(same):
        return ""
    shown = ", ".join(str(i) for i in same[:5]) + (", ..." if len(same) > 5 else "")
    return f"{len(same)} images of {names[1]} are also in {names[0]} (positions {shown})"
