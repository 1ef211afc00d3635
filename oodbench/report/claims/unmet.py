"""Claims with a side that no cell of a study's grid can fill, told from its labels before there are rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from oodbench.report.tables import NotThereError, kept
from oodbench.store.columns import LABELS
from oodbench.study.declarations import ClaimSpec, Labels
from oodbench.study.document import Trail
from oodbench.study.grid import Plan
from oodbench.study.study import Study

FILTERS = ("of", "left", "right", "at", "than", "winner")
UNTOLD = "auto"  # a precision that rows show resolved


def unmet(study: Study, plan: Plan) -> Iterator[tuple[Trail, str]]:
    """Yield what claims select that no row of the plan will have: the key that says so, and the nearest label.

    OOD sets that the study goes without count as there.
    """
    for name, claim in study.claims.items():
        rows = _labels(study, plan, _columns(claim, study))
        ways = [("of", place, side) for place in ("at", "than") for side in ("left", "right")]
        for way in (*ways, ("of", "winner")):
            yield from ((("claims", name, *key), said) for key, said in _narrowed(rows, claim, way))


def _columns(claim: ClaimSpec, study: Study) -> list[str]:
    """Return the labels that a claim selects by and that the grid tells."""
    named = {column for key in FILTERS for column in getattr(claim, key)}
    untold = {"precision"} if UNTOLD in study.precisions else set()
    return [column for column in LABELS if column in named - untold]


def _narrowed(rows: pd.DataFrame, claim: ClaimSpec, way: tuple[str, ...]) -> Iterator[tuple[Trail, str]]:
    """Yield the first label under these keys that no row has, among those that have the ones before it."""
    before: list[str] = []
    for key in way:
        of: Labels = getattr(claim, key)
        for column, wanted in of.items():
            if column not in rows:
                continue
            where = f"among rows of {', '.join(before)}, " if before else ""
            try:
                rows = kept(rows, {column: wanted}, where)
            except NotThereError as error:
                yield (key, column), str(error)
                return
            before.append(f"{column} {' or '.join(map(str, wanted)) if isinstance(wanted, list) else wanted}")


def _labels(study: Study, plan: Plan, columns: list[str]) -> pd.DataFrame:
    """Return each combination of these labels that rows of a plan will have, once."""
    detectors = {id(each): _part(each.labels, columns) for each in plan.detectors}
    found: dict[tuple[tuple[str, Any], ...], None] = {}
    for work in plan.work:
        run, groups = _part(work.run.labels, columns), study.ood[work.run.id.label].items()
        every = ({"ood": name, "group": group} for group, members in groups for name in members)
        sets = dict.fromkeys(_part(each, columns) for each in every)
        scored = dict.fromkeys(detectors[id(cell.detector)] for cell in work.cells)
        found.update(dict.fromkeys((*run, *labels, *of) for labels in scored for of in sets))
    return pd.DataFrame([dict(each) for each in found], columns=columns)


def _part(labels: dict[str, Any], columns: list[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, labels[name]) for name in columns if name in labels)
