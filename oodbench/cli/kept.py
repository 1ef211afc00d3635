"""The rows of a study as it stands: those that its file asks for now, whichever machine made them, and what is missing.

What its file asks for is in `plan.json`, written by the last run; where the study or its own plugins have changed
since, it is planned again. That takes torch and the data; the rest of this module takes neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from oodbench.cli.arguments import LESSER_CPU
from oodbench.store.artifacts import Store
from oodbench.store.columns import COLUMNS
from oodbench.store.merge import MACHINES
from oodbench.store.rows import Results
from oodbench.study import reader
from oodbench.study.document import Document, read
from oodbench.study.study import DRY

if TYPE_CHECKING:
    import pandas as pd

    from oodbench.report.claims.verdicts import ClaimVerdict
    from oodbench.study.declarations import ClaimSpec

Say = Callable[[str], None]


def results(study: reader.Source, warn: Say, dry_data: bool = False) -> Results:
    """Return what is kept of a study, or of its dry run. Raises UserError where the folder is another study's."""
    folder, document = reader.results_of(study), read(study)
    found = Results(folder.with_name(folder.name + DRY) if dry_data else folder, warn)
    plan = found.plan()
    if plan is not None:
        reader.check_owner(document, found.folder.parent, plan)
        if plan.get("of") not in (None, reader.stamp(document)) or "unplanned" in plan:
            _plan_again(study, found, warn, dry_data)
        elif plan.get("set", []) != document.changes:  # of what no row depends on
            found.write_plan({name: facts for name, facts in plan.items() if name != "set"} | _set(document))
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


def of_machines(given: Results, rows: pd.DataFrame, warn: Say) -> pd.DataFrame:
    """Return the rows of a study and those of the same cells that other machines made; `machine` says which made them.

    Others are those that `merge` keeps apart, and the lesser CPU of `variance: machine`.
    """
    import pandas as pd

    folder = given.folder.parent
    others = {"lesser CPU": folder / LESSER_CPU / folder.name}
    others |= {path.name: path for path in sorted((folder / MACHINES).glob("*"))}
    found = {name: Results(path, warn).current() for name, path in others.items() if (path / "rows").is_dir()}
    same = {name: there[there["cell"].isin(rows["cell"])] for name, there in found.items()}
    parts = {"here": rows} | {name: there for name, there in same.items() if len(there)}
    return pd.concat([each.assign(machine=name) for name, each in parts.items()])


def _set(document: Document) -> dict[str, list[str]]:
    return {"set": document.changes} if document.changes else {}


def store(study: reader.Source, given: Results, dry_data: bool = False) -> Store | None:
    """Return where the artifacts of a study, or of its dry run, are kept; None where nothing is."""
    folder = given.folder.with_name("store") if dry_data else reader.store_of(study)
    return Store(folder) if folder.is_dir() else None


def judged(
    study: reader.Source, given: Results, rows: pd.DataFrame, claims: Mapping[str, ClaimSpec], artifacts: Store | None
) -> list[ClaimVerdict]:
    """Return what becomes of the claims of a study, by all that is kept of it."""
    from oodbench.report.claims import images, verdicts

    errors = images.ImageErrors(artifacts, given.image_errors())
    added = given.added()
    named = study.name if isinstance(study, Path) else str(study)  # evidence is published, and folders are one's own
    found = verdicts.verdicts(rows, claims, given.clusters(), named, added.looks, errors)
    if (table := errors.table()) is not None:
        given.write_image_errors(table)
    return found


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
        if lost := (found.plan() or {}).get("unplanned"):
            changed = f"the last run was of a part of {loaded.file}, and did not plan {', '.join(lost)}"
        warn(f"{changed}: {names} are not here to tell")
    else:
        found.write_plan(Runner(whole, Options(without_missing_sets=goes_on)).plan_facts())
