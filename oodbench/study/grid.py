"""From a study to its cells: which combinations there are, and which make no sense and why."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from oodbench.api import Clustering, Dataset, Distance, Layer, Plugin, Posthoc, Threshold, Training
from oodbench.errors import UserError
from oodbench.store import named
from oodbench.store.artifacts import digest, digest_of, written
from oodbench.store.columns import SETS
from oodbench.study.class_protocol import class_count, family, protocol
from oodbench.study.declarations import CellsSpec, ClaimSpec, Labels
from oodbench.study.settings import PLAIN, TIMM, Encoder, ImageFormat, Precision, Recipe, Reference, Seen, Space
from oodbench.study.study import Detectors, Skip, Study

DETECTOR_AXES = ("space", "clustering", "distance", "posthoc", "threshold")
LAYER_HEAD: dict[Layer, str] = {"projection": "z", "logits": "logits"}  # penultimate is no head's output
TURNS, SHIFTED_HEADS = (0, 1, 2, 3), ("z", "shift")  # of the layer `shifted`, in its order
CLASSIFIER, PROBE = "classifier", "linear probe"  # whose logits a baseline reads
NONE = "–"  # what a row shows where an axis has no part in a cell
LATER = (
    "limit",
    "count",
    "sha256",
    "title",
    "bits",
    "first",
    "range",
    "exif",
    "skip_damaged",
    "corrupt",
)  # parameters of sets that are younger than keys, None or False by default
MOST = 300_000  # cells of a study
P = TypeVar("P", bound=Plugin)
Bind = Callable[[Training, Encoder, int, int | None, Path], Training]  # of channels, classes and the study's folder


@dataclass(frozen=True)
class Run:
    """One training: everything that decides an encoder's weights."""

    id: Dataset
    ood: dict[str, dict[str, Dataset]]  # group -> name -> set that the trained encoder is tested on
    training: Training
    outliers: Dataset | None
    encoder: Encoder
    recipe: Recipe
    recipe_label: str  # what tells it from the study's others of this training
    recipe_shown: str  # what rows say: its name, if it has one, and what was changed
    seed: int
    image: ImageFormat
    reference: Reference
    precision: Precision
    epoch: int | None = None  # its weights after so many epochs, 0 = before the first step; None = when it is done
    validation: tuple[Dataset, ...] = ()  # OOD sets whose `train` split thresholds and choices may see
    covariate: tuple[Dataset, ...] = ()  # sets whose test images are ID's classes under a covariate shift
    suite: str = ""  # which suite of the package the data is from, and what of it the study changed

    @cached_property
    def canonical(self) -> dict[str, Any]:
        """The parameters that decide the weights, and the reference, as plain values."""
        held_out = canonical(self.reference.held_out)
        return {
            "id": canonical(self.id),
            "training": canonical(self.training),
            "outliers": canonical(self.outliers),
            "encoder": dataclasses.asdict(self.encoder),
            "recipe": self.recipe.canonical,
            "seed": self.seed,
            "image": self.image.canonical,
            "reference": self.reference.training | ({"kind": "set", "set": held_out} if held_out else {}),
            "precision": self.precision,
            **({} if self.epoch is None else {"epoch": self.epoch}),
        }

    @cached_property
    def written(self) -> str:
        return written(self.canonical)

    @cached_property
    def but_seed(self) -> str:
        """A hash of what it shares with its runs of other seeds."""
        return digest({name: value for name, value in self.canonical.items() if name != "seed"})

    @cached_property
    def named(self) -> str:
        """A hash of its parameters: its name on a machine that resolves `precision: auto` otherwise than another."""
        return digest(self.canonical)

    @cached_property
    def labels(self) -> dict[str, Any]:
        """What a row shows of this training, by column."""
        return {
            "id": self.id.label,
            "family": family(self.id),
            "protocol": protocol(self.id),
            "suite": self.suite,
            "training": self.training.label,
            "outliers": self.outliers.label if self.outliers else NONE,
            "encoder": self.encoder.label,
            # where nothing is optimised, a recipe says how the views of an embedding are drawn
            "recipe": Recipe(augment=self.recipe.augment).label or NONE
            if self.training.weights is not None
            else self.recipe_shown,
            "seed": self.seed,
            "reference": self.reference.label,
            "precision": self.precision,
        }

    @property
    def called(self) -> dict[str, str]:
        """The labels that rows show and that are not their own: they are part of the keys of rows, not of weights."""
        parts = {"id": self.id, "training": self.training, "outliers": self.outliers, "encoder": self.encoder}
        return {name: each.shown_as for name, each in parts.items() if each and each.shown_as}

    @property
    def sets(self) -> dict[str, Dataset]:
        """All OOD test sets by name."""
        return {name: each for members in self.ood.values() for name, each in members.items()}

    @property
    def datasets(self) -> list[Dataset]:
        """All sets that it and the rows of its cells need."""
        others = (self.outliers, self.reference.held_out)
        return [self.id, *self.sets.values(), *self.validation, *self.covariate, *(each for each in others if each)]

    @property
    def title(self) -> str:
        parts = [self.training.label, self.id.label, self.encoder.label, self.recipe_label, f"seed {self.seed}"]
        parts.append("" if self.epoch is None else f"epoch {self.epoch}")
        return " · ".join(part for part in parts if part)


@dataclass(frozen=True)
class Detector:
    """What scores features and decides: space x clustering x distance x threshold, or baseline x threshold."""

    space: Space
    clustering: Clustering | None
    distance: Distance | None  # None: a baseline scores
    threshold: Threshold
    posthoc: Posthoc | None = None
    head: str = ""  # of a baseline: CLASSIFIER or PROBE
    saw: tuple[str, ...] = ()  # the validation OOD sets that the threshold is set on

    @property
    def scorer(self) -> Distance | Posthoc:
        found = self.distance or self.posthoc
        assert found is not None
        return found

    @property
    def plugins(self) -> dict[str, Clustering | Distance | Posthoc | Threshold]:
        """What it is made of, by room."""
        parts = {"clustering": self.clustering, "distance": self.distance, "posthoc": self.posthoc}
        return {room: each for room, each in parts.items() if each} | {"threshold": self.threshold}

    @cached_property
    def canonical(self) -> dict[str, Any]:
        scoring: dict[str, Any] = {
            "space": dataclasses.asdict(self.space),
            "clustering": canonical(self.clustering),
            "distance": canonical(self.distance),
        }
        if self.posthoc:
            scoring = {"posthoc": canonical(self.posthoc), "head": self.head}
        return scoring | {"threshold": canonical(self.threshold)} | ({"saw": list(self.saw)} if self.saw else {})

    @cached_property
    def written(self) -> str:
        return written(self.canonical)

    @cached_property
    def labels(self) -> dict[str, Any]:
        plain = dataclasses.replace(self.threshold, level=type(self.threshold).level)
        threshold = self.threshold.shown_as or plain.label
        return {
            "space": NONE if self.posthoc else self.space.label,
            "clustering": self.clustering.label if self.clustering else NONE,
            "distance": self.distance.label if self.distance else NONE,
            "posthoc": f"{self.posthoc.label}{' on linear probe' * (self.head == PROBE)}" if self.posthoc else NONE,
            "threshold": f"{threshold} [saw {', '.join(self.saw)}]" if self.saw else threshold,
            "level": math.nan if self.threshold.needs_ood else self.threshold.level,  # OOD sets the cut, no level
        }

    @property
    def title(self) -> str:
        return " · ".join(str(value) for value in self.labels.values() if value not in (NONE, math.nan))


@dataclass(frozen=True)
class Cell:
    """One method on one ID set with one seed. It becomes a row for each OOD set."""

    run: Run
    detector: Detector

    @cached_property
    def id(self) -> str:
        """The cell's identity: its parameters, whatever code and data they met."""
        return digest_of({"run": self.run.written, "detector": self.detector.written})

    @property
    def title(self) -> str:
        return f"{self.run.title} · {self.detector.title}"


@dataclass(frozen=True)
class Work:
    """A training and the cells that need it."""

    run: Run
    cells: list[Cell]

    @property
    def ways(self) -> list[Seen]:
        """How its cells ask for items to be seen."""
        return sorted({cell.detector.space.seen for cell in self.cells}, key=lambda seen: (seen.views, seen.crop or 0))

    def of(self, spec: CellsSpec) -> Work:
        """Return the training with the cells that a study declares."""
        cells = [each for each in self.cells if _fits(each, spec.of)] if spec.of else _one_of_each_distance(self.cells)
        return dataclasses.replace(self, cells=cells)

    def only(self, wanted: Mapping[str, set[str]]) -> Work:
        """Return the training with the cells and OOD sets whose labels are wanted, by axis; they may be none."""

        def fits(labels: Mapping[str, Any]) -> bool:
            return all(str(labels[axis]) in allowed for axis, allowed in wanted.items() if axis in labels)

        ood = {
            group: {name: each for name, each in members.items() if fits({"ood": name, "group": group})}
            for group, members in self.run.ood.items()
        }
        run = dataclasses.replace(self.run, ood={group: members for group, members in ood.items() if members})
        cells = [Cell(run, each.detector) for each in self.cells if fits(run.labels | each.detector.labels)]
        return Work(run, cells)

    def compared(self, claims: Iterable[ClaimSpec]) -> list[Cell]:
        """Return the cells that claims compare by AUROC."""
        sides = [labels for claim in claims if claim.by_image for labels in claim.compared]
        return [cell for cell in self.cells if any(all(_fits(cell, of) for of in labels) for labels in sides)]


def _fits(cell: Cell, of: Labels) -> bool:
    labels = {name: str(label) for name, label in (cell.run.labels | cell.detector.labels).items()}
    given = {name: v if isinstance(v, list) else [v] for name, v in of.items() if name not in SETS}
    return all(labels[name] in map(str, wanted) for name, wanted in given.items())


def _one_of_each_distance(cells: list[Cell]) -> list[Cell]:
    """Return the first cell of each distance, on clusters that are the classes if it can; baselines if there is none.

    The first has the first space, threshold and setting of the distance in the study that make sense.
    """

    def by_classes(cell: Cell) -> bool:
        return cell.detector.clustering is not None and cell.detector.clustering.labels

    followed = [cell for cell in cells if cell.detector.distance] or cells
    found: dict[str, Cell] = {}
    for cell in sorted(followed, key=by_classes, reverse=True):  # stable: else in the order of the study
        found.setdefault(cell.detector.scorer.name, cell)
    return [cell for cell in followed if cell in found.values()]


@dataclass(frozen=True)
class Plan:
    """The cells of a study, by training, and how many were left out for which reason."""

    work: list[Work]
    left_out: Counter[str]

    @property
    def cells(self) -> list[Cell]:
        return [cell for work in self.work for cell in work.cells]

    @property
    def detectors(self) -> list[Detector]:
        """The detectors of its cells, which many runs share."""
        return list({id(cell.detector): cell.detector for cell in self.cells}.values())

    def only(self, words: Sequence[str]) -> Plan:
        """Return the part of it whose rows have the labels that AXIS=LABEL words name; no key changes.

        Raises UserError with the nearest axis or label where a word names none.
        """
        if not words:
            return self
        labels: dict[str, dict[object, None]] = {}
        for each in self.work:
            parts = [each.run.labels, *(cell.detector.labels for cell in each.cells)]
            parts += [{"ood": name, "group": group} for group, sets in each.run.ood.items() for name in sets]
            for axis, label in (item for part in parts for item in part.items() if item[1] != ""):
                labels.setdefault(axis, {})[label] = None
        wanted = named.chosen(words, labels)
        work = [part for each in self.work if (part := each.only(wanted)).cells and part.run.ood]
        said = f"{named.ONLY} {' '.join(words)}"
        if not work:
            raise UserError(f"{said}: no cell fits all of them")
        found = Plan(work, Counter())
        found.left_out[said] += len(self.cells) - len(found.cells)
        if lost := [str(name) for name in labels["ood"] if not any(name in each.run.sets for each in work)]:
            found.left_out[f"{said}, on {', '.join(lost)}"] += len(found.cells)
        return Plan(work, +found.left_out)


def canonical(plugin: Plugin | None) -> dict[str, Any] | None:
    """Return a plugin's name and all its parameters, defaults filled in.

    A parameter of LATER that is not given is left out: keys made before there was one stay what they were.
    """
    if plugin is None:
        return None
    left = {name for name, value in plugin.params.items() if name in LATER and (value is None or value is False)}
    return {"name": plugin.name, **{name: value for name, value in plugin.params.items() if name not in left}}


def resolved(plugin: P, classes: int) -> P:
    """Return a plugin whose counts said in classes (`classes`, `2*classes`) are numbers."""
    counts = {
        name: int(match[1] or 1) * classes
        for name, value in plugin.params.items()
        if isinstance(value, str) and (match := re.fullmatch(r"(?:(\d+)\*)?classes", value))
    }
    return dataclasses.replace(plugin, **counts)  # type: ignore[type-var]


def has_shifted(training: Training) -> bool:
    """Return whether there is a layer `shifted`: the training tells all four quarter turns of an image apart."""
    told = training.heads.get("shift", "").endswith(f"-{len(TURNS)}")  # a logit for each turn
    return training.shifts.id == TURNS and told and "z" in training.heads


def plan(study: Study, bind: Bind) -> Plan:
    """Return the cells of a study, in the order of its file; `bind` gives a training the heads of its weights."""
    left_out: Counter[str] = Counter()
    unfit: Counter[str] = Counter()
    found = list(detectors(study.detectors, unfit))
    work: list[Work] = []
    added = sorted({seed for seeds in study.added.values() for seed in seeds} - {*study.seeds})
    later = _runs(dataclasses.replace(study, seeds=added), bind, Counter())
    wanted = (run for run in later if run.seed in study.added.get(run.but_seed, ()))
    on = functools.cache(lambda i, head, saw: _on(found[i], head, saw))  # one object for all runs that it is alike on
    for run in itertools.chain(_runs(study, bind, left_out), wanted):
        if study.runs is not None and run.named not in study.runs:
            continue
        left_out.update(unfit)
        cells: list[Cell] = []
        classes, saw = class_count(run.id), tuple(each.label for each in run.validation)
        head = CLASSIFIER if LAYER_HEAD["logits"] in run.training.heads else PROBE
        for i, detector in enumerate(found):
            reason = _senseless(run, detector, classes) or _skipped(study.skips, run, detector)
            if reason:
                left_out[reason] += 1
            else:
                cell = Cell(run, on(i, head, saw))
                if study.cells is None or cell.id in study.cells:
                    cells.append(cell)
                else:
                    left_out["not in a dry run"] += 1
        if cells:
            work.append(Work(run, cells))
    for i, skip in enumerate(study.skips):
        if study.runs is None and not any(reason == _skipping(skip) for reason in left_out):
            study.document.fail(("skip", i), f"no cell fits: {_skipping(skip).removeprefix('skipped: ')}")
    return Plan(work, +left_out)  # without zeros


def check_size(study: Study) -> None:
    """Refuse more cells than anybody can run, before they are made."""
    axes, sets = study.detectors, max(1, len(study.outliers))
    trainings = sum(len(study.recipes[each.name]) * (sets if each.outliers else 1) for each in study.trainings)
    runs = trainings * len(study.ids) * len(study.encoders) * len(study.precisions) * len(study.seeds)
    scorers = len(axes.spaces) * max(1, len(axes.clusterings)) * len(axes.distances) + len(axes.posthocs)
    if (cells := runs * scorers * len(axes.thresholds)) > MOST:
        parts = f"{runs} trainings x {scorers} scorers x {len(axes.thresholds)} thresholds"
        study.document.fail((), f"the grid has {cells} cells ({parts}), {MOST} at most; make several studies of it")
    if (looks := cells * len(study.skips)) > 100 * MOST:
        said = f"{len(study.skips)} entries for each of {cells} cells are {looks} looks, {100 * MOST} at most"
        study.document.fail(("skip",), f"{said}; an entry takes lists, {{seed: [1, 2]}}")


def _runs(study: Study, bind: Bind, left_out: Counter[str]) -> Iterator[Run]:
    axes = (study.ids, study.trainings, study.encoders, study.precisions, study.seeds)
    for id_, training, encoder, precision, seed in itertools.product(*axes):
        if reason := _unfit_training(training, id_, encoder):
            left_out[reason] += 1
            continue
        setup = study.setups[id_.label]
        for outliers in setup.outliers if training.outliers else [None]:
            for label, recipe in _recipes(study, training).items():
                yield Run(
                    id=id_,
                    ood=study.tested(id_),
                    training=_bound(study, bind, training, encoder, id_),
                    outliers=outliers,
                    encoder=encoder,
                    recipe=recipe,
                    recipe_label=label,
                    recipe_shown=study.recipes_shown[training.name].get(label, label),
                    seed=seed,
                    image=study.settings.image,
                    reference=setup.reference,
                    precision=precision,
                    validation=tuple(setup.validation),
                    covariate=tuple(setup.covariate),
                    suite=setup.suite,
                )


def _unfit_training(training: Training, id_: Dataset, encoder: Encoder) -> str:
    if class_count(id_) == 1 and (needy := needs_classes(training)):
        return f"{needy}, {id_.label} has one class"
    if training.weights == TIMM and not encoder.name.startswith("timm/"):
        return f"{training.label} has weights for encoders of timm, {encoder.label} is none"
    return ""


def needs_classes(training: Training) -> str:
    """Return what a training wants of several classes, whose loss says nothing about one; "" where it wants none."""
    if training.labels:
        return f"{training.label} needs labels"
    one = any(value == 1 and training.params[name] != 1 for name, value in resolved(training, 1).params.items())
    return f"{training.label} makes as many clusters as classes" if one else ""


def _bound(study: Study, bind: Bind, training: Training, encoder: Encoder, id_: Dataset) -> Training:
    """Return a training with the heads that its weights bring, where it loads any."""
    if training.weights is None:
        return training
    with study.document.blame(("training",)):
        bound = bind(training, encoder, study.settings.image.channels, class_count(id_), study.file.parent)
        return bound.called(training.shown_as)


def _recipes(study: Study, training: Training) -> dict[str, Recipe]:
    """Return the recipes of a training by label; where nothing is optimised, those that augment in other ways."""
    found = study.recipes[training.name]
    if training.weights is None:
        return found
    once: dict[str, tuple[str, Recipe]] = {}
    for label, recipe in found.items():
        once.setdefault(repr(recipe.augment), (label, Recipe(epochs=0, augment=recipe.augment)))
    (_, first), *others = once.values()
    return dict(once.values()) if others else {"": first}


def detectors(axes: Detectors, left_out: Counter[str]) -> Iterator[Detector]:
    """Yield each combination that makes sense on any features; count the others by reason."""
    for each in _combinations(axes, left_out):
        if why := _unfit(each, axes.reference):
            left_out[why] += 1
        else:
            yield each


def _combinations(axes: Detectors, left_out: Counter[str]) -> Iterator[Detector]:
    thresholds = [(each, axes.saw if each.needs_ood else ()) for each in axes.thresholds]
    for space, distance in itertools.product(axes.spaces, axes.distances):
        clusterings = list(axes.clusterings) if distance.clusters else [None]
        if not distance.clusters and len(axes.clusterings) > 1:
            left_out[f"{distance.label} ignores clusters"] += (len(axes.clusterings) - 1) * len(axes.thresholds)
        for clustering, (threshold, saw) in itertools.product(clusterings, thresholds):
            yield Detector(space, clustering, distance, threshold, saw=saw)
    for posthoc, (threshold, saw) in itertools.product(axes.posthocs, thresholds):
        yield Detector(Space(), None, None, threshold, posthoc, saw=saw)


def _unfit(detector: Detector, reference: Reference) -> str:
    """Return why a detector makes no sense, whatever the features are; nothing where it does."""
    space, distance, posthoc, clustering = detector.space, detector.distance, detector.posthoc, detector.clustering
    scorer, threshold, train = detector.scorer, detector.threshold, reference.kind == "train"
    overrides = distance and type(distance).leave_one_out is not Distance.leave_one_out
    unfit: list[tuple[Any, str]] = []
    if distance:
        unfit = [
            (space.layer not in distance.layers, f"{scorer.label} is not for the layer {space.layer}"),
            (distance.raw and not space.raw, f"{scorer.label} needs raw features, not {space.label}"),
            (distance.views and space.views == 1, f"{scorer.label} needs several views"),
            (train and space.seen != PLAIN, f"`reference: train` has plain training features only, not {space.label}"),
        ]
    left_out = "does not leave an item out of its own score, as `reference: train` needs"
    unfit.append((train and not overrides, f"{scorer.label} {left_out}"))
    if clustering:
        mixture = f"{scorer.label} needs a mixture, {clustering.label} is none"
        unfit.append((distance and distance.mixture and not clustering.mixture, mixture))
    if posthoc:
        fitted = f"{threshold.label} needs a reference that nothing is fitted on, {scorer.label} is fitted on it"
        unfit.append((posthoc.val and threshold.held_out, fitted))
    held_out = f"{threshold.label} needs a reference that is held out, not `reference: train`"
    unfit.append((threshold.held_out and train, held_out))
    without = f"{threshold.label} needs clusters, {scorer.label} has none"
    unfit.append((threshold.clusters and not clustering, without))
    return next((why for holds, why in unfit if holds), "")


def _senseless(run: Run, detector: Detector, classes: int | None) -> str:
    layer = detector.space.layer
    head = LAYER_HEAD.get(layer)
    if (head and head not in run.training.heads) or (layer == "shifted" and not has_shifted(run.training)):
        return f"{run.training.label} has no {layer} layer"
    clustering = detector.clustering
    if clustering and clustering.labels and classes == 1:
        return f"{clustering.label} needs labels, {run.id.label} has one class"
    if why := senseless_of_one_cluster(detector, classes):
        return why
    if detector.posthoc and classes == 1:
        return f"{detector.posthoc.label} needs a classifier, {run.id.label} has one class"
    form = run.training.heads.get(LAYER_HEAD["logits"], "linear")
    if detector.posthoc and detector.posthoc.linear and not form.startswith("linear"):
        return f"{detector.posthoc.label} needs a linear head, {run.training.label} has {form}"
    return ""


def senseless_of_one_cluster(detector: Detector, classes: int | None) -> str:
    """Return why a detector says nothing where its clustering makes one cluster; "" where it may."""
    clustering, distance = detector.clustering, detector.distance
    if not clustering or not distance:
        return ""
    needs_several = distance.several or detector.threshold.clusters
    if not needs_several and not (distance.angular and detector.space.centred):
        return ""
    if not _is_single(clustering, classes):
        return ""
    if needs_several:
        needy = distance if distance.several else detector.threshold
        return f"{needy.label} needs several clusters, {clustering.label} makes one"
    return f"{distance.label} to the one centroid of {detector.space.label}, its origin, is rounding"


@functools.lru_cache(maxsize=4096)
def _is_single(clustering: Clustering, classes: int | None) -> bool:
    return (resolved(clustering, classes) if classes else clustering).single


def _on(detector: Detector, head: str, saw: tuple[str, ...]) -> Detector:
    """Return a detector as it is on a run: a baseline reads the run's own classifier, or the linear probe."""
    if detector.saw:
        detector = dataclasses.replace(detector, saw=saw)
    return dataclasses.replace(detector, head=head) if detector.posthoc else detector


def _skipped(skips: list[Skip], run: Run, detector: Detector) -> str:
    for skip in skips:
        parts = {axis: getattr(detector if axis in DETECTOR_AXES else run, axis) for axis in skip.entries}
        if all(any(match.fits(parts[axis]) for match in matches) for axis, matches in skip.entries.items()):
            return _skipping(skip)
    return ""


def _skipping(skip: Skip) -> str:
    texts = {axis: " or ".join(match.text for match in matches) for axis, matches in skip.entries.items()}
    return "skipped: " + ", ".join(f"{axis} {text}" for axis, text in texts.items())
