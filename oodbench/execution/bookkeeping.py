"""Which rows are wanted, which are there, and how those that miss are made; features may come from anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import pandas as pd

from oodbench.scoring import detectors as scoring
from oodbench.store.memo import NUMBER, Watch
from oodbench.store.provenance import commit, libraries, now, version
from oodbench.store.rows import Results
from oodbench.study.grid import Detector
from oodbench.study.study import Detectors

Known = dict[tuple[str, str], tuple[str, str]]  # (cell, OOD set) -> (key, content of the set)


class Wanted(NamedTuple):
    """A row that is to be there: what it is of, and what its numbers depend on."""

    detector: Detector
    ood: str
    group: str
    cell: str  # hash of the cell's parameters; with `ood` the identity of the row
    key: str  # hash of everything that the numbers depend on, but for `ood_data`
    ood_data: str = ""  # content of the OOD set, where it is not in the key


class FeatureSource(Protocol):
    """The features of one encoder, and the rows that its detectors are to have."""

    @property
    def title(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def trains(self) -> bool:
        """Whether the encoder is trained here."""

    @property
    def allowed(self) -> bool:
        """Whether the features are there or may be made."""

    @property
    def wanted(self) -> Sequence[Wanted]:
        """The rows, those of a detector together."""

    @property
    def facts(self) -> dict[str, Any]:
        """The columns that all rows share, as far as they are known before the encoder is there."""

    def lock(self, wait: bool) -> AbstractContextManager[bool]:
        """Return a lock on the encoder, which gives whether it was got: where it does not wait, others may have it."""

    def measured(self) -> dict[str, Any]:
        """Return the columns that are measured of the encoder; whatever misses is made and kept."""

    def bank(self, detectors: Sequence[Detector]) -> scoring.Bank:
        """Return the features on every set, as these detectors read them."""

    def notes(self, ood: str) -> Sequence[str]:
        """Return what rows on an OOD set warn of, whatever their detectors are."""

    def keep(self, facts: dict[str, Any]) -> None:
        """Keep the encoder's parameters beside the rows, with facts about it."""


@dataclass(frozen=True)
class Outcome:
    """What making rows came to."""

    rows: pd.DataFrame  # that are wanted now
    scored: int  # cells
    failed: int  # error rows, old ones included
    missing: int  # cells left undone because their features may not be made
    trained: int = 0  # encoders
    unkept: int = 0  # epochs to keep of trainings that are done: `keep` came later
    left_out: dict[str, int] = field(default_factory=dict)  # why there are no cells -> how many


class Bookkeeping:
    """The rows in a folder of results. With `redo`, those that are there are made again, once; `failed`: error rows."""

    def __init__(self, results: Results, how: scoring.How, redo: str, watch: Watch) -> None:
        self.results = results
        self.how = how
        self.redo = redo
        self.watch = watch
        self._redone: set[tuple[str, str]] = set()  # rows that were made here

    def known(self) -> Known:
        """Return the rows that count as done."""
        rows = self.results.read()
        names = ("cell", "ood", "key", "ood_data", "status")
        found: Known = {}
        for cell, ood, key, content, status in zip(*(rows[name] for name in names), strict=True):
            again = self.redo and (status != "ok" or self.redo != "failed")
            if not again or (cell, ood) in self._redone:
                found[cell, ood] = (key, content)
        return found

    def pending(self, source: FeatureSource, known: Known) -> list[Wanted]:
        """Return the rows that are not there, or were made by other code or from other data."""
        return [each for each in source.wanted if known.get((each.cell, each.ood)) != (each.key, each.ood_data)]

    def run(self, sources: Sequence[FeatureSource]) -> Outcome:
        """Make every row that is pending."""
        known = self.known()
        pending = [(each, cells) for each in sources if (cells := _cells(self.pending(each, known)))]
        total, left = sum(_cells(each.wanted) for each in sources), sum(cells for _, cells in pending)
        todo = [(each, cells) for each, cells in pending if each.allowed]
        missing = left - sum(cells for _, cells in todo)
        self.watch.planned(sum(each.trains for each, _ in todo), total, total - left)
        scored = 0
        for wait in (False, True):  # first what no other process works on, then what is left
            others = []
            for each, cells in todo:
                with each.lock(wait) as mine:
                    if mine:
                        scored += self._make(each, cells)
                    else:
                        others.append((each, cells))
            todo = others
            if todo:
                self.watch.stage("wait", f"{len(todo)} trainings that another process works on")
        rows = self.results.current()
        return Outcome(rows, scored, int((rows["status"] == "error").sum()), missing)

    def _make(self, source: FeatureSource, expected: int) -> int:
        """Make the rows that are pending now, where so many cells were before, and return the number of cells."""
        wanted = self.pending(source, self.known())
        cells = _cells(wanted)
        self.watch.scored(expected - cells, 0)  # another process was faster
        if wanted:
            rows = list(self.rows(source, wanted))
            self.results.write(rows)
            self._redone.update((row["cell"], row["ood"]) for row in rows)
            self.watch.scored(cells, len({row["detector"] for row in rows if row["status"] == "error"}))
        return cells

    def rows(self, source: FeatureSource, wanted: Sequence[Wanted]) -> Iterator[dict[str, Any]]:
        """Yield the rows of all detectors that are wanted on all sets that are; what fails is rows, too."""
        detectors, sets = (list(dict.fromkeys(part)) for part in zip(*(each[:2] for each in wanted), strict=True))
        identities = {each[:2]: each for each in source.wanted}
        notes = {ood: source.notes(ood) for ood in sets}
        facts = source.facts | {
            "version": version(),
            "commit": commit(),
            "libraries": ", ".join(f"{name} {each}" for name, each in libraries().items()),
            "device": str(self.how.device),
        }
        try:
            facts |= source.measured()
            bank = source.bank(detectors)
        except Exception as error:  # noqa: BLE001 - the error is what the rows say, and the grid goes on
            message = f"{type(error).__name__}: {error}"
            self.watch.failed(source.title, message)
            source.keep({"error": message})
            found = iter(scoring.Judged(each, ood, {}, [], message) for each in detectors for ood in sets)
        else:
            self.watch.stage("score", source.title)
            found = scoring.judged(detectors, bank, sets, source.seed, self.how)
        before = time.perf_counter()
        for each in found:
            seconds, before = time.perf_counter() - before, time.perf_counter()
            yield facts | _row(each, identities[each.detector, each.ood], notes[each.ood], seconds)


def scored_by(axes: Detectors, detector: Detector) -> dict[str, Any]:
    """Return what a detector's numbers depend on, but for the features: part of the key of its rows."""
    plugins = {
        "clustering": detector.clustering,
        "distance": detector.distance,
        "posthoc": detector.posthoc,
        "threshold": detector.threshold,
    }
    return {
        "number": NUMBER["score"],
        "detector": detector.canonical,
        "sources": {room: axes.registry.fingerprint(room, each.name) for room, each in plugins.items() if each},
        **({"probe": NUMBER["probe"]} if detector.posthoc else {}),
        **({"compat": True} if axes.compat else {}),
    }


def _cells(wanted: Sequence[Wanted]) -> int:
    return len({each.detector for each in wanted})


def _row(judged: scoring.Judged, wanted: Wanted, notes: Sequence[str], seconds: float) -> dict[str, Any]:
    """Return what the row of a detector on an OOD set does not share with the others of its encoder."""
    return (
        judged.detector.labels
        | judged.numbers
        | {name: getattr(wanted, name) for name in ("cell", "key", "ood", "group", "ood_data")}
        | {
            "status": "error" if judged.error else "ok",
            "warnings": "; ".join([*notes, *judged.warnings]),
            "error": judged.error,
            "detector": json.dumps(judged.detector.canonical),
            "scored_at": now(),
            "score_seconds": round(seconds, 4),
        }
    )
