"""A study on stand-in data: generated images, one epoch, narrow encoders. It tells whether a study runs, in seconds.

Its numbers mean nothing: rows say so, tables say so, and rows and store are in a folder of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from math import ceil
from typing import Any, NamedTuple, TypeVar

from oodbench.api import Dataset, Training
from oodbench.errors import UserError
from oodbench.execution import standins
from oodbench.store.columns import STAND_IN
from oodbench.study.class_protocol import class_count, family, protocol
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import DETECTOR_AXES, LAYER_HEAD, NONE, SHIFTED_HEADS, Cell, Plan, Work
from oodbench.study.settings import RESNETS, Encoder, Recipe
from oodbench.study.study import DRY, Setup, Study, results_root
from oodbench.training import weights
from oodbench.training.weights import plan_of

T = TypeVar("T")
SIDE = 8  # pixels, at most
WIDTH = 8  # channels of a ResNet's first stage, at most
TRAIN = 1200  # images that fit: more than any study asks of neighbours, two groups for each of 60 clusters
TEST = 40  # test images of a set
STEPS = 60  # of a training with a classifier, at least: with fewer, some classes are never predicted
RATE = 0.01  # of learning, at most: so few steps at a paper's rate leave such classes, too
WEAK = 0.1  # jitter, and what a crop leaves out: a class is learned sooner
CLASSIFIERS = {LAYER_HEAD["logits"], SHIFTED_HEADS[1]}


class Dry(NamedTuple):
    study: Study
    replaced: dict[str, str]  # what -> by what


def dry(study: Study) -> Dry:
    """Return a study on stand-in data, and what was replaced by what."""
    size, channels = min(study.settings.image.size, SIDE), study.settings.image.channels
    reference = study.detectors.reference
    items = ceil(TRAIN / (1 - reference.share)) if reference.kind == "val" else TRAIN
    code = fingerprint_module(standins.__name__)

    @cache
    def stand_in(each: Dataset) -> Dataset:
        drawn = standins.Drawing(code, size, channels, 1, 1, standins.class_names(each))
        kept = class_count(standins.dataset(each, drawn)) or 1
        return standins.dataset(each, drawn._replace(train=ceil(items / kept), test=ceil(TEST / kept)))

    ids = [stand_in(each) for each in _first_of_each_family(study)]
    trainings = [_training(study, each) for each in study.trainings]
    recipes = {name: _recipes([t for t in trainings if t.name == name], study.recipes[name]) for name in study.recipes}
    last = min((each.epochs for found in recipes.values() for each in found.values()), default=0)
    folder = (results_root() / f"{study.name}{DRY}").resolve()
    image = dataclasses.replace(study.settings.image, size=size, short=None)
    made = dataclasses.replace(
        study,
        name=f"{study.name}{DRY}",
        warns=(STAND_IN,),
        settings=dataclasses.replace(study.settings, image=image, store=str(folder / "store"), learned=None),
        ids=ids,
        setups={id_.label: _setup(study, study.setups[id_.label], stand_in) for id_ in ids},
        encoders=[_slim(study, each) for each in study.encoders],
        recipes=recipes,
        seeds=study.seeds if _is_named(study, "seed") else study.seeds[:1],
        trainings=trainings,
        keep=tuple(each for each in study.keep if each <= last),
    )
    made = dataclasses.replace(made, cells=frozenset(_cells(plan_of(made), made)))
    return Dry(made, _replaced(study, made, items))


def _setup(study: Study, setup: Setup, stand_in: Callable[[Dataset], Dataset]) -> Setup:
    """Return a setup of stand-ins, with the first OOD set of each group where the study names none of them."""
    held_out, most = setup.reference.held_out, None if _is_named(study, "ood") else 1
    return dataclasses.replace(
        setup,
        ood={
            group: {name: stand_in(each) for name, each in list(sets.items())[:most]}
            for group, sets in setup.ood.items()
        },
        reference=dataclasses.replace(setup.reference, held_out=held_out and stand_in(held_out)),
        validation=[stand_in(each) for each in setup.validation],
        covariate=[stand_in(each) for each in setup.covariate],
        outliers=[stand_in(each) for each in setup.outliers],
    )


# ---- parts -----------------------------------------------------------------------------------------------


def _first_of_each_family(study: Study) -> list[Dataset]:
    """Return the ID sets without those that differ from another in which classes they have alone, not in how many."""
    if _is_named(study, "id"):
        return study.ids
    return list({(family(each), protocol(each)): each for each in reversed(study.ids)}.values())[::-1]


def _is_named(study: Study, axis: str) -> bool:
    """Return whether a table, a claim, the curve or a skip names entries of an axis."""
    return any(axis in of for of, _ in _asked(study)) or any(axis in skip.entries for skip in study.skips)


def _training(study: Study, training: Training) -> Training:
    """Return a training that needs few epochs, and no weights from elsewhere."""
    if training.weights is not None:
        try:
            image, id_ = study.settings.image, study.ids[0]
            where = (study.encoders[0], image.channels, class_count(id_), study.file.parent)
            heads = weights.bound(training, *where).heads
        except UserError:  # its file is not here
            heads = training.heads
        return standins.untrained(training, heads)
    if any(match.params for skip in study.skips for match in skip.entries.get("training", [])):
        return training  # the study speaks of parameters of trainings
    return _hurried(training)


def _hurried(training: Training) -> Training:
    """Return a training with 1 for each number that makes it need more epochs, as that of a warm-up does."""
    numbers = [name for name, value in training.params.items() if type(value) is int and value > 1]
    found = training
    for name in 2 * numbers:  # one may matter only when another is 1
        fewer = standins.training(training, **found.params | {name: 1})
        if fewer.least_epochs < found.least_epochs:
            found = fewer
    return found


def _recipes(trainings: list[Training], found: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return the recipes of trainings of one name, cut short; of those that are then alike the first."""
    once: dict[Recipe, str] = {}
    for label, recipe in found.items():
        once.setdefault(_short(recipe, trainings), label)
    return {label: recipe for recipe, label in once.items()}


def _short(recipe: Recipe, trainings: list[Training]) -> Recipe:
    """Return a recipe of the fewest epochs, whose batches are small enough for the steps that a classifier needs."""
    if all(type(each).weights is None for each in trainings):
        return Recipe(epochs=0, augment=recipe.augment)
    epochs = min(recipe.epochs, max(1, *(each.least_epochs for each in trainings)))
    classifies = any(not CLASSIFIERS.isdisjoint(each.heads) for each in trainings)
    batch = min(recipe.batch, max(1, epochs) * TRAIN // STEPS) if classifies else recipe.batch
    weak, augment = (WEAK, WEAK, WEAK, WEAK), recipe.augment
    crop, jitter = augment.crop and (1 - WEAK, 1.0), augment.jitter and weak
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        warmup=min(recipe.warmup, max(0, epochs - 1)),
        batch=batch,
        augment=dataclasses.replace(augment, crop=crop, jitter=jitter, pad=0),  # a padded image hides its class
        optimizer="sgd" if recipe.optimizer == "lars" else recipe.optimizer,  # which is slower to learn
        lr=min(recipe.lr, RATE),
        outlier_batch=recipe.outlier_batch and min(recipe.outlier_batch, batch),
        devices=1,
        accumulate=1,
        compile=False,
    )


def _slim(study: Study, encoder: Encoder) -> Encoder:
    """Return a narrow encoder with a stem for small images; a ResNet in the place of one that has its own sizes."""
    if encoder.module or any(match.params for skip in study.skips for match in skip.entries.get("encoder", [])):
        return encoder  # a user's own; or one of whose parameters the study speaks
    name, width = (encoder.name, encoder.params["width"]) if encoder.name in RESNETS else ("resnet18", WIDTH)
    return standins.Slim(name=name, params={"width": min(WIDTH, width), "stem": "cifar"}, shown=encoder.label).called(
        encoder.shown_as
    )


# ---- cells -----------------------------------------------------------------------------------------------


def _cells(whole: Plan, study: Study) -> Iterator[str]:
    """Yield of some trainings a cell for every entry of an axis, and one for every number of a table or a claim."""
    asked = [_about_detectors(*each) for each in _asked(study)]

    def answered(cell: Cell) -> set[Any]:
        shown = {column: str(label) for column, label in cell.detector.labels.items()}
        return {
            (i, *(shown[column] for column in columns))
            for i, (of, columns) in enumerate(asked)
            if all(shown[column] in wanted for column, wanted in of.items())
        }

    for work in _with_news(whole.work, _parts):
        yield from (cell.id for cell in _with_news(work.cells, answered))


def _parts(work: Work) -> set[Any]:
    """Return what is taken once: every training on every ID set, and encoders, outliers, recipes."""
    labels = work.run.labels
    pairs = [("id", "training"), ("training", "recipe"), ("encoder",), ("precision",), ("outliers",)]
    return {(*names, *(labels[name] for name in names)) for names in pairs}


def _with_news(items: Iterable[T], says: Callable[[T], set[Any]]) -> Iterator[T]:
    """Yield the items that say what none before them has said."""
    heard: set[Any] = set()
    for each in items:
        if not says(each) <= heard:
            heard |= says(each)
            yield each


def _asked(study: Study) -> Iterator[tuple[dict[str, Any], Iterable[str]]]:
    """Yield what tables, claims, the curve and the choice by validation ask for, and what tells their numbers apart.

    Nothing is asked of the entries of an axis but that each is there.
    """
    yield from (({}, (axis,)) for axis in (*DETECTOR_AXES, "level"))
    for spec in study.tables.values():
        yield spec.of, (*spec.rows, *spec.across)
    for claim in study.claims.values():
        for side in ({}, claim.left, claim.right):
            for place in ({}, claim.at, claim.than):
                yield claim.of | side | place, (*claim.over, *claim.among, *claim.winner)
    yield study.curve.of, ()
    if study.scores:
        yield study.scores.of, ()
    if study.select:
        axes = study.detectors
        clusters = [NONE, *(each.label for each in axes.clusterings[:1])]
        yield {"threshold": axes.thresholds[0].label, "clustering": clusters}, study.select.over


def _about_detectors(of: dict[str, Any], columns: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return of what is asked for what is of detectors; of which entries there are several tells numbers apart, too."""
    known = (*DETECTOR_AXES, "level")
    wanted = {name: [str(e) for e in (v if isinstance(v, list) else [v])] for name, v in of.items() if name in known}
    several = [name for name, each in wanted.items() if len(each) > 1]
    return wanted, [name for name in dict.fromkeys((*columns, *several)) if name in known]


# ---- saying it --------------------------------------------------------------------------------------------


def _replaced(study: Study, made: Study, items: int) -> dict[str, str]:
    """Return what was replaced by what, as it is said to the user."""
    image, other = study.settings.image, made.settings.image
    sets = ", ".join(dict.fromkeys(each.label for each in made.datasets))
    classes = f"{standins.CLASSES} classes and those that a class protocol names"
    found = {sets: f"generated images, {items} to train on and {TEST} to test, of {classes}"}
    if image != other:
        found[f"images of {image.size} x {image.size}"] = f"{other.size} x {other.size}"
    for before, after in zip(study.encoders, made.encoders, strict=True):
        if after != before:
            found[before.label] = f"{after.name} of width {after.params['width']} with a stem for small images"
    for method, hurried in zip(study.trainings, made.trainings, strict=True):
        if hurried is not method:
            changed = {name: value for name, value in hurried.params.items() if value != method.params[name]}
            texts = [f"{name}={value}" for name, value in changed.items() if value is not None]
            found[method.label] = f"the same with {', '.join(texts)}" if texts else "its network with random weights"
    for name, recipes in study.recipes.items():
        then, now = ({each.epochs for each in found.values()} for found in (recipes, made.recipes[name]))
        if then - now:
            found[f"{', '.join(map(str, sorted(then)))} epochs of {name}"] = ", ".join(map(str, sorted(now)))
    found["recipes"] = (
        f"a rate of {RATE} at most, SGD for LARS, crops and jitter by {WEAK:.0%}, no padding, "
        f"at least {STEPS} steps of a classifier, one device"
    )
    return found | _fewer(study, made)


def _fewer(study: Study, made: Study) -> dict[str, str]:
    """Return of what there is less."""

    def counts(of: Study) -> dict[str, int]:
        sets = [name for id_ in made.ids for each in of.setups[id_.label].ood.values() for name in each]
        recipes = sum(len(each) for each in of.recipes.values())
        several = {"seeds": len(of.seeds), "ID sets": len(of.ids), "OOD sets": len(sets)}
        return several | {"epochs to keep": len(of.keep), "recipes": recipes}

    found, after = {}, counts(made)
    for what, before in counts(study).items():
        if after[what] < before:
            of_each = " of each group" if what == "OOD sets" else ""
            found[f"{before} {what}"] = f"the first {after[what]}{of_each}" if after[what] else "none"
    whole, taken = (plan_of(dataclasses.replace(made, cells=each)) for each in (None, made.cells))
    found[f"{len(whole.work)} trainings, {len(whole.cells)} cells"] = (
        f"{len(taken.work)} and {len(taken.cells)}, for every entry of an axis and every number of a table or a claim"
    )
    return found
