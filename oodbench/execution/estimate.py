"""What a study will cost: time from two measured steps of each training on this device, disk from sizes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from oodbench.execution.pipeline import Pipeline
from oodbench.execution.runner import Known, Runner
from oodbench.store.memo import digest
from oodbench.study.grid import TURNS, Cell, Run, Work, has_shifted, resolved
from oodbench.study.settings import Augment
from oodbench.training import batches, embed, networks, train
from oodbench.training.banks import Piece

BATCH = 64  # images of a measured step
FORWARD = 1 / 3  # the share of a step that embedding takes: no backward pass
ROW_SECONDS = 0.02  # of a row, where no row tells
PLAIN = Augment(crop=None, flip=0, jitter=None, gray=0)


@dataclass(frozen=True)
class Estimate:
    """What a study consists of, what of it is there, and what the rest costs. None: unknown."""

    trainings: int
    trained: int | None
    banks: int  # sets to be embedded, over all trainings
    embedded: int | None
    cells: int
    done: int | None
    seconds: float | None  # None also where a step could not be measured; running tells why
    bytes: int | None


def counted(runner: Runner) -> Estimate:
    """Return what a study consists of, where its data is not here to tell what of it is there."""
    work = runner.plan.work
    banks = sum(len(runner.pipeline.banks.pieces(each.run, each.ways)) for each in work)
    return Estimate(len(work), None, banks, None, len(runner.plan.cells), None, None, None)


def estimate(runner: Runner) -> Estimate:
    """Return the cost of what a study misses. Prepares data that is not prepared; reads no other artifact."""
    pipeline, known = runner.pipeline, runner.known()
    seen = [_seen(runner, work, known) for work in runner.plan.work]
    trained = sum(pipeline.encoders.has_weights(each.run) for each in seen)
    return Estimate(
        trainings=len(seen),
        trained=trained,
        banks=sum(each.pieces for each in seen),
        embedded=sum(each.pieces - len(each.missing) for each in seen),
        cells=len(runner.plan.cells),
        done=sum(each.done for each in seen),
        seconds=_seconds(runner, seen),
        bytes=sum(_bytes(pipeline, each) for each in seen if each.todo),
    )


@dataclass(frozen=True)
class _Seen:
    """One training of a study and what is missing after it."""

    run: Run
    done: int
    todo: list[Cell]
    pieces: int
    missing: list[Piece]


def _seen(runner: Runner, work: Work, known: Known) -> _Seen:
    run, pipeline = work.run, runner.pipeline
    todo = runner.pending(work, known).cells
    pieces = pipeline.banks.pieces(run, work.ways)
    missing = [
        piece for piece in pieces if not pipeline.store.has("bank", digest(pipeline.banks.bank_fields(run, piece)))
    ]
    return _Seen(run, len(work.cells) - len(todo), todo, len(pieces), missing)


def _seconds(runner: Runner, seen: list[_Seen]) -> float | None:
    spent = runner.results.read()["score_seconds"].dropna()
    per_row = float(spent.mean()) if len(spent) else ROW_SECONDS
    rates: dict[tuple[str, str], float] = {}
    total = 0.0
    for each in seen:
        if not each.todo:
            continue
        kind = (each.run.training.label, each.run.encoder.label)
        views = (
            0
            if runner.pipeline.encoders.has_weights(each.run)
            else _step_views(each.run) * _steps(runner.pipeline, each.run)
        )
        turns = len(TURNS) if has_shifted(each.run.training) else 1
        embedded = sum(
            turns * len(runner.pipeline.banks.images(each.run, piece)) * piece.views for piece in each.missing
        )
        if kind not in rates and views + embedded:
            try:
                rates[kind] = _measured(runner.pipeline, each.run)
            except Exception as error:  # noqa: BLE001 - a plan tells what it can; the run's rows will say what failed
                runner.watch.warn(f"a step of {each.run.title} cannot be measured: {type(error).__name__}: {error}")
                return None
        total += rates.get(kind, 0.0) * (views + FORWARD * embedded) + per_row * len(each.todo) * len(each.run.sets)
    return total


def _steps(pipeline: Pipeline, run: Run) -> int:
    return run.recipe.epochs * batches.steps_per_epoch(run.recipe, len(pipeline.encoders.split(run)[0]))


def _step_views(run: Run) -> int:
    """Return how many images pass the network in one step."""
    recipe, training = run.recipe, run.training
    outliers = recipe.batch * len(training.shifts.outlier) or (run.outliers and (recipe.outlier_batch or recipe.batch))
    return training.views * (recipe.batch * len(training.shifts.id) + (outliers or 0))


def _measured(pipeline: Pipeline, run: Run) -> float:
    """Return the seconds that one view takes in a step of a training, from two steps on random images."""
    classes = len(pipeline.library.prepared(run.id, "train").classes)
    shape = (2 * BATCH, run.image.channels, run.image.size, run.image.size)
    x = torch.randint(256, shape, dtype=torch.uint8, device=pipeline.device)
    data = batches.TrainingData(x, torch.arange(len(x), device=pipeline.device) % classes, classes, x)
    recipe = dataclasses.replace(
        run.recipe, epochs=1, batch=BATCH, accumulate=1, compile=False, outlier_batch=None, augment=PLAIN
    )
    small = dataclasses.replace(run, recipe=recipe, training=resolved(run.training, classes))
    precision = pipeline.encoders.precision(run)
    model = networks.untrained(small.training, run.encoder, recipe, run.image, data, run.seed, precision)
    if run.training.weights is not None:  # nothing to optimise
        return _timed(lambda: embed.features(model, x)) / (FORWARD * len(x))
    seconds = _timed(lambda: train.train(model, small.training, recipe, precision, data, run.seed))
    return seconds / (2 * _step_views(small))


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds that work takes the second time: the first warms up."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bytes(pipeline: Pipeline, seen: _Seen) -> int:
    run = seen.run
    classes = len(pipeline.library.prepared(run.id, "train").classes)
    with torch.device("meta"):
        network = networks.build(run.encoder, run.training.heads, run.image, classes)
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    heads = sum(networks.head_dim(form, classes) for form in run.training.heads.values())
    width = networks.feature_dim(run.encoder, run.image) + heads
    if has_shifted(run.training):
        width += embed.shifted_dim(run.training, classes)
    features = sum(4 * width * piece.views * len(pipeline.banks.images(run, piece)) for piece in seen.missing)
    return features + (0 if pipeline.encoders.has_weights(run) else weights * (1 + len(pipeline.encoders.kept(run))))
