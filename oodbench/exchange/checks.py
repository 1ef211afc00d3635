"""What of a submission can be verified, and what of it stands: keys, names, numbers, claims, and scores if enclosed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from oodbench.errors import UserError, printable
from oodbench.exchange.archive import PLAN, RUNS, STUDY, Archive
from oodbench.exchange.parameters import Parameters
from oodbench.report.claims import verdicts
from oodbench.report.tables import counted
from oodbench.report.unmade import declared
from oodbench.store.artifacts import digest
from oodbench.store.columns import MEASURED
from oodbench.study.declarations import ClaimSpec
from oodbench.study.document import parsed
from oodbench.study.reader import claims_of

NAMED = 5  # rows that a message names


@dataclass
class Verified:
    """The rows of a submission that stand, what was verified of them, and what did not."""

    rows: pd.DataFrame
    trained: dict[str, Any] = field(default_factory=dict)  # parameters by train_key
    said: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # each with the name of the submission

    def drop(self, wrong: pd.Series[bool], name: str, why: str) -> None:
        """Leave out rows that are wrong, by name."""
        if not wrong.any():
            return
        cells = [f"{cell[:10]}/{ood}" for cell, ood in self.rows.loc[wrong, ["cell", "ood"]].to_numpy()]
        more = f" and {len(cells) - NAMED} more" if len(cells) > NAMED else ""
        self.problems.append(printable(f"{name}: {', '.join(cells[:NAMED])}{more}: {why}; left out"))
        self.said.append(f"{counted(len(cells), 'row')} left out")
        self.rows = self.rows[~wrong].reset_index(drop=True)  # which keeps what they are lacking


def check(archive: Archive, parameters: Parameters) -> Verified:
    """Return what stands of a submission without its features: keys, parameters and numbers that fit each other."""
    plan, runs, name = archive.json(PLAN), archive.json(RUNS), archive.path.name
    found = Verified(archive.rows)
    try:
        cells, sets = dict(plan["cells"]), dict(plan["sets"])
        found.rows.attrs = {"sets": {id_: {o: g for o, (g, _) in of.items()} for id_, of in sets.items()}}
        found.trained = {key: facts["parameters"] for key, facts in runs.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{PLAN} or {RUNS} is not as a run writes it: {type(error).__name__}"
        raise UserError(f"{archive.path}: {said}") from error
    found.drop(found.rows.duplicated(["cell", "ood"], keep=False), name, "the row is there twice")
    found.drop(found.rows["cell"].map(cells) != found.rows["key"], name, "its key is not that of the plan")
    of_cell = found.rows.drop_duplicates("cell")[["cell", "detector", "train_key", "seed"]]
    fits = {cell: _is_cell(cell, text, found.trained.get(key), seed) for cell, text, key, seed in of_cell.to_numpy()}
    found.drop(~found.rows["cell"].map(fits).astype(bool), name, "its cell is not the hash of its parameters")
    numbers = found.rows[[*MEASURED]]
    wrong = ((numbers < 0) | (numbers > 1)).any(axis=1) | ((found.rows["status"] == "ok") & numbers["auroc"].isna())
    found.drop(wrong, name, "its numbers are no shares from 0 to 1")
    found.said.insert(0, "keys fit")
    other = parameters.other_code(archive.facts.plugins)
    found.said.append(f"other code than here: {', '.join(other)}" if other else "code as here")
    return found


def _is_cell(cell: str, detector: str, run: Any, seed: int) -> bool:
    """Return whether a cell is the hash of the parameters of its detector and its training, and the seed is theirs."""
    try:
        wanted = digest({"run": run, "detector": json.loads(detector)})
    except (ValueError, RecursionError):
        return False
    return isinstance(run, dict) and run.get("seed") == seed and wanted == cell


def claims(archive: Archive, found: Verified) -> list[str]:
    """Return how the claims of the study are decided by the rows that stand, which have the names that it gives."""
    try:
        document = parsed(Path(STUDY), archive.read(STUDY))
        declares: dict[str, ClaimSpec] = claims_of(document.value)
    except UserError as error:
        found.problems.append(printable(f"{archive.path.name}: {error}; its claims are not looked at"))
        return []
    of_rows = {each: claim for each, claim in declares.items() if claim.table == "rows"}
    if not of_rows or found.rows.empty:
        return []
    judged = verdicts.verdicts(declared(found.rows), of_rows, None, STUDY)
    held = sum(each.state == verdicts.HOLDS for each in judged)
    return [f"{held} of {counted(len(judged), 'claim')} hold, by runs alone"]  # errors of images are not enclosed
