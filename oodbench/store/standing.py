"""How a study stands: what of each training is done, failed and missing, who is at work on it, and what is left.

It goes by the plan of the last run, its rows, and what the processes at work say of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd

from oodbench.store.heartbeat import Beat


@dataclass
class WorkStanding:
    """How a training and its cells stand."""

    title: str
    group: str  # its title without its seed
    cells: int
    done: int
    failed: int
    rows_missing: int
    seconds: float | None  # that the training took; None: it is not there
    beat: Beat | None = None  # of the process that is at it

    @property
    def missing(self) -> int:
        return self.cells - self.done - self.failed

    @property
    def trained(self) -> bool:
        return self.seconds is not None


def standing(
    plan: dict[str, Any], rows: pd.DataFrame, runs: list[dict[str, Any]], beats: list[Beat]
) -> list[WorkStanding]:
    """Return how each training of a plan stands, given the current rows and what is kept of trainings."""
    ok, error = ({cell: int(count) for cell, count in part.groupby("cell").size().items()} for part in _parts(rows))
    seconds = {run["title"]: float(run["seconds"]) for run in runs if "title" in run and "seconds" in run}
    by_title = {beat.title: beat for beat in beats if not beat.is_gone}
    cells, found = iter(plan["cells"]), []
    for title, id_, seed, count in plan.get("work", []):
        own = list(islice(cells, count))
        sets = len(plan["sets"][id_]) - len(plan.get("missing", {}).get(id_, {}))
        failed = sum(cell in error for cell in own)
        done = sum(ok.get(cell, 0) >= sets for cell in own)
        have = sum(min(sets, ok.get(cell, 0) + error.get(cell, 0)) for cell in own)
        group = title.replace(f" · seed {seed}", "")
        found.append(
            WorkStanding(
                title, group, count, done, failed, sets * count - have, seconds.get(title), by_title.get(title)
            )
        )
    return found


def _parts(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    is_error = rows["status"] == "error"
    return rows[~is_error], rows[is_error]


def rest(found: list[WorkStanding], rows: pd.DataFrame, workers: int) -> float | None:
    """Return the seconds that so many processes need for what is missing, by those that the rest has taken.

    A training takes as long as the mean of those that are trained in the same way, or of all. None: nothing is trained
    that would tell. Trainings that failed are not counted.
    """
    todo = [each for each in found if each.rows_missing]
    trained = [each for each in found if each.seconds is not None]
    if not todo:
        return 0.0
    if not trained or rows.empty:
        return None
    scored = float(rows["score_seconds"].mean())
    left = sum(scored * each.rows_missing for each in todo)
    for each in todo:
        if each.seconds is None:
            alike = [one.seconds for one in trained if _kind(one) == _kind(each)] or [one.seconds for one in trained]
            share = each.beat.epoch / each.beat.epochs if each.beat and each.beat.epochs else 0.0
            left += (1 - share) * sum(filter(None, alike)) / len(alike)
    return left / max(1, min(workers, len(todo)))


def _kind(work: WorkStanding) -> str:
    return work.group.partition(" · ")[0]
