"""A study on a cluster: run it, plan its jobs, end them; and what a job runs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from oodbench.cli import arguments, progress, screen
from oodbench.cli.arguments import Device, DryData, Memory, StudyFile, Without
from oodbench.cli.reference import completion
from oodbench.errors import UserError, suggestion

if TYPE_CHECKING:
    from oodbench.engines.cluster import Cluster
    from oodbench.engines.driver import Driver
    from oodbench.engines.seam import Engine
    from oodbench.engines.unit import Measured
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Outcome, Runner
    from oodbench.store.memo import Watch
    from oodbench.study.settings import Precision
    from oodbench.study.study import Study

Stage = Annotated[
    str,
    typer.Option(
        help="measure, train, score, or all on one machine.",
        autocompletion=completion.of("measure", "train", "score", "all"),
    ),
]
Runs = Annotated[list[str] | None, typer.Argument(help="Names of trainings; none: all.", show_default=False)]
Kind = Annotated[str, typer.Option(help="Of nodes: what is measured is kept under it.")]
Auto = Annotated[str, typer.Option("--precision", help="What `precision: auto` is.", show_default=False)]
Redo = Annotated[str, typer.Option(help="Make again: failed rows.", show_default=False)]
To = Annotated[
    Path | None,
    typer.Option(help="Folder that gets a copy of the rows of `--stage all`, for oodbench merge.", show_default=False),
]
PRECISIONS = ("float32", "bf16", "float64")


def unit(
    study: StudyFile,
    runs: Runs = None,
    stage: Stage = "train",
    kind: Kind = "here",
    precision: Auto = "",
    device: Device = "auto",
    memory: Memory = "2GB",
    redo: Redo = "",
    checkpoint_minutes: Annotated[float, typer.Option(help="Between two checkpoints of a training.", min=0)] = 5.0,
    checkpoint_epochs: Annotated[int | None, typer.Option(help="The same in epochs.", min=1)] = None,
    graph: Annotated[bool, typer.Option(help="On a CUDA device, launch passes as one graph each.")] = True,
    dry_data: DryData = False,
    without_missing_sets: Without = False,
    to: To = None,
) -> None:
    """Do one part of a study: what a job on a cluster runs."""
    if redo not in ("", "failed"):
        raise UserError(f"--redo {redo}: on a cluster only error rows are made again; allowed: failed")
    if precision not in ("", *PRECISIONS):
        raise UserError(f"--precision {precision}: there is none of that name{suggestion(precision, PRECISIONS)}")
    loaded = arguments.made(study, dry_data)
    from oodbench.data.missing_sets import hinted
    from oodbench.engines import returned
    from oodbench.engines import unit as units
    from oodbench.execution.pipeline import Options

    if stage not in units.STAGES:
        raise UserError(f"--stage {stage}: there is no such stage{suggestion(stage, units.STAGES)}")
    if to and stage not in (units.MEASURE, units.ALL):
        raise UserError(f"--to is of --stage {units.ALL}; what --stage {stage} makes stays in the store")
    checkpoints = (checkpoint_minutes, checkpoint_epochs)
    auto: Precision | None = precision or None  # type: ignore[assignment]
    room = arguments.number_of_bytes(memory)
    with progress.board(screen.err) as board, hinted(loaded), units.asked() as asked:
        cached = stage == units.SCORE
        options = Options(device, redo, cached, room, *checkpoints, graph, without_missing_sets, auto=auto, asked=asked)
        runner = units.runner_of(loaded, runs or [], options, board)
        if stage == units.MEASURE:
            found = units.measure(runner, kind)
            screen.say(f"measured on {found.where}; precision: auto is {found.precision}")
        elif stage == units.TRAIN:
            units.train(runner)
        elif stage == units.ALL:
            units.everything(runner)
        else:
            screen.say(f"{units.score(runner)} cells scored")
        if to:
            returned.send(runner, to, kind if stage == units.MEASURE else "")


def cancel(study: StudyFile, dry_data: DryData = False) -> None:
    """End the jobs of a study on its cluster; what is finished is kept."""
    from oodbench.study import reader
    from oodbench.study.study import DRY

    results = reader.results_of(study)
    engines = list(_engines(results.with_name(results.name + DRY) if dry_data else results))
    if not engines:
        screen.say(f"no job of {study} was given to a cluster")
    for name, given in engines:
        with given as engine:
            screen.say(f"{engine.cancel()} jobs ended on {name}")


def say_jobs(results: Path) -> None:
    """Say of each engine to which jobs of a study were given what they are at."""
    for name, given in _engines(results):
        with given as engine:
            states = Counter(engine.alive().values())
        doing = ", ".join(f"{count} {state}" for state, count in states.most_common())
        screen.say(f"jobs on {name}: {doing or 'none runs or waits'}")


def _engines(results: Path) -> Iterator[tuple[str, AbstractContextManager[Engine]]]:
    """Yield the engines, by name, to which jobs of a study were given that are not known to have ended."""
    from oodbench.engines import cluster as clusters
    from oodbench.engines.seam import Ledger

    given = {(each.by, each.address) for each in Ledger(results).read().values()}
    for by, address in sorted(given):
        cluster = clusters.load(None, {"on": by, "address": address, "shared": True})
        yield by, clusters.engine(cluster, results.name, results)


def words(options: Options, dry_data: bool, auto: str, gpus: int | str) -> list[str]:
    """Return the options of a unit that does its part as a run with these options would, on so many cards."""
    found = ["--memory", str(options.memory), "--checkpoint-minutes", str(options.checkpoint_minutes)]
    found += ["--checkpoint-epochs", str(options.checkpoint_epochs)] if options.checkpoint_epochs else []
    found += [] if options.graph else ["--no-graph"]
    found += ["--dry-data"] if dry_data else []
    found += ["--without-missing-sets"] if options.without_missing_sets else []
    found += ["--redo", options.redo] if options.redo else []
    found += ["--precision", auto] if auto else []
    return [*found, "--device", options.device if gpus else "cpu"]


def check(options: Options, study: Study) -> None:
    """Refuse what a run on a cluster cannot do."""
    if options.redo not in ("", "failed"):
        raise UserError(f"--redo {options.redo} is for one process: jobs could not tell what is old from what is new")
    if options.cached_only:
        raise UserError("--cached-only trains nothing; without --on it scores what is trained on this machine")
    if study.settings.variance:
        screen.warn("variance: machine: compares two runs on one CPU, and this one is on a cluster")


@contextmanager
def driving(loaded: Study, options: Options, cluster: Cluster, dry_data: bool, watch: Watch) -> Iterator[Driver]:
    """Give what runs a study on a cluster, which is measured there first where anything depends on it."""
    from oodbench.engines import unit
    from oodbench.engines.asks import Asks
    from oodbench.engines.driver import Driver
    from oodbench.execution.runner import Runner

    check(options, loaded)
    known = _measured(loaded, options, cluster, dry_data, watch)
    here = dataclasses.replace(options, device="cpu", auto=known.precision if known else None)
    runner = Runner(loaded, here, watch)
    runner.begin()
    auto = known.precision if known and "auto" in loaded.precisions else ""
    gpus = {unit.TRAIN: cluster.train.gpus, unit.SCORE: cluster.score.gpus, unit.ALL: cluster.train.gpus}

    def of(stage: str) -> list[str]:
        return words(options, dry_data, auto, gpus[stage])

    with _engine(cluster, loaded) as engine:
        yield Driver(runner, engine, Asks(runner, cluster, known), of, screen.say)


def _engine(cluster: Cluster, loaded: Study) -> AbstractContextManager[Engine]:
    """Return the engine of a cluster, with the files of a study where these have to travel."""
    from oodbench.engines import cluster as clusters
    from oodbench.engines.travelling import Luggage

    files = b"" if cluster.shared else Luggage(loaded).packed()
    return clusters.engine(cluster, loaded.name, loaded.results, files)


def _measured(loaded: Study, options: Options, cluster: Cluster, dry_data: bool, watch: Watch) -> Measured | None:
    """Return what was measured of a study on a cluster, by a job there where that is not known."""
    from oodbench.engines import asks, unit
    from oodbench.engines import cluster as clusters
    from oodbench.engines.driver import measure, measuring
    from oodbench.engines.seam import Needs
    from oodbench.execution import estimate
    from oodbench.execution.runner import Runner
    from oodbench.report.tables import counted

    if "auto" not in loaded.precisions and cluster.train.time != clusters.AUTO:
        return None
    runs = [work.run for work in Runner(loaded, dataclasses.replace(options, device="cpu"), watch).plan.work]
    kinds, known = {estimate.kind_of(run) for run in runs}, unit.measured(loaded.results, cluster.kind)
    if known and kinds <= known.rates.keys():
        return known
    most = max((asks.cards(cluster.train, run) for run in runs), default=0)
    memory = asks.MEASURING if cluster.train.memory == clusters.AUTO else clusters.number_of_bytes(cluster.train.memory)
    needs = Needs(gpus=min(1, most), cpus=cluster.train.cpus, memory=memory, seconds=1800)
    count = counted(len(kinds), "kind")
    screen.say(f"one job measures a step of {count} of training, and what `precision: auto` is there")
    said = words(options, dry_data, "", needs.gpus)
    with _engine(cluster, loaded) as engine:
        measure(engine, measuring(needs, str(loaded.file.resolve()), cluster.kind, said), loaded.results)
    return unit.measured(loaded.results, cluster.kind)


def run(loaded: Study, options: Options, cluster: Cluster, dry_data: bool, wait: bool) -> tuple[Runner, Outcome | None]:
    """Run a study on a cluster; without an outcome where nobody waits for it."""
    from oodbench.data.missing_sets import hinted
    from oodbench.execution.runner import Outcome

    board = progress.board(screen.err)
    with board, hinted(loaded), driving(loaded, options, cluster, dry_data, board) as made:
        runner, before = made.runner, made.runner.results.current()["cell"].nunique()
        try:
            waiting = made.submit()
            if not wait:
                return runner, None
            made.attend(waiting)
        except KeyboardInterrupt:
            screen.say(f"the jobs go on; the same command joins them, oodbench cancel {loaded.file} ends them")
            raise
    rows = runner.results.current()
    failed = int((rows["status"] == "error").sum())
    return runner, Outcome(rows, rows["cell"].nunique() - before, failed, 0, made.trained, len(runner.unkept()))


def plan(loaded: Study, options: Options, cluster: Cluster, dry_data: bool) -> None:
    """Print the jobs that a study would be on a cluster, and what they ask for."""
    from oodbench.engines.travelling import Luggage

    with progress.board(screen.err) as board, driving(loaded, options, cluster, dry_data, board) as made:
        _, tasks = made.tasks(made.missing())
    table = screen.columns("jobs", "stage", "GPUs", "cores", "memory", "time limit", "trainings")
    kinds = {
        (task.stage, task.needs): [each for each in tasks if (each.stage, each.needs) == (task.stage, task.needs)]
        for task in tasks
    }
    for (stage, needs), members in kinds.items():
        runs = len({run for each in members for run in each.runs})
        asked = (needs.gpus, needs.cpus, decimal(needs.memory), screen.duration(needs.seconds), runs)
        table.add_row(str(len(members)), stage, *map(str, asked))
    screen.out.print(table)
    measured = made.asks.measured
    if measured:
        takes = sum(made.asks.seconds(work) for work in made.missing())
        screen.say(f"training and embedding: about {screen.duration(takes)} in all, as measured on {measured.where}")
    if not cluster.shared:
        screen.say(Luggage(loaded).said)
