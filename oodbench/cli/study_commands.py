"""Commands on a whole study: run it, prepare its data, plan it, audit its images."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.filesize import decimal
from rich.table import Table as RichTable

from oodbench.cli import arguments, progress, screen, tables
from oodbench.cli.arguments import Device, DryData, Memory, Only, Set, StudyFile, Top, Without, Workers
from oodbench.cli.cluster import flags
from oodbench.cli.reference import completion
from oodbench.errors import UserError
from oodbench.store.columns import COLUMNS
from oodbench.store.memo import REDO, Warnings
from oodbench.store.process import seldom_collected

if TYPE_CHECKING:
    from oodbench.data.missing_sets import MissingSet
    from oodbench.data.needs import Need, Supply
    from oodbench.engines.cluster import Cluster
    from oodbench.execution.estimate import Estimate
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Outcome, Runner
    from oodbench.study.document import Changed
    from oodbench.study.grid import Run, Work
    from oodbench.study.study import Study

Redo = Annotated[
    str,
    typer.Option(
        help="Make again: train, bank or score with what follows, or failed rows.", autocompletion=completion.of(*REDO)
    ),
]
CachedOnly = Annotated[bool, typer.Option("--cached-only", help="Train nothing; score what is trained.")]
CheckpointMinutes = Annotated[float, typer.Option(help="Between two checkpoints of a training.", min=0)]
CheckpointEpochs = Annotated[
    int | None, typer.Option(help="The same in epochs, beside the minutes.", min=1, show_default=False)
]
RowsOnly = Annotated[bool, typer.Option("--rows-only", help="Write and print no tables.")]
Graph = Annotated[bool, typer.Option(help="On a CUDA device, launch an encoder's passes as one graph each.")]
UntilDecided = Annotated[
    bool, typer.Option("--until-decided", help="Add seeds to the sides of open claims until they are decided.")
]
Budget = Annotated[str, typer.Option(help="The time of --until-decided, such as 30min or 8h.", show_default=False)]
Offline = Annotated[
    bool, typer.Option("--offline", help="Download nothing; OODBENCH_OFFLINE=1 says so to every command.")
]
SayOnly = Annotated[bool, typer.Option("--dry-run", help="Say what is there and what is not, do nothing.")]


def run(
    study: StudyFile,
    device: Device = "auto",
    only: Only = None,
    set_: Set = None,
    redo: Redo = "",
    cached_only: CachedOnly = False,
    top: Top = 20,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    checkpoint_epochs: CheckpointEpochs = None,
    workers: Workers = arguments.CARDS,
    rows_only: RowsOnly = False,
    memory: Memory = "2GB",
    graph: Graph = True,
    dry_data: DryData = False,
    without_missing_sets: Without = False,
    until_decided: UntilDecided = False,
    budget: Budget = "",
    on: flags.On = "",
    cluster: flags.ClusterFile = None,
    partition: flags.Partition = "",
    time_limit: flags.Time = "",
    at_most: flags.AtMost = None,
    address: flags.Address = "",
    shared: flags.Shared = None,
    no_wait: flags.NoWait = False,
) -> None:
    """Run a study: make every row that is missing, write its tables, print its leaderboard."""
    said = {"partition": partition, "time": time_limit, "at_most": at_most, "address": address, "shared": shared}
    where = flags.cluster(cluster, on=on, **said)
    _check(redo, cached_only, until_decided, budget, workers, no_wait and not where, only)
    flags.check_whole(where, only, set_, until_decided)
    end, room = time.monotonic() + arguments.seconds(budget), arguments.number_of_bytes(memory)
    source = arguments.changed(study, set_)
    loaded = arguments.made(source, dry_data)  # first: what is wrong with it is said before torch is there
    _check_decidable(source, loaded, until_decided)
    from oodbench.execution.pipeline import Options

    place, checkpoints = Workplace(workers, where, not no_wait), (checkpoint_minutes, checkpoint_epochs)
    options = Options(device, redo, cached_only, room, *checkpoints, graph, without_missing_sets, tuple(only or ()))
    columns = COLUMNS if until_decided or loaded.settings.variance else tables.columns(None if rows_only else source)
    made = _make(loaded, options, place, dry_data, columns)
    while until_decided and made and not made.died and _more_seeds(made, end - time.monotonic()):
        made = _make(loaded, options, place, dry_data, columns)
    if made is not None:
        if not rows_only:
            tables.write(source, made.runner.study.results, made.outcome.rows, top)
        if loaded.settings.variance and not rows_only and where is None:
            _vary(made, _words(loaded, options, dry_data))
        _say_done(source, made)


def _check(
    redo: str, cached_only: bool, until_decided: bool, budget: str, workers: str, alone: bool, only: list[str] | None
) -> None:
    """Refuse what does not go together, before anything is imported for it."""
    arguments.check_workers(workers)
    arguments.check_stage(redo, *REDO)
    if until_decided and (redo or cached_only or only):
        other = "--redo" if redo else "--cached-only" if cached_only else "--only"
        raise UserError(f"--until-decided trains what is missing; {other} does something else: drop one")
    if budget and not until_decided:
        raise UserError("--budget is the time of --until-decided; give both")
    if alone:
        raise UserError("--no-wait is of a run on a cluster; say which with --on slurm, --on dask or --cluster FILE")


def _check_decidable(source: Path | Changed, loaded: Study, until_decided: bool) -> None:
    """Refuse to decide claims of a study that has none."""
    if until_decided and not loaded.claims:
        raise UserError(f"{source} declares no claims that could be decided; say what holds with the key 'claims'")


class Workplace(NamedTuple):
    """Where a study runs: in processes here, or on a cluster, for which somebody waits or not."""

    workers: str
    cluster: Cluster | None = None
    wait: bool = True


class Ran(NamedTuple):
    """What a run has made, with how many other processes, and how those of them ended that died."""

    runner: Runner
    outcome: Outcome
    others: int
    died: list[str]


def _make(loaded: Study, options: Options, place: Workplace, dry_data: bool, columns: Iterable[str]) -> Ran | None:
    """Make the rows that are missing; the outcome's have these columns. None where nobody waits for them."""
    if place.cluster is not None:
        from oodbench.cli.cluster import commands

        runner, outcome = commands.run(loaded, options, place.cluster, dry_data, place.wait)
        return Ran(runner, outcome, 0, []) if outcome else None
    from oodbench.cli import workers as processes
    from oodbench.data.missing_sets import hinted
    from oodbench.execution.runner import Runner
    from oodbench.store.provenance import machine

    with progress.board(screen.err) as board, hinted(loaded):
        runner = Runner(loaded, options, board)
        if (found := runner.finished(columns)) is not None:
            return Ran(runner, found, 0, [])
        each = max((work.run.recipe.devices for work in runner.plan.work), default=1)
        wanted = processes.count(place.workers, runner.pipeline.device, each)
        others = min(wanted, max(1, len(runner.plan.work))) - 1
        if others and options.redo and place.workers == arguments.CARDS:
            others = 0
        if others and options.redo:
            raise UserError("--redo is for one process: others could not tell what is old from what is made again")
        words, cards = _words(loaded, options, dry_data), processes.cards(runner.pipeline.device, each)
        with processes.helped(words, others, board.hear, cards) as died:
            board.workers = others + 1
            board.where = f"on {', '.join(machine(str(runner.pipeline.device)).values())}; {_precision(runner)}"
            outcome = runner.run(columns)
        return Ran(runner, outcome, others, died)


def _more_seeds(made: Ran, left: float) -> bool:
    """Add seeds to the sides of the undecided claim that costs least; where none is added, say why, and return False.

    A claim gets as many as would decide it, but no more than it has, so that it is looked at a few times. Every
    undecided claim that the seeds tell something of is looked at again, whichever they were added for; `left` is the
    time that there is, in seconds.
    """
    from oodbench.report import unmade
    from oodbench.report.claims import images, sides, verdicts
    from oodbench.report.claims.estimates import LEAST
    from oodbench.report.tables import counted
    from oodbench.store.rows import Added

    runner, rows = made.runner, unmade.declared(made.outcome.rows)
    added = runner.results.added()
    looks = {name: max(1, added.looks.get(name, 0)) for name in runner.study.claims}
    errors = images.ImageErrors(runner.pipeline.store, runner.results.image_errors())
    file, clusters = str(runner.study.file), runner.results.clusters()
    found = verdicts.verdicts(rows, runner.study.claims, clusters, file, looks, errors)
    steps: list[tuple[float, str, int, list[Run]]] = []
    said = [f"decided: {sum(each.state in verdicts.DECIDED for each in found)} of {counted(len(found), 'claim')}"]
    for each in (each for each in found if each.state not in verdicts.DECIDED):
        more = each.more_runs()
        if not more or more == verdicts.MOST:
            said.append(f"{each.name} is {each.state}, and more seeds would not decide it")
            continue
        count = min(more, max(LEAST, *(line.runs for line in each.evidence)))
        runs, cost = _sides(runner, sides.compared(rows, each.claim))
        steps.append((count * cost, each.name, count, runs))
        needs = f"{counted(count, 'more seed')} would take about {screen.duration(count * cost)}"
        said.append(f"{each.name} is {each.state}: {needs}")
    seconds, name, count, runs = min(steps, key=lambda step: step[:2], default=(math.inf, "", 0, []))
    if not runs or seconds > left:
        runner.results.write_added(Added(added.seeds, looks))
        screen.say("\n" + "; ".join(said))
        return False
    first = max(run.seed for run in runs) + 1
    seeds = list(range(first, first + count))
    kept = {run.but_seed: [*added.seeds.get(run.but_seed, []), *seeds] for run in runs}
    again = {other for _, other, _, theirs in steps if not kept.keys().isdisjoint(run.but_seed for run in theirs)}
    counted_looks = {other: count + (other in again) for other, count in looks.items()}
    runner.results.write_added(Added(added.seeds | kept, counted_looks))
    these = f"{'seed' if count == 1 else 'seeds'} {', '.join(map(str, seeds))} of {counted(len(kept), 'training')}"
    screen.say(f"\n{name} is not decided: {these} are added, about {screen.duration(seconds)}")
    return True


def _sides(runner: Runner, rows: Any) -> tuple[list[Run], float]:
    """Return the trainings that rows are of, with all their seeds, and the seconds that one more seed of them takes."""
    by_key = {runner.encoders.train_key(work.run): work.run for work in runner.plan.work}
    seen = rows[rows["train_key"].isin(by_key)]
    kinds = {by_key[key].but_seed for key in seen["train_key"].unique()}
    took = seen.groupby("train_key").agg(train=("train_seconds", "first"), score=("score_seconds", "sum")).sum(axis=1)
    cost = took.groupby([by_key[key].but_seed for key in took.index]).mean().sum()
    return [run for run in by_key.values() if run.but_seed in kinds], float(cost)


def _say_done(study: Path | Changed, made: Ran) -> None:
    """Say what a run has made and what it has not; exit with 1 where something failed."""
    from oodbench.report.tables import counted

    runner, outcome, others, died = made
    by = f" by this process of {others + 1}" if others else ""
    counts = f"{outcome.trained} trained, {counted(outcome.scored, 'cell')} scored"
    screen.say(f"\n{counts}{by}, {counted(len(outcome.rows), 'row')}")
    arguments.say_unkept(study, outcome.unkept)
    if outcome.missing:
        screen.say(f"{counted(outcome.missing, 'cell')} left undone: their encoders are not trained (--cached-only)")
    _say_unlearned(outcome.rows, runner.study.settings.learned)
    arguments.say_warnings(outcome.rows, f"oodbench report {runner.study.file}")
    for how in died:
        screen.warn(f"one of the {others} processes that helped {how}; this one has done what was left of its work")
    _say_not_made(runner, outcome.rows)
    if outcome.failed:
        arguments.say_failures(outcome.rows)
    if died:
        raise typer.Exit(1)


def _say_not_made(runner: Runner, rows: Any) -> None:
    """Say how many rows are not made because the files of their OOD sets are not here."""
    if counts := _not_made(runner, rows):
        later = "once they are, the same command makes them and trains nothing that is trained"
        names = ", ".join(counts)
        screen.say(f"{_rows(counts)} not made: the files of {names} are not here; {later}")


def _not_made(runner: Runner, rows: Any) -> dict[str, int]:
    """Return the OOD sets that a study goes without, with how many of their rows are not there; those that lack any."""
    if not runner.study.missing:
        return {}
    counts: dict[str, int] = {}
    rows = rows[rows["cell"].isin([cell.id for cell in runner.plan.cells])]
    for work in runner.plan.work:
        for name in runner.study.missing.get(work.run.id.label, {}):
            counts[name] = counts.get(name, 0) + len(work.cells)
    there = rows["ood"].value_counts()
    return {name: lost for name, count in counts.items() if (lost := count - int(there.get(name, 0)))}


def _rows(counts: dict[str, int]) -> str:
    from oodbench.report.tables import counted

    return counted(sum(counts.values()), "row")


def _precision(runner: Runner) -> str:
    """Return the precisions of a study's trainings, `auto` resolved."""
    found = (runner.encoders.precision(work.run) for work in runner.plan.work)
    return f"precision {', '.join(dict.fromkeys(found))}"


def _vary(made: Ran, words: list[str]) -> None:
    """Run a study again as a lesser CPU, by as many processes, and write and print by how much its rows differ."""
    from oodbench.cli.workers import as_lesser_cpu
    from oodbench.report.machines import variance
    from oodbench.store.rows import Results

    runner, rows = made.runner, made.outcome.rows
    folder, device = runner.study.results / arguments.LESSER_CPU, runner.pipeline.device
    if device.type != "cpu":
        screen.say(
            f"variance: machine: compares a CPU with a lesser one, and this run is on {device}; see --device cpu"
        )
        return
    if not as_lesser_cpu([*words, "--workers", str(made.others + 1)], folder):
        screen.say("variance: machine: this is the least CPU already, there is nothing to compare with")
        return
    there = Results(folder / runner.study.name, screen.warn).current()
    tables.publish(variance(rows, there), rows, runner.study.results)


def _words(study: Study, options: Options, dry_data: bool) -> list[str]:
    """Return the command of another process that shares the work of this one."""
    words = ["run", str(study.file), "--rows-only", "--workers", "1", "--memory", str(options.memory)]
    words += ["--device", options.device]
    words += ["--checkpoint-minutes", str(options.checkpoint_minutes)]
    words += ["--cached-only"] if options.cached_only else []
    words += [] if options.graph else ["--no-graph"]
    words += ["--dry-data"] if dry_data else []
    words += ["--without-missing-sets"] if options.without_missing_sets else []
    words += ["--checkpoint-epochs", str(options.checkpoint_epochs)] if options.checkpoint_epochs else []
    for option, given in (("--only", options.only), ("--set", study.document.changes)):
        words += [word for each in given for word in (option, each)]
    return words


def _say_unlearned(rows: Any, floor: float | None) -> None:
    """Name the trained encoders whose frozen probes are below the floor."""
    from oodbench.report.unlearned import NAME, encoders
    from oodbench.study.grid import NONE

    found = encoders(rows, floor)
    if found.empty:
        return
    labels = ["training", "id", "encoder", "outliers", "recipe"]
    labels += ["precision"] if found["precision"].nunique() > 1 else []
    for _, each in found.iterrows():
        parts = [each[name] for name in labels if each[name] not in ("", NONE)]
        where = " · ".join([*parts, f"seed {each['seed']}"])
        accuracy = f"frozen-probe accuracy {100 * each['frozen']:.1f} %, below {100 * each['floor']:.1f} %"
        screen.complain(f"[yellow]{NAME}:[/]", f"{where}: {accuracy}")
    screen.say(f"{len(found)} of {rows['train_key'].nunique()} encoders {NAME}; tables mark them")


def prepare(
    study: StudyFile, offline: Offline = False, dry_run: SayOnly = False, without_missing_sets: Without = False
) -> None:
    """Say which data a study needs and where it is from; download what is missing, and prepare it."""
    loaded = arguments.load(study)
    from oodbench.data import missing_sets
    from oodbench.data import needs as preparation
    from oodbench.toolkit.offline import OFFLINE

    if offline:
        os.environ[OFFLINE] = "1"  # for whatever fetches
    needs = preparation.needs(loaded)
    found = [preparation.supply(need, loaded.data) for need in needs]
    _show_supplies(needs, found)
    fine = [preparation.HERE, preparation.TO_DOWNLOAD]
    if dry_run:
        may_lack = [*fine, preparation.MISSING, preparation.BY_HAND] if without_missing_sets else fine
        for need, each in zip(needs, found, strict=True):
            if each.state not in (may_lack if missing_sets.may_lack(need) else fine):
                raise typer.Exit(1)
        return
    with arguments.at_work(loaded) as pipeline:
        problems = list(preparation.prepare(pipeline.library, needs))
    for _, problem in problems:
        screen.complain("[bold red]missing:[/]", problem)
    prepared = f"{len(needs) - len(problems)} of {len(needs)} sets prepared"
    screen.say(f"\n{prepared} in {loaded.store}")
    screen.say(f"their manifest: {loaded.results / preparation.FILE}")
    gone = [each.need for each in missing_sets.missing_sets(loaded) if each.may_lack] if without_missing_sets else []
    if any(need not in gone for need, _ in problems):
        raise typer.Exit(1)
    if problems:
        names = ", ".join(need.dataset.label for need, _ in problems)
        screen.say(f"{missing_sets.FLAG}: the study runs without {names}")


def _show_supplies(needs: list[Need], found: list[Supply]) -> None:
    table = screen.columns("set", "role", "files", "licence", "from")
    for need, each in zip(needs, found, strict=True):
        table.add_row(
            *(screen.text(part) for part in (need.dataset.label, ", ".join(need.roles), _files(each), *each[2:]))
        )
    screen.out.print(table)


def _files(supply: Supply) -> str:
    if not supply.downloads:
        return supply.state
    names = ", ".join(each.name for each in supply.downloads)
    size = "size unknown" if supply.size is None else decimal(supply.size)
    return f"{supply.state}: {names} ({size})"


@seldom_collected()
def plan(
    study: StudyFile,
    device: Device = "auto",
    only: Only = None,
    set_: Set = None,
    dry_data: DryData = False,
    without_missing_sets: Without = False,
    on: flags.On = "",
    cluster: flags.ClusterFile = None,
    partition: flags.Partition = "",
    time_limit: flags.Time = "",
    address: flags.Address = "",
    shared: flags.Shared = None,
) -> None:
    """Say what a study consists of, what is there already, and what the rest will cost; downloads nothing."""
    said = {"partition": partition, "time": time_limit, "address": address, "shared": shared}
    where = flags.cluster(cluster, on=on, **said)
    flags.check_whole(where, only, set_)
    source = arguments.changed(study, set_)
    loaded = arguments.made(source, dry_data)
    from oodbench.execution.pipeline import Options

    options = Options(device, without_missing_sets=without_missing_sets, only=tuple(only or ()))
    if where is None:
        _plan_here(source, loaded, options)
        return
    from oodbench.cli.cluster import commands

    commands.plan(loaded, options, where, dry_data)


def _plan_here(source: Path | Changed, loaded: Study, options: Options) -> None:
    """Say what a study consists of, and what it will cost on this machine."""
    from oodbench.data.missing_sets import FLAG, hinted, missing_sets, needed_by, without
    from oodbench.data.needs import needs, other_files
    from oodbench.execution.estimate import counted, estimate
    from oodbench.execution.runner import Runner

    missing = missing_sets(loaded)
    planned = without(loaded, missing) if options.without_missing_sets else loaded
    watch = Warnings(screen.warn)
    runner = Runner(planned, options, watch)
    missing = needed_by(missing, (work.run for work in runner.plan.work)) if options.only else missing
    absent = [] if options.without_missing_sets else missing
    with hinted(loaded):
        (runner.checks.check_study if absent else runner.checks.check)()
    _show_suites(runner.study.suites)
    _show_runs(runner, known=not absent)
    arguments.say_left_out(runner.plan.left_out)
    cost = counted(runner) if absent else estimate(runner)
    _show_counts(cost)
    _show_missing(source, missing, loaded.data)
    for line in other_files(needs(loaded), runner.library):
        watch.warn(line)
    if absent:
        if all(each.may_lack for each in absent):
            screen.say(f"{FLAG} goes on without them")
        screen.say("what is there, time and disk: unknown until the data is here")
    else:
        time = "unknown" if cost.seconds is None else f"about {screen.duration(cost.seconds)}"
        if runner.study.missing and (counts := _not_made(runner, runner.results.current(["ood"]))):
            screen.say(f"{_rows(counts)} would not be made: the files of {', '.join(counts)} are not here")
        slow = ", ".join(each.label for each in runner.study.detectors.posthocs if each.network)
        alone = f", without what {slow} takes, which passes images through the network" if slow else ""
        screen.say(f"time: {time} on {runner.pipeline.device}{alone}; disk: about {decimal(cost.bytes or 0)}")
        if cost.device and runner.pipeline.device.type == "cuda":
            held = f"{decimal(cost.device)} of training features at a time"
            screen.say(f"on the device: images, and {held}; detectors that need more room run on the CPU")
        arguments.say_unkept(source, len(runner.unkept()))
    screen.say(f"store: {runner.pipeline.store.root}; results: {runner.study.results}")


def _show_missing(study: Path | Changed, missing: list[MissingSet], data: Path) -> None:
    """Say which sets are not here, then of each why, and where it would be got."""
    gets = [each for each in missing if each.need.dataset.source]
    by_hand = [each for each in missing if each.need.files]
    own = [each for each in missing if each not in gets and each not in by_hand]
    if names := ", ".join(dict.fromkeys(each.need.dataset.name for each in gets)):
        screen.say(f"not here: {names}; oodbench prepare {study} gets them")
    if names := ", ".join(dict.fromkeys(each.label for each in by_hand)):
        screen.say(f"not here: {names}; no command gets them, they are placed by hand")
    if names := ", ".join(dict.fromkeys(each.label for each in own)):
        screen.say(f"not here: {names}; no command gets your own files: place them, or mend the paths")
    for each in missing:
        screen.say(f"missing: {each.text(study, data)}")


def _show_suites(suites: list[str]) -> None:
    from oodbench.study.suites import find

    for label in suites:
        found = find(label.partition(" (")[0])
        screen.say(f"suite {label}: {found.says}")
        for each in found.own:
            screen.say(f"    own: {each}")


def _show_runs(runner: Runner, known: bool) -> None:
    table = RichTable("training", "ID", "encoder", "seeds", "epochs", "cells", "trained", box=None)
    groups: dict[tuple[str, str, str], list[Work]] = {}
    for work in runner.plan.work:
        run = work.run
        groups.setdefault((run.training.label, run.id.label, run.encoder.label), []).append(work)
    for labels, members in groups.items():
        seeds = ", ".join(str(seed) for seed in sorted({work.run.seed for work in members}))
        epochs = ", ".join(str(epochs) for epochs in sorted({work.run.recipe.epochs for work in members}))
        trained = str(sum(runner.pipeline.encoders.has_weights(work.run) for work in members)) if known else "?"
        cells = sum(len(work.cells) for work in members)
        table.add_row(*map(screen.text, labels), seeds, epochs, str(cells), f"{trained} of {len(members)}")
    screen.out.print(table)


def _show_counts(cost: Estimate) -> None:
    table = RichTable("", "in all", "there", "to do", box=None)
    for name, total, there in (
        ("trainings", cost.trainings, cost.trained),
        ("sets to embed", cost.banks, cost.embedded),
        ("cells", cost.cells, cost.done),
    ):
        table.add_row(name, str(total), *(("?", "?") if there is None else (str(there), str(total - there))))
    screen.out.print(table)


def audit(study: StudyFile, without_missing_sets: Without = False) -> None:
    """List images that sets share, equal or nearly, and equal ones in one set: indices, a sheet; trains nothing."""
    with arguments.at_work(study, without_missing_sets=without_missing_sets) as pipeline:
        from oodbench.execution import audit as auditing
        from oodbench.training.weights import plan_of

        runs = [work.run for work in plan_of(pipeline.study).work]
        found, inside = auditing.audit(pipeline, runs), auditing.within(pipeline, runs)
        done = auditing.write(pipeline, found, inside, pipeline.study.results)
    screen.show(done.pairs, done.pairs.name, len(done.pairs.mean))
    screen.show(done.sets, done.sets.name, len(done.sets.mean))
    kinds = done.rows["kind"].value_counts()
    between, within = (
        [f"{kinds.get(kind, 0)} {kind}" for kind in each if sum(kinds.get(kind, 0) for kind in each)]
        for each in (auditing.KINDS, auditing.WITHIN)
    )
    said = f"{' and '.join(between)} duplicates" if between else "no image is in two sets, equal or nearly so"
    said += f"; within sets {' and '.join(within)}" if within else "; none is twice in a set"
    endings = ".md, .tex and .png" if len(done.rows) else ".md and .tex"
    screen.say(f"\n{said}: {pipeline.study.results / auditing.NAME}.csv, {endings}")
