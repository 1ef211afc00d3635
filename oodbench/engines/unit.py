"""A unit: what a job does of a study. It knows its own trainings, the store and the folder of results, nothing else."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM, SIGUSR2

from pydantic import BaseModel, ValidationError

from oodbench.engines.seam import JOBS
from oodbench.errors import UserError, suggestion
from oodbench.execution import estimate
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store.files import write_whole
from oodbench.store.memo import Watch
from oodbench.store.provenance import machine
from oodbench.study.grid import Run, Work
from oodbench.study.settings import Precision
from oodbench.study.study import Study
from oodbench.training.checkpoints import Asked

MEASURE, TRAIN, SCORE, ALL = STAGES = ("measure", "train", "score", "all")


class Measured(BaseModel):
    """What a job found out on a node."""

    precision: Precision  # that `precision: auto` is there
    where: str  # device and machine
    rates: dict[str, float]  # seconds that a view takes in a step, by estimate.kind_of


def measured(results: Path, kind: str) -> Measured | None:
    """Return what was measured on nodes of a kind, or None."""
    try:
        return Measured.model_validate_json(measured_file(results, kind).read_bytes())
    except (FileNotFoundError, ValidationError):  # it is measured anew
        return None


def measured_file(results: Path, kind: str) -> Path:
    """Return where it is kept."""
    return results / JOBS / f"measured-{kind}.json"


@contextmanager
def asked() -> Iterator[Asked]:
    """Hear meanwhile what a cluster asks of a job before it ends it.

    SIGTERM asks for a checkpoint, after which the work goes on until the process is killed. SIGUSR2 asks for one that
    ends the work, by KeyboardInterrupt: at once where nothing is trained.
    """
    found = Asked()

    def on_term(*_: object) -> None:
        found.now = True

    def on_usr2(*_: object) -> None:
        found.now = True
        if not found.to_end:  # the second time it is ending already
            found.to_end = True
            if not found.at_work:
                raise KeyboardInterrupt

    before = {each: signal.signal(each, how) for each, how in ((SIGTERM, on_term), (SIGUSR2, on_usr2))}
    try:
        yield found
    finally:
        for each, how in before.items():
            signal.signal(each, how)


def runner_of(study: Study, runs: Sequence[str], options: Options, watch: Watch) -> Runner:
    """Return the runner of some trainings of a study, by Run.named; of none, of all. No other is planned."""
    if not runs:
        return Runner(study, options, watch)
    found = Runner(dataclasses.replace(study, runs=frozenset(runs)), options, watch)
    if lost := set(runs) - {work.run.named for work in found.plan.work}:
        every = [work.run.named for work in Runner(study, options, watch).plan.work]
        raise UserError(f"{study.file} has no training {min(lost)}{suggestion(min(lost), every)}")
    return found


def measure(runner: Runner, kind: str) -> Measured:
    """Prepare and check a study on this node, measure a step of each kind of training, and keep that."""
    runner.checks.check()
    runner.begin_part()
    pipeline, works = runner.pipeline, runner.plan.work
    kinds = {estimate.kind_of(work.run): work.run for work in works}
    auto = next((each.run for each in works if each.run.precision == "auto"), works[0].run)
    found = Measured(
        precision=pipeline.encoders.precision(auto),
        where=", ".join(machine(str(pipeline.device)).values()),
        rates={kind: _rate(runner, run) for kind, run in kinds.items()},
    )
    write_whole(measured_file(runner.study.results, kind), found.model_dump_json(indent=1).encode())
    return found


def _rate(runner: Runner, run: Run) -> float:
    """Return the seconds of a view; 0 where it cannot be measured, which the training's own rows will explain."""
    try:
        return estimate.rate(runner.pipeline, run)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's
        runner.watch.warn(f"a step of {run.title} cannot be measured: {type(error).__name__}: {error}")
        return 0.0


def train(runner: Runner) -> None:
    """Train and embed encoders, and fit their probes, where any of their rows is pending; what fails is error rows."""
    runner.begin_part()
    runner.watch.planned(len(runner.plan.work), len(runner.plan.cells), 0)
    with runner.watch.beating():
        for work in runner.plan.work:
            _train(runner, work)


def _train(runner: Runner, work: Work) -> None:
    source, books = runner.source(work), runner.bookkeeping
    with source.lock(wait=True):
        wanted = books.pending(source)
        if wanted and isinstance(why := books.embedded(source, [each.detector for each in wanted]), str):
            books.fail(source, why)


def score(runner: Runner) -> int:
    """Score trained encoders and return how many cells were scored; one that is not trained is left as it is."""
    runner.begin_part()
    with runner.watch.beating():
        return runner.bookkeeping.run([runner.source(work) for work in runner.plan.work]).scored


def everything(runner: Runner) -> None:
    """Prepare, train, embed and score on this machine alone where any row is pending; what fails is error rows."""
    runner.checks.check()
    runner.begin_part()
    books, sources = runner.bookkeeping, [runner.source(work) for work in runner.plan.work]
    runner.watch.planned(len(sources), len(runner.plan.cells), 0)
    with runner.watch.beating():
        for source in sources:
            with source.lock(wait=True):
                if wanted := books.pending(source):
                    books.make(source, wanted)
