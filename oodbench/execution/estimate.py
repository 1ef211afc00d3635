"""What a study will cost: time from a few measured steps and probes on this device, disk from sizes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from oodbench.execution.pipeline import Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.artifacts import digest
from oodbench.study.grid import TURNS, Run, Work, has_shifted, resolved
from oodbench.study.settings import Augment
from oodbench.training import batches, embed, graphs, networks, probes, train
from oodbench.training.banks import Piece

BATCH = 64  # images of a measured step, or a quarter of them
QUICK = 1.0  # seconds in which the quarter is done, where the whole is measured, too
FORWARD = 1 / 3  # the share of a step that embedding takes: no backward pass
LONGER = 3  # epochs by which a training with graphs is longer, to tell its steps from its beginning
STEPS = 20  # of such an epoch, for which its images are at most so many bytes
IMAGES = 1 << 28
ITERATIONS = 5  # of a measured linear probe
FITTED = 5_000  # items that it is fitted to
SOUGHT = 200  # items whose neighbours a measured probe looks for
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
    device: int | None = None  # bytes of training features in one space, which a CUDA device holds to score them


def counted(runner: Runner) -> Estimate:
    """Return what a study consists of, where its data is not here to tell what of it is there."""
    work = runner.plan.work
    banks = sum(len(runner.pipeline.banks.pieces(each.run, each.ways)) for each in work)
    return Estimate(len(work), None, banks, None, len(runner.plan.cells), None, None, None)


def estimate(runner: Runner) -> Estimate:
    """Return the cost of what a study misses. Prepares data that is not prepared; reads no other artifact."""
    pipeline = runner.pipeline
    missing = [_missing(runner, work) for work in runner.plan.work]
    all_ = counted(runner)
    return dataclasses.replace(
        all_,
        trained=sum(pipeline.encoders.has_weights(each.run) for each in missing),
        embedded=all_.banks - sum(len(each.pieces) for each in missing),
        done=all_.cells - sum(each.cells for each in missing),
        seconds=_seconds(runner, [each for each in missing if each.cells]),
        bytes=sum(_bytes(pipeline, each) for each in missing if each.cells),
        device=max((_fit_bytes(pipeline, each.run) for each in missing if each.cells), default=0),
    )


class _Missing(NamedTuple):
    """What is missing of one training of a study."""

    run: Run
    cells: int
    pieces: list[Piece]


def unembedded(pipeline: Pipeline, work: Work) -> list[Piece]:
    """Return the pieces of a training whose features are not in the store."""
    banks = pipeline.banks
    pieces = banks.pieces(work.run, work.ways)
    return [each for each in pieces if not pipeline.store.has("bank", digest(banks.bank_fields(work.run, each)))]


def _missing(runner: Runner, work: Work) -> _Missing:
    pieces = unembedded(runner.pipeline, work)
    pending = runner.bookkeeping.pending(runner.source(work))
    return _Missing(work.run, len({each.cell for each in pending}), pieces)


def _seconds(runner: Runner, missing: list[_Missing]) -> float | None:
    pipeline, spent = runner.pipeline, runner.results.read(["score_seconds"])["score_seconds"].dropna()
    per_row = float(spent.mean()) if len(spent) else ROW_SECONDS
    rates: dict[str, float] = {}
    probing: dict[_Probes, float] = {}
    total = 0.0
    for run, cells, pieces in missing:
        kind, passed = kind_of(run), views(pipeline, run, pieces)
        if kind not in rates and passed:
            try:
                rates[kind] = rate(pipeline, run)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a plan tells what it can; the run's rows will say what failed
                runner.watch.warn(f"a step of {run.title} cannot be measured: {type(error).__name__}: {error}")
                return None
        total += rates.get(kind, 0.0) * passed + per_row * cells * len(run.sets)
        if lacking := _probes(pipeline, run):
            if lacking not in probing:
                probing[lacking] = _probing(lacking, pipeline.device)
            total += probing[lacking]
    return total


class _Probes(NamedTuple):
    """What the probes of a training are fitted on and asked about: those alike take as long as each other's."""

    items: int
    tested: int
    dim: int
    classes: int


def _probes(pipeline: Pipeline, run: Run) -> _Probes | None:
    """Return what is to be probed of a run; None where that is there, or where there is one class."""
    train, test = (pipeline.library.prepared(run.id, split) for split in ("train", "test"))
    if len(train.classes) < 2 or pipeline.store.has("probe", digest(pipeline.banks.probe_fields(run))):
        return None
    dim = pipeline.encoders.feature_dim(run)
    return _Probes(len(pipeline.encoders.split(run)[0]), len(test.y), dim, len(train.classes))


def _probing(given: _Probes, device: torch.device) -> float:
    """Return the seconds that probes take, from some iterations on a few random items."""
    h = torch.randn(min(given.items, max(FITTED, 2 * given.classes)), given.dim)
    y = torch.arange(len(h)) % given.classes
    few, known = {"penultimate": h[:SOUGHT]}, y[:SOUGHT]
    probe = probes.linear(h, y, 1)
    fit = _timed(lambda: probes.linear(h, y, ITERATIONS, device)) / ITERATIONS
    seek = _timed(lambda: probes.accuracies(probe, {"penultimate": h}, y, few, known, device)) / len(known)
    return (fit * probes.ITERATIONS + seek * given.tested) * given.items / len(h)


def kind_of(run: Run) -> str:
    """Return what trainings share whose steps take as long as each other's.

    A fraction, such as a temperature or a rate, costs nothing; 0, which may leave something out, is told apart.
    """
    training = run.training
    costs = {name: bool(value) if isinstance(value, float) else value for name, value in training.params.items()}
    given = [training.name, costs, training.heads, training.views, str(training.shifts), bool(run.outliers)]
    return digest([given, dataclasses.asdict(run.encoder), run.image.canonical, run.recipe.batch, run.precision])


def views(pipeline: Pipeline, run: Run, pieces: list[Piece]) -> float:
    """Return how many views pass the network until a run is trained, if it is not, and these pieces are embedded."""
    turns = len(TURNS) if has_shifted(run.training) else 1
    passed = FORWARD * sum(turns * len(pipeline.banks.images(run, piece)) * piece.views for piece in pieces)
    return passed + (0 if pipeline.encoders.has_weights(run) else _step_views(run) * _steps(pipeline, run))


def _steps(pipeline: Pipeline, run: Run) -> int:
    return run.recipe.epochs * batches.steps_per_epoch(run.recipe, len(pipeline.encoders.split(run)[0]))


def _step_views(run: Run) -> int:
    """Return how many images pass the network in one step."""
    recipe, training = run.recipe, run.training
    outliers = recipe.batch * len(training.shifts.outlier) or (run.outliers and (recipe.outlier_batch or recipe.batch))
    return training.views * (recipe.batch * len(training.shifts.id) + (outliers or 0))


def rate(pipeline: Pipeline, run: Run) -> float:
    """Return the seconds that one view takes in a step of a training, from a few steps on random images.

    Steps are of the recipe's own batch on a CUDA device, where that decides the rate, and small ones on a CPU: the
    larger of two sizes where the smaller is quick.
    """
    if pipeline.device.type == "cuda" and run.recipe.devices == 1:
        return _rate(pipeline, run, run.recipe.batch)
    start = time.perf_counter()
    found = [_rate(pipeline, run, BATCH // 4)]
    if time.perf_counter() - start < QUICK:
        found.append(_rate(pipeline, run, BATCH))
    return found[-1]


def _rate(pipeline: Pipeline, run: Run, batch: int) -> float:
    """Return the seconds a view of steps of a batch."""
    classes = len(pipeline.library.prepared(run.id, "train").classes)
    steps = -(-2 * max(batch, classes) // batch)
    image = run.image.channels, run.image.size, run.image.size
    graph = pipeline.options.graph and graphs.wanted(run.recipe, run.encoder, pipeline.device)
    if graph:  # so that what begins and ends an epoch is as little of it as in the run
        steps = max(steps, min(STEPS, IMAGES // (batch * math.prod(image))))
    x = torch.randint(256, (steps * batch, *image), dtype=torch.uint8, device=pipeline.device)
    world = graphs.Card(pipeline.watch.warn) if graph else batches.ALONE
    data = batches.TrainingData(x, torch.arange(len(x), device=pipeline.device) % classes, classes, x, world)
    recipe = dataclasses.replace(
        run.recipe, epochs=1, batch=batch, accumulate=1, compile=False, outlier_batch=None, augment=PLAIN
    )
    small = dataclasses.replace(run, recipe=recipe, training=resolved(run.training, classes))
    precision = pipeline.encoders.precision(run)
    model = networks.untrained(small.training, run.encoder, recipe, run.image, data, run.seed, precision)
    if run.training.weights is not None:  # nothing to optimise
        return _timed(lambda: embed.features(model, x)) / (FORWARD * len(x))

    def seconds(epochs: int) -> float:
        longer = dataclasses.replace(recipe, epochs=epochs)
        found = _timed(lambda: train.train(model, small.training, longer, precision, data, run.seed))
        data.world.release()
        return found

    views = steps * _step_views(small)
    if isinstance(data.world, graphs.Card):  # each training captures its graph first
        whole = seconds(1 + LONGER)
        steps_alone = (whole - seconds(1)) / LONGER
        return (steps_alone if steps_alone > 0 else whole / (1 + LONGER)) / views
    return seconds(1) / views


def _timed(work: Callable[[], object]) -> float:
    """Return the seconds that work takes the second time: the first warms up. What a device still does counts."""
    work()
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _fit_bytes(pipeline: Pipeline, run: Run) -> int:
    return 4 * pipeline.encoders.feature_dim(run) * len(pipeline.encoders.split(run)[0])


def _bytes(pipeline: Pipeline, missing: _Missing) -> int:
    run, weights = missing.run, pipeline.encoders.weights_bytes(missing.run)
    made = 0 if pipeline.encoders.has_weights(run) else weights * (1 + len(pipeline.encoders.kept(run)))
    return made + features_bytes(pipeline, run, missing.pieces)


def features_bytes(pipeline: Pipeline, run: Run, pieces: list[Piece]) -> int:
    """Return the bytes of the features of pieces, on every layer."""
    classes = len(pipeline.library.prepared(run.id, "train").classes)
    heads = sum(networks.head_dim(form, classes) for form in run.training.heads.values())
    width = pipeline.encoders.feature_dim(run) + heads
    if has_shifted(run.training):
        width += embed.shifted_dim(run.training, classes)
    return sum(4 * width * piece.views * len(pipeline.banks.images(run, piece)) for piece in pieces)
