"""The rows of a study as it stands: those that its file asks for now, whichever machine made them, and what is missing.

What its file asks for is in `plan.json`, written by the last run; where the study or its own plugins have changed
since, it is planned again. That takes torch and the data; the rest of this module takes neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from oodbench.store.columns import COLUMNS
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


def current(
    study: reader.Source, warn: Say, dry_data: bool = False, columns: Iterable[str] = COLUMNS
) -> tuple[Results, pd.DataFrame]:
    """Return what is kept of a study and the rows that it asks for; `warn` hears what is missing of them."""
    found = results(study, warn, dry_data)
    rows = found.current(columns)
    if len(rows) and (said := rows.attrs.get("lacking")):
        warn(said)
    return found, rows


def _plan_again(study: reader.Source, found: Results, warn: Say, dry_data: bool) -> None:
    from oodbench.data.missing_sets import missing_sets
    from oodbench.execution.dry_run import dry
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner

    loaded = reader.load(study)
    whole = dry(loaded).study if dry_data else loaded
    absent = missing_sets(whole)
    goes_on = "missing" in (found.plan() or {}) and all(each.may_lack for each in absent)  # as the last run did
    if absent and not goes_on:
        names = ", ".join(dict.fromkeys(each.label for each in absent))
        changed = f"{loaded.file} or its plugins have changed since its last run, whose rows these are"
        warn(f"{changed}: {names} are not here to tell")
    else:
        found.write_plan(Runner(whole, Options(without_missing_sets=goes_on)).plan_facts())
