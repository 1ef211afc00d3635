"""Rows held against published numbers: which are reproduced, and where a row is of another experiment, why.

A number is of the rows that a target's id, training, scorer and OOD sets name. Whatever it leaves out of a cell is the
default; where its rows are of another suite, encoder, number of epochs, parameter, ... it is not comparable, and the
first such field says why. Of the settings that its source swept (`any`) the one counts that
validation OOD chooses in each run. What is comparable is reproduced where two one-sided t tests say that it is off by
at most the margin (TOST, Schuirmann 1987), with the errors of both sides (Welch 1947), and different where the 95 %
interval of the difference is without 0. It knows rows and the parameters of trainings that are kept beside them; no
torch but what plugins import, whose defaults it asks for.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from oodbench.api import Dataset, Training
from oodbench.errors import UserError, suggestion
from oodbench.report.claims.estimates import ERROR, TWO_SIDED, welch
from oodbench.report.formats import Sheet
from oodbench.report.tables import METHOD, TRAINED, counted, spread
from oodbench.report.targets import MARGIN, ROOMS, Entry, Params, Target, plain, shown
from oodbench.report.unmade import said, sets_of
from oodbench.store.columns import ACCURACIES, QUALITY
from oodbench.store.rows import machines
from oodbench.study.class_protocol import PROTOCOLS, kept_classes
from oodbench.study.grid import NONE
from oodbench.study.registry import Registry
from oodbench.study.settings import RESNETS, ImageFormat, Recipe, Space, flat

REPRODUCED, DIFFERENT, UNDECIDED, OTHER = "reproduced", "different", "undecided", "not comparable"
STATES = (REPRODUCED, DIFFERENT, UNDECIDED, OTHER)
WHICH = ("id", "training", "distance", "posthoc", "ood", "group")  # what a target is about; rows of others are no match
NAMED = ("training", "distance", "posthoc")  # by name; another parameter is a reason not to be comparable
OF_RUNS = ("id", "training", "outliers", "encoder", "recipe", "image")  # told by what is kept of a training
OF_DETECTORS = ("space", "clustering", "distance", "posthoc", "threshold", "reads")
OF_ROWS = ("suite", "protocol", "group", "ood", "precision", "reference")
NO_MATTER = ("devices", "compile")  # of a recipe: where it runs
NOTHING, ENCODER, LABELS, POOLED = (Entry(name, {}) for name in (NONE, "resnet18", "labels", "pooled"))  # the defaults
IMAGE = {key: value for key, value in asdict(ImageFormat(size=1)).items() if key != "size"}
FORMS = {"recipe": asdict(Recipe()), "image": IMAGE, "space": asdict(Space())}  # the defaults of what has no name
Runs = Callable[[str], dict[str, Any] | None]  # train key -> what is kept of a training
Mask = NDArray[np.bool_]
Places = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Line:
    """A published number and ours. Numbers of ours are NaN, and `n` 0, where there is none that is comparable."""

    target: Target
    why: str = ""  # it is not comparable, "" where it is
    ours: tuple[tuple[str, str], ...] = ()  # labels of our rows, by column
    mean: float = float("nan")  # per cent
    std: float = float("nan")  # ddof 1, over runs
    n: int = 0

    @property
    def difference(self) -> float:
        """Ours minus the published number, in points, without the noise of the last bits."""
        return round(self.mean - self.target.value, 9)

    @property
    def interval(self) -> tuple[float, float]:
        """The two-sided 95 % interval of the difference, in points; NaN where neither side has a deviation."""
        half = self._half(TWO_SIDED)
        return self.difference - half, self.difference + half

    @property
    def state(self) -> str:
        """Whether our number is the published one within the margin, bounds being within, or another."""
        if self.why:
            return OTHER
        off = abs(self.difference)
        if round(off + self._half(1), 9) <= self.target.margin:
            return REPRODUCED
        return DIFFERENT if off > self._half(TWO_SIDED) else UNDECIDED

    def _half(self, tests: int) -> float:
        """Return half the width of the interval, one-sided each, at a share of the error."""
        error, freedom = welch((self.std, self.n), (self.target.deviation, self.target.n))
        return float(stdtrit(freedom, 1 - ERROR / tests) * error)


@dataclass(frozen=True)
class Comparison:
    lines: list[Line]
    elsewhere: int  # targets that no row is about
    mixed: str = ""  # what is said of rows of several machines, and of those that are not made

    def count(self, state: str) -> int:
        return sum(line.state == state for line in self.lines)

    @property
    def caption(self) -> str:
        """What the words mean, and how many targets are not listed."""
        return f"{self.mixed} ".lstrip() + (
            "Ours: per cent, mean ± standard deviation (ddof 1) over n runs (seeds; class splits are averaged). "
            "Difference: ours minus published, in points, with its two-sided 95 % t interval, of the errors of both "
            "(Welch). reproduced: two one-sided t tests at 5 % say that it is at most "
            f"{MARGIN:g} point either way, or the target's tolerance; different: the interval is without 0; else "
            "undecided. A side without a deviation over runs is taken to have the other's, a published number without "
            "one to be of one run; the error of the test images, which both may share, is in none. "
            f"{counted(self.elsewhere, 'target')} of other cells."
        )


def compare(
    rows: pd.DataFrame, runs: Runs, targets: Sequence[Target], registry: Registry, by: str = "val_auroc"
) -> Comparison:
    """Return rows held against targets, in the order of the targets, those without a comparable row last.

    `by` is the number, against validation OOD, that chooses among the settings that a target's source swept.
    """
    found = _Rows(rows, runs, registry)
    lines: list[Line] = []
    elsewhere = 0
    for target in targets:
        about = found.about(target)
        elsewhere += not about.any()
        lines += found.lines(target, about, by) if about.any() else []
    mixed = " ".join(filter(None, (machines(rows), said(rows))))
    return Comparison(sorted(lines, key=lambda line: line.why != ""), elsewhere, mixed)


# ---- which rows a target is of ---------------------------------------------------------------------------


class _Rows:
    """Rows, with the parameters of each, read once for all rows of a training or a detector."""

    def __init__(self, rows: pd.DataFrame, runs: Runs, registry: Registry) -> None:
        self.rows = rows.assign(suite=rows["suite"].fillna("") if "suite" in rows else "").reset_index(drop=True)
        self._registry = registry
        trained = ["train_key", "id", "training", "outliers", "encoder"]
        run = self.rows.groupby(trained, sort=False, dropna=False).ngroup().to_numpy()
        firsts = self.rows.drop_duplicates(trained).to_dict("records")
        of_runs = [self._of_run(row, runs(row["train_key"]) or {}) for row in firsts]
        detector, texts = pd.factorize(self.rows["detector"])
        of_detectors = [_of_detector(text) for text in texts]
        # by column: which one of its different values each row has, and these
        self._values: dict[str, tuple[Places, Any]] = {
            **{name: (run, [each[name] for each in of_runs]) for name in OF_RUNS},
            **{name: (detector, [each[name] for each in of_detectors]) for name in OF_DETECTORS},
            **{name: pd.factorize(self.rows[name].fillna("")) for name in OF_ROWS},
        }
        self._masks: dict[tuple[str, str], Mask] = {}

    def about(self, target: Target) -> Mask:
        """Return the rows that a target is about, whatever else it says."""
        found = np.ones(len(self.rows), dtype=bool)
        for name in WHICH:
            wanted = getattr(target, name)
            if wanted and not (name == "group" and target.ood):  # whose sets are named
                found &= self._mask(name, Entry(wanted.name, {}) if name in NAMED else wanted)
        return found

    def lines(self, target: Target, found: Mask, by: str) -> Iterator[Line]:
        """Yield a line for each of our methods that a target is of, or one that says why there is none."""
        self._check(target)
        for name, each in self._wanted(target).items():
            narrower = found & self._mask(name, each, whole=True, swept=target.any)
            if not narrower.any():
                yield Line(target, self._unlike(name, each, found))
                return
            found = narrower
        rows = self.rows[found]
        if why := self._lacking(target, rows["ood"].unique().tolist()):
            yield Line(target, why)
            return
        yield from _lines(target, rows[self._mask("ood", target.ood, whole=True)[found]] if target.ood else rows, by)

    def _lacking(self, target: Target, labels: list[str]) -> str:
        """Return which of a target's OOD sets rows lack; "" where they lack none."""
        there = {each.text: [x for x in labels if self._fits("ood", each, x, whole=False)] for each in target.ood}
        missing = [text for text, forms in there.items() if not forms]
        other = (each for each in target.ood if not any(self._fits("ood", each, x, whole=True) for x in labels))
        if missing:
            return f"ood is without {', '.join(missing)}"
        return next((f"ood is {' or '.join(there[each.text])}, the target's {each.text}" for each in other), "")

    def _mask(self, name: str, wanted: Any, whole: bool = False, swept: Params = NOTHING.params) -> Mask:
        """Return which rows have what a target says; `whole`: and the defaults of what it does not say."""
        key = name, repr((wanted, whole, swept))
        if key not in self._masks:
            place, values = self._values[name]
            several = wanted if name == "ood" else [wanted]
            fits = [any(self._fits(name, each, value, whole, swept) for each in several) for value in values]
            self._masks[key] = np.array(fits, dtype=bool)[place]
        return self._masks[key]

    def _fits(self, name: str, wanted: Any, found: Any, whole: bool, swept: Params = NOTHING.params) -> bool:
        if name == "ood":
            found = self._of_label("dataset", found)
        if name == "reference" and not wanted:
            return not found.startswith("val(")
        if isinstance(wanted, dict):
            return bool(found) and all(found[key] == value for key, value in wanted.items())
        if not isinstance(wanted, Entry):
            return bool(wanted == found)
        if name == "id" and wanted.name == found.name:
            wanted, found = self._by_number(wanted), self._by_number(found)
        if wanted is LABELS and found.name == NONE:  # a distance that takes no clusters
            return True
        params, ours = wanted.params, found.params
        if whole:
            apart: tuple[str, ...] = PROTOCOLS if name == "id" else ()  # `protocol` tells these
            defaults = self._defaults(ROOMS.get(name, "dataset"), wanted.name).items()
            if name == "training" and self._loads(wanted.name):  # the weights tell
                apart = tuple(key for key, value in defaults if value in (None, "auto"))
            params = {key: value for key, value in defaults if key in ours and key not in apart} | dict(params)
        swept = swept if name in ("distance", "posthoc") else {}
        for key in swept:
            values = [ours.get(key)] if swept[key] is None else swept[key]
            params = {**params, key: next((each for each in values if plain(each) == plain(ours.get(key))), values)}
        return wanted.name == found.name and all(plain(each) == plain(ours.get(key)) for key, each in params.items())

    def _by_number(self, id_: Entry) -> Entry:
        """Return an ID set with the numbers of the classes that its protocol keeps, however it names them."""
        chosen = {key: value for key, value in id_.params.items() if key in PROTOCOLS and value is not None}
        if not chosen or id_.name not in self._registry.sources("dataset"):
            return id_
        try:
            made = self._registry.load("dataset", id_.name)(**{key: _classes(value) for key, value in chosen.items()})
            names = made.class_names if isinstance(made, Dataset) else None
            kept = {"keep": kept_classes(made, names)} if names and isinstance(made, Dataset) else chosen
        except (UserError, ValueError, TypeError):  # classes that there are not, or a set that needs more
            return id_
        return Entry(id_.name, {**id_.params, **dict.fromkeys(PROTOCOLS), **kept})

    def _unlike(self, name: str, wanted: Any, found: Mask) -> str:
        """Return what rows are that a target is not of."""
        place, values = self._values[name]
        theirs = [values[i] for i in np.unique(place[found])]
        if isinstance(wanted, dict):  # a recipe, an image, a space
            known = [each for each in theirs if each]
            keys = [key for key, value in wanted.items() if any(each[key] != value for each in known)]
            labels = [shown({key: each[key] for key in keys}) for each in known] or ["not known"]
            said = shown({key: wanted[key] for key in keys}) or "another"
            return f"{name} is {' or '.join(dict.fromkeys(labels))}, the target's {said}"
        if name == "reads":
            labels = [each or "not known" for each in theirs]
        else:
            labels = [str(each) or "none" for each in self.rows.loc[found, name].unique()]
        text = wanted.text if isinstance(wanted, Entry) else wanted
        said = text or {"suite": "none", "reference": "all of ID train"}[name]
        return f"{'head' if name == 'reads' else name} is {' or '.join(dict.fromkeys(labels))}, the target's {said}"

    def _wanted(self, target: Target) -> dict[str, Any]:
        """Return what a target says of each field, or the default, without fields that have no part in its number.

        They are in the order in which one that differs says why a row is not comparable.
        """
        split = target.id is not None and {*PROTOCOLS} & {*target.id.params}
        loads = target.training is not None and self._loads(target.training.name)
        found: dict[str, Any] = {
            "suite": target.suite,
            "protocol": target.protocol or (None if split else "all classes"),
            "id": target.id,
            "image": None if target.suite else _comparable("image", target.image or IMAGE),  # a suite says it
            "reference": target.reference,
            "outliers": target.outliers or NOTHING,
            "encoder": target.encoder or ENCODER,
            "training": target.training,
            "recipe": None if loads else _comparable("recipe", asdict(target.trained)),
            "precision": target.precision,
        }
        if target.metric not in ACCURACIES:
            scored = target.distance or target.posthoc
            found |= {"reads": target.reads or None, "threshold": target.threshold or (POOLED if scored else None)}
            found |= {"space": _comparable("space", asdict(target.space or Space())) if target.distance else None}
            found |= {"clustering": target.clustering or (LABELS if target.distance else None)}
            found |= {"distance": target.distance, "posthoc": target.posthoc}
        return {name: each for name, each in found.items() if each is not None}

    def _check(self, target: Target) -> None:
        """Raise UserError where a target, or what its source swept, names a parameter that a plugin does not have."""
        for room in ("training", "clustering", "distance", "posthoc", "threshold"):
            entry: Entry | None = getattr(target, room)
            if entry is not None and entry.name in self._registry.sources(room):
                known = [each.name for each in dataclasses.fields(self._registry.load(room, entry.name))]  # type: ignore[arg-type]
                for name in (*entry.params, *(target.any if room in ("distance", "posthoc") else ())):
                    if name not in known:
                        said = f"{target.place}: {room}: {entry.name} has no parameter '{name}'"
                        raise UserError(f"{said}{suggestion(name, known)}")

    def _loads(self, training: str) -> bool:
        """Return whether a training has its weights from elsewhere: no recipe has a part in it."""
        if training not in self._registry.sources("training"):
            return False
        return self._registry.load("training", training).weights is not Training.weights  # type: ignore[attr-defined]

    def _of_run(self, row: dict[Any, Any], kept: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of a training: those that are kept of it, else those that its labels show."""
        parameters = kept.get("parameters", {})
        found: dict[str, Any] = {}
        for name in ("id", "training", "outliers", "encoder"):
            given = parameters.get(name)
            found[name] = _of_parameters(given) if isinstance(given, dict) else self._of_label(ROOMS[name], row[name])
        return found | {name: _comparable(name, parameters.get(name)) for name in ("recipe", "image")}

    def _of_label(self, room: str, label: str) -> Entry:
        """Return the name and all parameters of a label such as `knn(k=10)`, as text."""
        name, _, rest = label.partition("(")
        parts = (part.partition("=") for part in rest.removesuffix(")").split(", "))
        return Entry(name, self._defaults(room, name) | {key: value for key, equals, value in parts if equals})

    def _defaults(self, room: str, name: str) -> dict[str, Any]:
        return _defaults(self._registry, room, name)


@cache
def _of_detector(text: str) -> dict[str, Any]:
    parameters = json.loads(text) if text else {}
    named = (name for name in OF_DETECTORS if name not in ("space", "reads"))
    found: dict[str, Any] = {n: _of_parameters(parameters[n]) if parameters.get(n) else NOTHING for n in named}
    return found | {"space": _comparable("space", parameters.get("space")), "reads": parameters.get("head", "")}


def _of_parameters(given: dict[str, Any]) -> Entry:
    inner = given.get("params")  # of an encoder
    name = given.get("title") or given["name"]  # a list of images goes by its title, as in labels
    return Entry(name, inner if isinstance(inner, dict) else {k: v for k, v in given.items() if k != "name"})


def _classes(value: Any) -> list[int | str] | Any:
    """Return the classes of a protocol, which a label joins by +, numbers as such."""
    parts = value.split("+") if isinstance(value, str) else [value]
    found = [int(each) if isinstance(each, str) and each.isdigit() else each for each in parts]
    return found[0] if len(found) == 1 else found


def _comparable(name: str, given: dict[str, Any] | None) -> dict[str, str]:
    """Return a recipe, image format or space as text, defaults filled in; nothing where nothing is known of it."""
    params = flat(FORMS[name]) | flat(given) if given else {}
    return {key: plain(value) for key, value in params.items() if key not in NO_MATTER}


@cache
def _defaults(registry: Registry, room: str, name: str) -> dict[str, Any]:
    """Return the defaults of a plugin's or an encoder's parameters, as far as it is here and they have any."""
    if name not in (RESNETS if room == "encoder" else registry.sources(room)):
        return {}
    cls: Any = RESNETS[name] if room == "encoder" else registry.load(room, name)
    every = {each.name: each.default for each in dataclasses.fields(cls) if each.name != "level"}
    return {key: value for key, value in every.items() if value is not dataclasses.MISSING}


# ---- numbers ---------------------------------------------------------------------------------------------


def _lines(target: Target, rows: pd.DataFrame, chosen_by: str) -> Iterator[Line]:
    """Yield a line for each of our methods, of rows that a target is of, or one that says what they lack."""
    done = rows[rows["status"] == "ok"]
    axis = "posthoc" if target.posthoc else "distance"
    if target.splits and rows["id"].nunique() != target.splits:
        yield Line(target, f"splits are {rows['id'].nunique()}, the target's {target.splits}")
    elif target.metric in QUALITY:
        yield Line(target, f"metric is of clusters, not of rows: oodbench quality has {target.metric}")
    elif (names := sets_of(rows)) and target.metric not in ACCURACIES:
        yield Line(target, f"rows of {names} are missing")
    elif done[target.metric].isna().all():
        yield Line(target, f"metric is not there: no row has {target.metric}")
    elif target.any and done[axis].nunique() > 1 and done[chosen_by].isna().any():
        settings = ", ".join(done[axis].unique())
        yield Line(target, f"{axis} is one of {settings}, and no {chosen_by} says which, as rows have none")
    else:
        yield from _held(target, _chosen(done, axis, chosen_by) if target.any else done, rows["ood"].unique().tolist())


def _chosen(done: pd.DataFrame, axis: str, by: str) -> pd.DataFrame:
    """Return the rows of the setting that validation chooses in each run; all of them go by the axis's name."""
    if done[axis].nunique() < 2:
        return done
    run = [*(name for name in METHOD if name != axis), "id", "seed"]
    numbers = done.groupby([*run, axis], sort=False)[by].first()
    best = numbers.groupby(run, sort=False).agg("idxmax" if by == "val_auroc" else "idxmin")
    there = pd.MultiIndex.from_frame(done[[*run, axis]]).isin(best.to_list())
    one = f"{done[axis].iloc[0].partition('(')[0]} chosen by {by}"
    return done[there].assign(**{axis: one})


def _held(target: Target, done: pd.DataFrame, sets: list[str]) -> Iterator[Line]:
    """Yield a line for each of our methods: its mean over the OOD sets, where a run has a number on each of them."""
    by: tuple[str, ...] = TRAINED
    if target.metric in ACCURACIES:
        one = done.groupby([*TRAINED, "id", "seed"], sort=False)[target.metric].first()
    else:  # levels of a threshold rank alike: one is taken
        by, one = METHOD, done.groupby([*METHOD, "id", "seed", "ood"], sort=False)[target.metric].first()
        one = one.unstack("ood").reindex(columns=sets).mean(axis=1, skipna=False)
    by = by if target.splits else (*by, "id")
    over_splits = one.groupby([*by, "seed"], sort=False)
    numbers = (100 * over_splits.mean()).where(over_splits.count() == (target.splits or 1)).dropna()
    if numbers.empty:
        yield Line(target, f"numbers are missing: no run has {target.metric} on all of its sets")
    for labels, values in numbers.groupby([*by], sort=False):
        ours = tuple(zip(by, map(str, labels), strict=True))
        yield Line(target, "", ours, float(values.mean()), float(values.std(ddof=1)), len(values))


# ---- the table -------------------------------------------------------------------------------------------


def sheet(found: Comparison, name: str) -> Sheet:
    """Return the table as it is written, the numbers being a row for each line."""
    return Sheet(name, table(found), [found.caption], listed(found), labels=4)


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
            "95 % interval": [_ends(*line.interval) for line in found.lines],
            "verdict": [line.state + (f": {line.why}" if line.why else "") for line in found.lines],
            "of": _telling(found),
            "source": [line.target.source for line in found.lines],
        }
    )


def _id(target: Target) -> str:
    return " · ".join(filter(None, (target.id.text if target.id else "", target.protocol))) or NONE


def _number(mean: float, std: float | None, n: int | None) -> str:
    return spread(mean, np.nan if std is None else std, 2) + (f" (n={n})" if n else "")


def _ends(low: float, high: float) -> str:
    return NONE if np.isnan(low) else f"[{low:+.2f}, {high:+.2f}]"


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
    nothing = Line(Target(metric="", value=0.0, source=""), "nothing")
    return pd.DataFrame([_listed(line) for line in found.lines], columns=None if found.lines else [*_listed(nothing)])


def _listed(line: Line) -> dict[str, Any]:
    target = line.target
    entries = ("id", "training", "outliers", "encoder", "clustering", "distance", "posthoc", "threshold")
    parts = {name: each.text if (each := getattr(target, name)) else "" for name in entries}
    about = {name: getattr(target, name) for name in ("suite", "protocol", "splits", "group", "epochs", "metric")}
    about |= {"ood": " + ".join(each.text for each in target.ood), "head": target.reads, "any": " ".join(target.any)}
    about |= {"space": target.space.label if target.space else "", "recipe": target.trained.label}
    about |= {"published": target.value, "published_std": target.std, "published_n": target.n}
    about |= {"ours": line.mean, "ours_std": line.std, "ours_n": line.n, "difference": line.difference}
    about |= {"low": line.interval[0], "high": line.interval[1], "margin": target.margin}
    about |= {"verdict": line.state, "why": line.why, "source": target.source}
    about |= {"note": target.note, "target": target.place}
    return parts | about | {f"our_{name}": value for name, value in line.ours}
