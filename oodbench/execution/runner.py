"""Runs a study: checks it, makes the rows that are missing, training by training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from oodbench.api import Dataset
from oodbench.data import prepare
from oodbench.execution import audit
from oodbench.execution.bookkeeping import Bookkeeping, Known, Outcome, Wanted, scored_by
from oodbench.execution.checks import Checks
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.scoring import detectors as scoring
from oodbench.store.memo import Silent, Watch, digest
from oodbench.store.rows import Results
from oodbench.study.grid import NONE, Detector, Plan, Run, Work, canonical
from oodbench.study.study import Study
from oodbench.training.weights import plan_of


class Runner:
    """A study, its pipeline and its rows."""

    def __init__(self, study: Study, options: Options | None = None, watch: Watch | None = None) -> None:
        self.study = study
        self.fail = study.document.fail
        self.options = options or Options()
        self.watch: Watch = watch or Silent()
        self.pipeline = Pipeline(study, self.options, self.watch)
        self.results = Results(study.results, self.watch.warn)
        how = scoring.How(self.pipeline.device, self.options.memory, study.detectors.compat)
        self.bookkeeping = Bookkeeping(self.results, how, self.options.redo, self.watch)
        self._near: dict[tuple[str, str], list[str]] = {}  # what rows say of near duplicates, see audit.notes

    @cached_property
    def plan(self) -> Plan:
        return plan_of(self.study)

    @cached_property
    def checks(self) -> Checks:
        return Checks(self.pipeline, self.plan)

    def run(self) -> Outcome:
        """Make every row of the study that is not there, and return all of them."""
        self.check()
        self._audit()
        sources = [self.source(work) for work in self.plan.work]
        self.results.write_plan(self._plan_facts(sources))
        outcome = self.bookkeeping.run(sources)
        return dataclasses.replace(outcome, trained=self.pipeline.encoders.trainings, unkept=len(self.unkept()))

    def check(self) -> None:
        """Prepare the data and raise UserError about what cannot work, before anything is trained."""
        self.checks.check()

    def check_study(self) -> None:
        """Raise UserError about what cannot work whatever is in the data; reads none."""
        self.checks.check_study()

    def check_tables(self) -> None:
        """Refuse a declared table, or a curve, of what no row will have."""
        self.checks.check_tables()

    def _audit(self) -> None:
        """Record what sets share, and warn of what is not refused."""
        found = audit.audit(self.pipeline, [work.run for work in self.plan.work])
        if message := audit.warning(found, self.study.file):
            self.watch.warn(message)
        self._near = audit.notes(found)

    def absent(self) -> list[Dataset]:
        """Return the data sets whose files are not here, each once."""
        found = {str(canonical(each)): each for each in self.study.datasets}
        return [each for each in found.values() if not prepare.here(each, self.study.data)]

    def unkept(self) -> list[Run]:
        """Return the runs at epochs that the study keeps, and that their trainings, which are done, did not."""
        return [each for work in self.plan.work for each in self.pipeline.encoders.unkept(work.run)]

    def source(self, work: Work) -> TrainedFeatures:
        """Return what makes the features of a training, and the rows that are wanted of its cells."""
        return TrainedFeatures(work, self.pipeline, self.results, self._near)

    def known(self) -> Known:
        """Return the rows that count as done."""
        return self.bookkeeping.known()

    def pending(self, work: Work, known: Known) -> Work:
        """Return the cells that miss a row, or have one made by other code or from other data."""
        missing = {each.cell for each in self.bookkeeping.pending(self.source(work), known)}
        return dataclasses.replace(work, cells=[cell for cell in work.cells if cell.id in missing])

    def rows(self, work: Work) -> Iterator[dict[str, Any]]:
        """Yield the rows of cells on every OOD set; what fails is rows, too."""
        source = self.source(work)
        return self.bookkeeping.rows(source, source.wanted)

    def _plan_facts(self, sources: Sequence[TrainedFeatures]) -> dict[str, Any]:
        """Return what tables have to know: the key of each cell, the OOD sets of each ID set, what was left out."""
        return {
            "study": self.study.name,
            "cells": {each.cell: each.key for source in sources for each in source.wanted},
            "sets": {
                source.work.run.id.label: {each.ood: (each.group, each.ood_data) for each in source.wanted}
                for source in sources
            },
            "left_out": dict(self.plan.left_out),
        }


@dataclass(frozen=True)
class TrainedFeatures:
    """The features of a training of a study, which its pipeline makes, and the rows of its cells."""

    work: Work
    pipeline: Pipeline
    results: Results
    near: dict[tuple[str, str], list[str]]  # what rows say of near duplicates

    trains = True

    @property
    def title(self) -> str:
        return self.work.run.title

    @property
    def seed(self) -> int:
        return self.work.run.seed

    @property
    def key(self) -> str:
        return self.pipeline.encoders.train_key(self.work.run)

    @property
    def allowed(self) -> bool:
        return not self.pipeline.options.cached_only or self.pipeline.encoders.has_weights(self.work.run)

    @cached_property
    def wanted(self) -> list[Wanted]:
        """The rows of the cells; their keys are of everything that numbers depend on, but for the OOD sets."""
        run, library = self.work.run, self.pipeline.library
        base = {"train": self.key, "test": library.prepared(run.id, "test").content}
        if run.validation:
            base["validation"] = {each.label: library.prepared(each, "train").content for each in run.validation}
        if run.reference.held_out:
            base["reference"] = library.reference_set(run.reference.held_out).content
        sets = [
            (group, name, library.prepared(each, "test").content)
            for group, members in run.ood.items()
            for name, each in members.items()
        ]
        keys = [digest(base | scored_by(self.pipeline.study.detectors, cell.detector)) for cell in self.work.cells]
        return [
            Wanted(cell.detector, name, group, cell.id, key, content)
            for cell, key in zip(self.work.cells, keys, strict=True)
            for group, name, content in sets
        ]

    @property
    def facts(self) -> dict[str, Any]:
        id_ = self.pipeline.library.prepared(self.work.run.id, "train")
        return self.work.run.labels | {
            "precision": self.pipeline.encoders.precision(self.work.run),
            "classes": len(id_.classes),
            "train_key": self.key,
            "id_data": id_.content,
        }

    def lock(self, wait: bool) -> AbstractContextManager[bool]:
        return self.pipeline.store.lock("run", self.key, wait=wait)

    def measured(self) -> dict[str, Any]:
        artifact = self.pipeline.encoders.trained(self.work.run)
        accuracy = self.pipeline.banks.accuracies(self.work.run)
        self.keep({"accuracies": accuracy} | artifact.meta)
        by = "classifier" if accuracy["classifier"] is not None else "linear"
        losses = artifact.meta["losses"]
        return {f"accuracy_{name}": value for name, value in accuracy.items()} | {
            "accuracy": accuracy[by],
            "accuracy_by": NONE if accuracy[by] is None else f"{by} probe" if by == "linear" else by,
            "loss": losses[-1] if losses else None,
            "train_seconds": artifact.meta["seconds"],
        }

    def bank(self, detectors: Sequence[Detector]) -> scoring.Bank:
        wanted = set(detectors)
        scored = [cell for cell in self.work.cells if cell.detector in wanted]
        baselines = any(detector.posthoc for detector in detectors)
        return self.pipeline.bank(self.work.run, Work(self.work.run, scored).ways, baselines)

    def notes(self, ood: str) -> list[str]:
        """Return what rows say of the sets, and of near duplicates of an OOD set in what the training sees."""
        run, library = self.work.run, self.pipeline.library
        seen, _ = audit.sides(self.pipeline, run)
        sets = (
            library.prepared(run.id, "train"),
            *(library.prepared(each, "test") for each in (run.id, run.sets[ood])),
        )
        of_sets = [note for each in sets for note in each.warnings]
        near = [note for each in seen for note in self.near.get((each.name, ood), [])]
        return [*self.pipeline.study.warns, *of_sets, *near]

    def keep(self, facts: dict[str, Any]) -> None:
        self.results.write_run(self.key, {"parameters": self.work.run.canonical} | facts)
