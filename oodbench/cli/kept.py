"""The rows of a study as it stands: those that its file asks for now, whichever machine made them, and what is missing.

What its file asks for is in `plan.json`, written by the last run; where the study or its own plugins have changed
since, it is planned again. That takes torch and the data; the rest of this module takes neither.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from oodbench.store.rows import Results
from oodbench.study import reader
from oodbench.study.document import read
from oodbench.study.study import DRY

if TYPE_CHECKING:
    import pandas as pd

Say = Callable[[str], None]


def results(study: reader.Source, warn: Say, dry_data: bool = False) -> Results:
    """Return what is kept of a study, or of its dry run. Raises UserError where the folder is another study's."""
    folder, document = reader.results_of(study), read(study)
    found = Results(folder.with_name(folder.name + DRY) if dry_data else folder, warn)
    plan = found.plan()
    if plan is not None:
        reader.check_owner(document, found.folder.parent, plan)
        if plan.get("of") not in (None, reader.stamp(document)):
            _plan_again(study, found, warn, dry_data)
    return found


def current(study: reader.Source, warn: Say, dry_data: bool = False) -> tuple[Results, pd.DataFrame]:
    """Return what is kept of a study and the rows that it asks for; `warn` hears what is missing of them."""
    found = results(study, warn, dry_data)
    rows = found.current()
    if len(rows) and (said := lacking(rows, found.plan() or {})):
        warn(said)
        rows.attrs["lacking"] = f"{said[0].upper()}{said[1:]}."  # what captions say, too
    return found, rows


def lacking(rows: pd.DataFrame, plan: dict[str, Any]) -> str:
    """Return how many of the rows of a plan there are, and of which trainings none; nothing where all are."""
    there, cells = rows.groupby("cell").size().to_dict(), iter(plan.get("cells", {}))
    wanted, have, without = 0, 0, []
    runs: dict[bool, set[tuple[str, int]]] = {True: set(), False: set()}  # of which there are rows -> ID set and seed
    for title, id_, seed, count in plan.get("work", []):
        found = sum(there.get(cell, 0) for cell in islice(cells, count))
        wanted, have = wanted + count * len(plan["sets"][id_]), have + found
        runs[found > 0].add((id_, seed))
        without += [] if found else [title]
    if have >= wanted:
        return ""
    declared = runs[True] | runs[False]
    n = f"; n = {len(runs[True])} where {len(declared)} are declared" if runs[True] < declared else ""
    more = f" and {len(without) - 3} more" if len(without) > 3 else ""
    nothing = f"; nothing of {', '.join(without[:3])}{more}" if without else ""
    return f"{have} of {wanted} rows are there{n}{nothing}; run the study to make the others"


def _plan_again(study: reader.Source, found: Results, warn: Say, dry_data: bool) -> None:
    from oodbench.execution.dry_run import dry
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner

    loaded = reader.load(study)
    runner = Runner(dry(loaded).study if dry_data else loaded, Options())
    if absent := runner.absent():
        names = ", ".join(dict.fromkeys(each.label for each in absent))
        changed = f"{loaded.file} or its plugins have changed since its last run, whose rows these are"
        warn(f"{changed}: {names} are not here to tell")
    else:
        found.write_plan(runner.plan_facts())
