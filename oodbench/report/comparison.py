"""Rows held against published numbers: which are reproduced, and where a row is of another experiment, why.

A number is of the rows that a target's id, training, scorer and OOD sets name. Where these rows are of another suite,
encoder, number of epochs, ... than it says, it is not comparable, and the first such field, in the order of HOW, says
why. It knows rows and
the parameters of trainings that are kept beside them; no torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodbench.api import Dataset
from oodbench.report.formats import Sheet
from oodbench.report.tables import METHOD, TRAINED, counted, spread
from oodbench.report.targets import CLOSE, Entry, Params, Target, plain, shown
from oodbench.store.columns import ACCURACIES, QUALITY
from oodbench.study.class_protocol import PROTOCOLS
from oodbench.study.grid import NONE
from oodbench.study.registry import Registry
from oodbench.study.settings import flat

REPRODUCED, NEAR, FAR, OTHER = "reproduced", "close", "not reproduced", "not comparable"
STATES = (REPRODUCED, NEAR, FAR, OTHER)
WHICH = ("id", "training", "distance", "posthoc", "ood", "group")  # what a target is about; rows of others are no match
HOW = ("suite", "protocol", "outliers", "encoder", "epochs", "recipe", "reads", "space", "clustering", "threshold")
OF_RUNS = ("id", "training", "outliers", "encoder", "recipe", "epochs")  # told by what is kept of a training
OF_DETECTORS = ("space", "clustering", "distance", "posthoc", "threshold", "reads")
OF_ROWS = ("suite", "protocol", "group", "ood")
UNKNOWN = Entry("", {})
Runs = Callable[[str], dict[str, Any] | None]  # train key -> what is kept of a training
Mask = NDArray[np.bool_]
Places = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Line:
    """A published number and ours. Numbers of ours are NaN, and `n` 0, where there is none that is comparable."""

    target: Target
    state: str
    why: str = ""  # of what is not comparable
    ours: tuple[tuple[str, str], ...] = ()  # labels of our rows, by column
    mean: float = float("nan")  # per cent
    std: float = float("nan")  # ddof 1, over runs
    n: int = 0

    @property
    def difference(self) -> float:
        """Ours minus the published number, in points, without the noise of the last bits."""
        return round(self.mean - self.target.value, 9)


@dataclass(frozen=True)
class Comparison:
    lines: list[Line]
    elsewhere: int  # targets that no row is about

    def count(self, state: str) -> int:
        return sum(line.state == state for line in self.lines)

    @property
    def caption(self) -> str:
        """What the words mean, and how many targets are not listed."""
        return (
            "Ours: per cent, mean ± standard deviation (ddof 1) over n runs (seeds; class splits are averaged). "
            "Difference: ours minus published, in points. reproduced: it is within three standard errors of the "
            "published mean (its deviation, as if with ddof 1, divided by the square root of its runs), but at least "
            "0.5 and at most 1.5 points, and 0.5 where no deviation is published; close: within 3 points. Our own "
            "deviation plays no part: with few runs a verdict is luck, too. "
            f"{counted(self.elsewhere, 'target')} of other cells."
        )


def compare(rows: pd.DataFrame, runs: Runs, targets: Sequence[Target], registry: Registry) -> Comparison:
    """Return rows held against targets, in the order of the targets, those without a comparable row last."""
    found = _Rows(rows, runs, registry)
    lines: list[Line] = []
    elsewhere = 0
    for target in targets:
        about = found.about(target)
        elsewhere += not about.any()
        lines += found.lines(target, about) if about.any() else []
    return Comparison(sorted(lines, key=lambda line: line.state == OTHER), elsewhere)


# ---- which rows a target is of ---------------------------------------------------------------------------


class _Rows:
    """Rows, with the parameters of each, read once for all rows of a training or a detector."""

    def __init__(self, rows: pd.DataFrame, runs: Runs, registry: Registry) -> None:
        self.rows = rows.assign(suite=rows["suite"].fillna("") if "suite" in rows else "").reset_index(drop=True)
        self._registry = registry
        trained = ["train_key", "id", "training", "outliers", "encoder"]
        run = self.rows.groupby(trained, sort=False, dropna=False).ngroup().to_numpy()
        firsts = self.rows.drop_duplicates(trained).to_dict("records")
        of_runs = [_of_run(row, runs(row["train_key"]) or {}) for row in firsts]
        detector, texts = pd.factorize(self.rows["detector"])
        of_detectors = [_of_detector(text) for text in texts]
        # by column: which one of its different values each row has, and these
        self._values: dict[str, tuple[Places, Any]] = {
            **{name: (run, [each[name] for each in of_runs]) for name in OF_RUNS},
            **{name: (detector, [each[name] for each in of_detectors]) for name in OF_DETECTORS},
            **{name: pd.factorize(self.rows[name], use_na_sentinel=False) for name in OF_ROWS},
        }
        self._masks: dict[tuple[str, str], Mask] = {}

    def about(self, target: Target) -> Mask:
        """Return the rows that a target is about, whatever else it says."""
        found = np.ones(len(self.rows), dtype=bool)
        for name in WHICH:
            wanted = getattr(target, name)
            if wanted and not (name == "group" and target.ood):  # whose sets are named
                found &= self._mask(name, wanted)
        return found

    def lines(self, target: Target, found: Mask) -> Iterator[Line]:
        """Yield a line for each of our methods that a target is of, or one that says why there is none."""
        for name in HOW:
            wanted = getattr(target, name)
            if wanted in (None, "", {}):
                continue
            narrower = found & self._mask(name, wanted)
            if not narrower.any():
                yield Line(target, OTHER, self._unlike(name, wanted, found))
                return
            found = narrower
        rows = self.rows[found]
        sets = [[label for label in self._values["ood"][1] if self._is(each, label)] for each in target.ood]
        if why := _too_little(target, rows, sets):
            yield Line(target, OTHER, why)
            return
        yield from _lines(target, rows)

    def _mask(self, name: str, wanted: Any) -> Mask:
        key = name, repr(wanted)
        if key not in self._masks:
            place, values = self._values[name]
            self._masks[key] = np.array([self._fits(name, wanted, each) for each in values], dtype=bool)[place]
        return self._masks[key]

    def _fits(self, name: str, wanted: Any, found: Any) -> bool:
        if name == "ood":
            return any(self._is(each, found) for each in wanted)
        if name == "id" and wanted.name == found.name:
            return _fits(self._by_number(wanted), self._by_number(found))
        return _fits(wanted, found) if isinstance(found, Entry) else bool(wanted == found)

    def _by_number(self, id_: Entry) -> Entry:
        """Return an ID set whose class protocol names classes by their numbers."""
        chosen = {key: value for key, value in id_.params.items() if key in PROTOCOLS and value is not None}
        if not chosen or not id_.name or id_.name not in self._registry.sources("dataset"):
            return id_
        names = _class_names(self._registry, id_.name, json.dumps(dict(id_.params)))

        def number(each: Any) -> Any:
            if isinstance(each, list):
                return [number(member) for member in each]
            return names.index(each) if each in names else each

        return Entry(id_.name, {**id_.params, **{key: number(value) for key, value in chosen.items()}})

    def _is(self, wanted: Entry, label: str) -> bool:
        found = _of_label(label)
        if found.name != wanted.name or not wanted.params:
            return found.name == wanted.name
        return _fits(wanted, Entry(found.name, _defaults(self._registry, found.name) | dict(found.params)))

    def _unlike(self, name: str, wanted: Any, found: Mask) -> str:
        """Return what rows are that a target is not of."""
        place, values = self._values[name]
        theirs = [values[i] for i in np.unique(place[found])]
        if name == "epochs":
            labels = sorted({"not known" if each is None else str(each) for each in theirs})
        elif name == "recipe":
            labels = [shown({key: each.params.get(key) for key in flat(wanted)}) for each in theirs]
        elif name == "reads":
            labels = [each or "not known" for each in theirs]
        else:
            labels = [str(each) or "none" for each in self.rows.loc[found, name].unique()]
        text = wanted.text if isinstance(wanted, Entry) else shown(wanted) if isinstance(wanted, dict) else str(wanted)
        what = "head" if name == "reads" else name
        return f"{what} is {' or '.join(dict.fromkeys(labels))}, the target's {text}"


def _of_run(row: dict[Any, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a training: those that are kept of it, else those that its labels show."""
    parameters = kept.get("parameters", {})
    found: dict[str, Any] = {name: _of_label(row[name]) for name in ("id", "training", "outliers", "encoder")}
    for name in found:
        if isinstance(parameters.get(name), dict):
            found[name] = _of_parameters(parameters[name])
    recipe = parameters.get("recipe") or {}
    return found | {"recipe": Entry("", flat(recipe)), "epochs": recipe.get("epochs")}


@cache
def _of_detector(text: str) -> dict[str, Any]:
    parameters = json.loads(text) if text else {}
    named = (name for name in OF_DETECTORS if name not in ("space", "reads"))
    found: dict[str, Any] = {n: _of_parameters(parameters[n]) if parameters.get(n) else UNKNOWN for n in named}
    return found | {"space": Entry("", parameters.get("space") or {}), "reads": parameters.get("head", "")}


def _of_parameters(given: dict[str, Any]) -> Entry:
    inner = given.get("params")  # of an encoder
    name = given.get("title") or given["name"]  # a list of images goes by its title, as in labels
    return Entry(name, inner if isinstance(inner, dict) else {k: v for k, v in given.items() if k != "name"})


@cache
def _of_label(label: str) -> Entry:
    """Return the name and the stated parameters of a label such as `knn(k=10)`."""
    name, _, rest = label.partition("(")
    parts = (part.partition("=") for part in rest.removesuffix(")").split(", "))
    return Entry(name, {key: value for key, equals, value in parts if equals})


@cache
def _defaults(registry: Registry, dataset: str) -> dict[str, Any]:
    """Return the defaults of a data set's parameters, which labels do not state; nothing of one that is not here."""
    if dataset not in registry.sources("dataset"):
        return {}
    cls: Any = registry.load("dataset", dataset)
    return {each.name: each.default for each in dataclasses.fields(cls)}


@cache
def _class_names(registry: Registry, dataset: str, params: str) -> tuple[str, ...]:
    try:
        made = registry.load("dataset", dataset)(**json.loads(params))
    except TypeError:  # a parameter that a target need not give, or that there is none of
        return ()
    return (made.class_names or ()) if isinstance(made, Dataset) else ()


def _fits(wanted: Entry | Params, found: Entry) -> bool:
    """Return whether a part of a cell has the name, and of the parameters those, that a target wants."""
    name, params = wanted if isinstance(wanted, Entry) else (found.name, flat(dict(wanted)))
    return name == found.name and all(plain(value) == plain(found.params.get(key)) for key, value in params.items())


# ---- numbers ---------------------------------------------------------------------------------------------


def _too_little(target: Target, rows: pd.DataFrame, sets: list[list[str]]) -> str:
    """Return which sets or class splits of a target's rows are missing; "" where none is."""
    there = set(rows["ood"])
    missing = [each.text for each, labels in zip(target.ood, sets, strict=True) if not there & set(labels)]
    if missing:
        return f"ood is without {', '.join(missing)}"
    for each, labels in zip(target.ood, sets, strict=True):
        if len(sets) > 1 and len(there & set(labels)) > 1:
            return f"ood has several {each.text}: {', '.join(label for label in labels if label in there)}"
    splits = rows["id"].nunique()
    if target.splits and splits != target.splits:
        return f"splits are {splits}, the target's {target.splits}"
    if target.metric in QUALITY:
        return f"metric is of clusters, not of rows: oodbench quality has {target.metric}"
    if rows.loc[rows["status"] == "ok", target.metric].isna().all():
        return f"metric is not there: no row has {target.metric}"
    return ""


def _lines(target: Target, rows: pd.DataFrame) -> Iterator[Line]:
    done = rows[rows["status"] == "ok"]
    by: tuple[str, ...] = TRAINED
    if target.metric in ACCURACIES:
        one = done.groupby([*TRAINED, "id", "seed"], sort=False)[target.metric].first()
    else:  # levels of a threshold rank alike: one is taken
        by, one = METHOD, done.groupby([*METHOD, "id", "seed", "ood"], sort=False)[target.metric].first()
        if len(target.ood) == 1:  # which several of ours may be: a line for each
            by = (*METHOD, "ood")
        else:
            one = one.unstack("ood").reindex(columns=rows["ood"].unique()).mean(axis=1, skipna=False)
    by = by if target.splits else (*by, "id")
    over_splits = one.groupby([*by, "seed"], sort=False)
    numbers = (100 * over_splits.mean()).where(over_splits.count() == (target.splits or 1)).dropna()
    if numbers.empty:
        yield Line(target, OTHER, f"numbers are missing: no run has {target.metric} on all of its sets")
    for labels, values in numbers.groupby([*by], sort=False):
        ours = tuple(zip(by, map(str, labels), strict=True))
        mean = float(values.mean())
        yield Line(target, state(mean, target), "", ours, mean, float(values.std(ddof=1)), len(values))


def state(mean: float, target: Target) -> str:
    """Return what becomes of a target, given our number in per cent; bounds are within."""
    difference = abs(round(mean - target.value, 9))
    return REPRODUCED if difference <= target.band else NEAR if difference <= CLOSE else FAR


# ---- the table -------------------------------------------------------------------------------------------


def sheet(found: Comparison, name: str) -> Sheet:
    """Return the table as it is written, the numbers being a row for each line."""
    return Sheet(name, table(found), [found.caption], listed(found), labels=4, layout="lllllrrp{4cm}ll")


def table(found: Comparison) -> pd.DataFrame:
    """Return a row of text for each line; labels of ours are those in which the methods of a target differ."""
    return pd.DataFrame(
        {
            "ID": [_id(line.target) for line in found.lines],
            "OOD": [line.target.sets or NONE for line in found.lines],
            "method": [line.target.method or NONE for line in found.lines],
            "metric": [line.target.metric for line in found.lines],
            "published": [_number(line.target.value, line.target.std, line.target.n) for line in found.lines],
            "ours": [_number(line.mean, line.std, line.n) for line in found.lines],
            "difference": [f"{line.difference:+.2f}" if line.n else NONE for line in found.lines],
            "verdict": [line.state + (f": {line.why}" if line.why else "") for line in found.lines],
            "of": _telling(found),
            "source": [line.target.source for line in found.lines],
        }
    )


def _id(target: Target) -> str:
    return " · ".join(filter(None, (target.id.text if target.id else "", target.protocol))) or NONE


def _number(mean: float, std: float | None, n: int | None) -> str:
    return spread(mean, np.nan if std is None else std, 2) + (f" (n={n})" if n else "")


def _telling(found: Comparison) -> list[str]:
    of: dict[int, list[Line]] = {}
    for line in found.lines:
        of.setdefault(id(line.target), []).append(line)

    def differing(line: Line) -> str:
        others = [dict(each.ours) for each in of[id(line.target)]]
        return " · ".join(value for name, value in line.ours if len({each.get(name) for each in others}) > 1)

    return [differing(line) or NONE for line in found.lines]


def listed(found: Comparison) -> pd.DataFrame:
    """Return a row for each line, with unrounded numbers, everything that the target says and the labels of ours."""
    nothing = Line(Target(metric="", value=0.0, source=""), OTHER)
    return pd.DataFrame([_listed(line) for line in found.lines], columns=None if found.lines else [*_listed(nothing)])


def _listed(line: Line) -> dict[str, Any]:
    target = line.target
    entries = ("id", "training", "outliers", "encoder", "clustering", "distance", "posthoc", "threshold")
    parts = {name: each.text if (each := getattr(target, name)) else "" for name in entries}
    about = {name: getattr(target, name) for name in ("suite", "protocol", "splits", "group", "epochs", "metric")}
    about |= {"ood": " + ".join(each.text for each in target.ood), "space": shown(target.space), "head": target.reads}
    about |= {"published": target.value, "published_std": target.std, "published_n": target.n, "band": target.band}
    about |= {"ours": line.mean, "ours_std": line.std, "ours_n": line.n, "difference": line.difference}
    about |= {"verdict": line.state, "why": line.why, "source": target.source}
    about |= {"note": target.note, "target": target.place}
    return parts | about | {f"our_{name}": value for name, value in line.ours}
