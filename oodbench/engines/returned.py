"""What comes back from hosts that share no file system with this one: rows, and what is kept beside them.

Nothing is taken before all of it is held against its hashes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from oodbench.engines.errands import LOG
from oodbench.engines.parcels import BACK, unpack
from oodbench.engines.seam import JOBS, Ended
from oodbench.engines.unit import measured_file
from oodbench.errors import UserError
from oodbench.execution.runner import Runner, TrainedFeatures
from oodbench.store import merge as merging
from oodbench.store import scores
from oodbench.store.files import write_whole
from oodbench.store.rows import SAME, Results
from oodbench.study.grid import Work

STORE = "store"  # in what is sent back


class OtherRowsError(UserError):
    """Rows that came back are not those that are wanted, and would not be if they were made again."""


def send(runner: Runner, to: Path, kind: str = "") -> None:
    """Copy rows of these trainings, what is known of them and scores that are kept into a folder that `merge` takes.

    Of a measurement, by its kind, what was measured.
    """
    folder = to / runner.study.results.name
    if kind:
        write_whole(measured_file(folder, kind), measured_file(runner.study.results, kind).read_bytes())
        return
    store, results = runner.pipeline.store, Results(folder)
    for work in runner.plan.work:
        source = runner.source(work)
        results.add(_rows(runner.results, source))
        if (facts := runner.results.run(source.key)) is not None:
            results.write_run(source.key, facts)
        for each in source.wanted if source.scores else ():
            kept = store.read(scores.KIND, scores.name(each.key, each.ood, each.ood_data))
            if kept is not None:
                shutil.copytree(kept.path, to / STORE / kept.path.relative_to(store.root))


def _rows(results: Results, source: TrainedFeatures) -> pd.DataFrame:
    """Return the rows in a folder of results that a training is to have."""
    rows = results.read(training=source.key)
    wanted = {(each.cell, each.ood, each.key, each.ood_data) for each in source.wanted}
    return rows[[same in wanted for same in rows[SAME].itertuples(index=False, name=None)]]


@contextmanager
def opened(ended: Ended) -> Iterator[tuple[str, Path]]:
    """Give how a task ended and the folder of what it sends back, and add its log to the one here.

    Raises UserError where that is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="oodbench-") as name:
        said = unpack(ended.sent, Path(name), BACK)
        with Path(ended.log).open("ab") as log:
            log.write((Path(name) / LOG).read_bytes())
        yield said.error, Path(name)


def take_measured(ended: Ended, results: Path) -> str:
    """Keep what a task measured in a folder of results, and return how it ended if not well."""
    with opened(ended) as (error, folder):
        for file in (folder / results.name / JOBS).glob("measured-*.json"):
            write_whole(results / JOBS / file.name, file.read_bytes())
        return error


def take(runner: Runner, works: Sequence[Work], folder: Path) -> None:
    """Take the rows of trainings that came back, what is known of these, and scores that are kept.

    Raises OtherRowsError where rows that are wanted are not among them: then nothing is taken. The same where rows of
    the training are here that another machine made in other numbers: those that came lie apart.
    """
    there, warn = Results(folder / runner.study.results.name), runner.watch.warn
    for work in works:
        source = runner.source(work)
        rows, wanted = _rows(there, source), runner.bookkeeping.pending(source)
        came = set(rows[SAME].itertuples(index=False, name=None))
        if lacking := [each for each in wanted if (each.cell, each.ood, each.key, each.ood_data) not in came]:
            how = "oodbench, plugins, libraries and data have to be the same on all hosts"
            raise OtherRowsError(f"sent back other rows than {len(lacking)} that are wanted: {how}")
        store = runner.pipeline.store
        merged = merging.merge([there.folder.parent], runner.study.results, store, source.key)
        for each in (*merged.conflicts, *merged.damaged):
            warn(each)
        merging.artifacts(folder / STORE, store, merged.apart_keys, warn)
        if merged.apart:
            where = ", ".join(map(str, merged.apart))
            said = f"sent back rows of a training that another machine has made in other numbers; they lie in {where}"
            raise OtherRowsError(f"{said}: make what is missing where that training is")
