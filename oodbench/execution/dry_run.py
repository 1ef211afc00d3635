"""A study on stand-in data: generated images, one epoch, narrow encoders. It tells whether a study runs, in seconds.

Its numbers mean nothing: rows say so, tables say so, and rows and store are in a folder of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from typing import Any, NamedTuple, get_type_hints

from oodbench.api import Count, Dataset, Plugin, Training
from oodbench.errors import UserError
from oodbench.execution import standins
from oodbench.store.columns import STAND_IN
from oodbench.study.class_protocol import class_count, family, protocol
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import DETECTOR_AXES, LAYER_HEAD, NONE, SHIFTED_HEADS, Plan, Work, canonical, resolved
from oodbench.study.settings import RESNETS, Augment, Encoder, Recipe
from oodbench.study.study import DRY, Detectors, Setup, Study, results_root
from oodbench.training import weights
from oodbench.training.weights import plan_of

SIDE = 8  # pixels, at most
WIDTH = 8  # channels of a ResNet's first stage, at most
FEW = 6  # steps of a training, or one for each of its epochs
SOME = 36  # of one with a classifier
STEPS = 60  # the same where baselines read it, some of which refuse one that never predicts a class
BATCH = 10  # images a step, at least
WEAK = 0.1  # jitter, and what a crop leaves out
RATE = 0.01  # of learning, at most: so few steps at a paper's rate leave classes that are never predicted
TRAIN = 300  # images that fit, at least: k = 50 neighbours, clusters, an item of each class held out
READ = 600  # the same where baselines read a classifier
MOST = 1200  # and at most, whatever the study asks
CROWD = 2 * standins.ALIKE  # images for each cluster that is asked for, twice as many groups as clusters
CLASSIFIERS = {LAYER_HEAD["logits"], SHIFTED_HEADS[1]}
TEST = 40  # test images of a set


class Dry(NamedTuple):
    study: Study
    replaced: dict[str, str]  # what -> by what


def dry(study: Study) -> Dry:
    """Return a study on stand-in data, and what was replaced by what."""
    size, channels = min(study.settings.image.size, SIDE), study.settings.image.channels
    items = _items(study)
    code = fingerprint_module(standins.__name__)

    known: dict[str, Dataset] = {}

    def stand_in(each: Dataset) -> Dataset:
        name = str(canonical(each))
        if name not in known:
            drawn = standins.Drawn(code, size, channels, 1, 1, standins.class_names(each))
            kept = class_count(standins.dataset(each, drawn)) or 1
            known[name] = standins.dataset(each, drawn._replace(train=ceil(items / kept), test=ceil(TEST / kept)))
        return known[name]

    ids = [stand_in(each) for each in _first_of_each_family(study)]
    trainings = [_training(study, each) for each in study.trainings]
    recipes = {name: _recipes(study.detectors, trainings, name, found, items) for name, found in study.recipes.items()}
    last = min((each.epochs for found in recipes.values() for each in found.values()), default=0)
    kept = tuple(each for each in study.keep if each <= last)
    folder = (results_root() / f"{study.name}{DRY}").resolve()
    made = dataclasses.replace(
        study,
        name=f"{study.name}{DRY}",
        warns=(STAND_IN,),
        settings=dataclasses.replace(
            study.settings,
            image=dataclasses.replace(study.settings.image, size=size, short=None),
            store=str(folder / "store"),
            learned=None,
        ),
        ids=ids,
        setups={id_.label: _setup(study, study.setups[id_.label], stand_in) for id_ in ids},
        encoders=[_slim(study, each) for each in study.encoders],
        recipes=recipes,
        seeds=study.seeds if _is_named(study, "seed") else study.seeds[:1],
        trainings=trainings,
        keep=kept,
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
        outliers=[stand_in(each) for each in setup.outliers],
    )


# ---- parts -----------------------------------------------------------------------------------------------


def _items(study: Study) -> int:
    """Return how many training images there have to be: more than the largest number that a detector asks for."""
    axes = study.detectors
    plugins: list[Plugin] = [*axes.clusterings, *axes.distances, *axes.posthocs]
    asked = [READ if axes.posthocs else TRAIN, *(number for each in plugins for number in _numbers(each))]
    asked += [space.pca for space in axes.spaces if space.pca]
    share = axes.reference.share if axes.reference.kind == "val" else 0.0
    return ceil(min(MOST, max(each + 10 for each in asked)) / (1 - share))


def _numbers(plugin: Plugin) -> Iterator[int]:
    """Yield the numbers of items that a study's own settings of a plugin may mean."""
    default = {f.name: f.default for f in dataclasses.fields(plugin)}  # type: ignore[arg-type]
    hints = get_type_hints(type(plugin), include_extras=True)
    for name, value in resolved(plugin, standins.CLASSES).params.items():
        if type(value) is int and value != default[name]:
            yield CROWD * value if hints[name] == Count else value


def _first_of_each_family(study: Study) -> list[Dataset]:
    """Return the ID sets without those that differ from another in which classes they have alone, not in how many."""
    if _is_named(study, "id"):
        return study.ids
    return list({(family(each), protocol(each)): each for each in reversed(study.ids)}.values())[::-1]


def _is_named(study: Study, axis: str) -> bool:
    """Return whether a table, a claim, the curve or a skip names entries of an axis."""
    filters: list[dict[str, Any]] = [spec.of for spec in study.tables.values()]
    for claim in study.claims.values():
        filters += [claim.of, claim.left, claim.right, claim.at, claim.than]
    filters += [study.curve.of, *(skip.entries for skip in study.skips)]
    return any(axis in each for each in filters)


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


def _recipes(
    axes: Detectors, trainings: list[Training], name: str, found: dict[str, Recipe], items: int
) -> dict[str, Recipe]:
    """Return the recipes of a training, cut to its fewest epochs; of those that are then alike the first."""
    members = [each for each in trainings if each.name == name]
    loaded = all(type(each).weights is None for each in members)
    epochs = 0 if loaded else max(1, *(each.least_epochs for each in members))
    classifies = any(not CLASSIFIERS.isdisjoint(each.heads) for each in members)
    steps = (STEPS if axes.posthocs else SOME) if classifies else FEW
    once: dict[Recipe, str] = {}
    for label, recipe in found.items():
        short = Recipe(epochs=0, augment=recipe.augment) if loaded else _short(recipe, epochs, ceil(items / steps))
        once.setdefault(short, label)
    return {label: recipe for recipe, label in once.items()}


def _short(recipe: Recipe, epochs: int, least: int) -> Recipe:
    """Return a recipe of so many epochs at most, whose batches are no smaller than makes so few steps of one epoch."""
    epochs = min(epochs, recipe.epochs)
    batch = min(recipe.batch, max(BATCH, least * max(1, epochs)))
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        warmup=min(recipe.warmup, max(0, epochs - 1)),
        batch=batch,
        augment=_weak(recipe.augment),
        optimizer="sgd" if recipe.optimizer == "lars" else recipe.optimizer,  # which is slower to learn
        lr=min(recipe.lr, RATE),
        outlier_batch=recipe.outlier_batch and min(recipe.outlier_batch, batch),
        devices=1,
        accumulate=1,
        compile=False,
    )


def _weak(augment: Augment) -> Augment:
    """Return the same augmentations, but weak, and no crop of padded images: a class is learned sooner."""
    crop = augment.crop and (1 - WEAK, 1.0)
    jitter = augment.jitter and (WEAK, WEAK, WEAK, WEAK)
    return dataclasses.replace(augment, crop=crop, jitter=jitter, pad=0)


def _slim(study: Study, encoder: Encoder) -> Encoder:
    """Return a narrow encoder with a stem for small images; a ResNet in the place of one that has its own sizes."""
    if ":" in encoder.name or any(match.params for skip in study.skips for match in skip.entries.get("encoder", [])):
        return encoder  # a user's own; or one of whose parameters the study speaks
    if encoder.name in RESNETS:
        width = min(WIDTH, encoder.params["width"])
        return standins.Slim(name=encoder.name, params={"width": width, "stem": "cifar"}, shown=encoder.label)
    return standins.Slim(name=RESNETS[0], params={"width": WIDTH, "stem": "cifar"}, shown=encoder.label)


# ---- cells -----------------------------------------------------------------------------------------------


def _cells(whole: Plan, study: Study) -> Iterator[str]:
    """Yield of some trainings a cell for every entry of an axis, and one for every number of a table or a claim."""
    asked = [*_filters(study)]
    for work in _some(whole.work):
        seen: set[Any] = set()
        for cell in work.cells:
            labels = cell.detector.labels
            shown = {column: str(label) for column, label in labels.items()}
            keys: list[Any] = [*shown.items()]
            for i, (of, columns) in enumerate(asked):
                if all(shown[column] in wanted for column, wanted in of.items()):
                    keys.append((i, *(shown[column] for column in columns)))
            if not seen.issuperset(keys):
                seen.update(keys)
                yield cell.id


def _some(work: list[Work]) -> Iterator[Work]:
    """Yield every training on every ID set once, and once what else there is: encoders, outliers, recipes."""
    seen: set[Any] = set()
    for each in work:
        labels = each.run.labels
        pairs = [("id", "training"), ("training", "recipe"), ("encoder",), ("precision",), ("outliers",)]
        keys = {(*names, *(labels[name] for name in names)) for names in pairs}
        if not keys <= seen:
            seen |= keys
            yield each


def _filters(study: Study) -> Iterator[tuple[dict[str, list[str]], list[str]]]:
    """Yield what tables, claims and the choice by validation ask of detectors, and what tells their numbers apart."""
    for spec in study.tables.values():
        yield _about_detectors(spec.of, (*spec.rows, *spec.columns))
    for claim in study.claims.values():
        for side in ({}, claim.left, claim.right):
            for place in ({}, claim.at, claim.than):
                yield _about_detectors(claim.of | side | place, (*claim.over, *claim.among, *claim.winner))
    yield _about_detectors(study.curve.of, ())
    if study.select:
        axes = study.detectors
        clusters = [NONE, *(each.label for each in axes.clusterings[:1])]
        yield _about_detectors({"threshold": axes.thresholds[0].label, "clustering": clusters}, study.select.over)


def _about_detectors(of: dict[str, Any], columns: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    wanted = {
        name: [str(each) for each in (value if isinstance(value, list) else [value])] for name, value in of.items()
    }
    known = (*DETECTOR_AXES, "level")
    several = [name for name, each in wanted.items() if len(each) > 1]
    kept = {name: each for name, each in wanted.items() if name in known}
    return kept, [name for name in dict.fromkeys((*columns, *several)) if name in known]


# ---- saying it --------------------------------------------------------------------------------------------


def _replaced(study: Study, made: Study, items: int) -> dict[str, str]:
    """Return what was replaced by what, as it is said to the user."""
    image, other = study.settings.image, made.settings.image
    found = {
        ", ".join(dict.fromkeys(each.label for each in made.datasets)): (
            f"generated images, {items} to train on and {TEST} to test, of {standins.CLASSES} classes "
            "and those that a class protocol names"
        )
    }
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
    return found | _shortened(study, made) | _fewer(study, made)


def _shortened(study: Study, made: Study) -> dict[str, str]:
    """Return what became of recipes."""
    found = {}
    for name, recipes in study.recipes.items():
        then, now = ({each.epochs for each in found.values()} for found in (recipes, made.recipes[name]))
        if then - now:
            found[f"{', '.join(map(str, sorted(then)))} epochs of {name}"] = ", ".join(map(str, sorted(now)))
    found["recipes"] = (
        f"a rate of {RATE} at most, SGD for LARS, crops and jitter by {WEAK:.0%}, no padding, "
        "batches for few steps, one device"
    )
    return found


def _fewer(study: Study, made: Study) -> dict[str, str]:
    """Return of what there is less."""
    recipes = ([each for found in one.recipes.values() for each in found] for one in (study, made))
    sets = ([sets for id_ in made.ids for sets in one.setups[id_.label].ood.values()] for one in (study, made))
    counts: dict[str, Iterable[list[Any]]] = {
        "seeds": (study.seeds, made.seeds),
        "ID sets": (study.ids, made.ids),
        "OOD sets": ([name for each in groups for name in each] for groups in sets),
        "epochs to keep": ([*study.keep], [*made.keep]),
        "recipes": recipes,
    }
    found = {}
    for what, (before, after) in counts.items():
        if len(after) < len(before):
            of_each = " of each group" if what == "OOD sets" else ""
            found[f"{len(before)} {what}"] = f"the first {len(after)}{of_each}" if after else "none"
    whole, taken = (plan_of(dataclasses.replace(made, cells=each)) for each in (None, made.cells))
    found[f"{len(whole.work)} trainings, {len(whole.cells)} cells"] = (
        f"{len(taken.work)} and {len(taken.cells)}, for every entry of an axis and every number of a table or a claim"
    )
    return found
