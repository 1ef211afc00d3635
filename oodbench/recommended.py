"""Which detector to take, from Python: the answer of `oodbench recommend`, and that detector to be fitted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oodbench.errors import UserError
from oodbench.own_features import UnfittedDetector
from oodbench.store.columns import COLUMNS, LABELS

if TYPE_CHECKING:
    import pandas as pd

NAMED = 3  # columns that a frame lacks, of which a message says the names


@dataclass(frozen=True)
class Recommended:
    """One detector, and what is known of it beside the others; as text it is the sentences of `oodbench recommend`."""

    label: str  # training and detector, as tables call them
    says: str  # the answer, what it is expected to cost on an OOD set that had no part in the choice, and its rivals
    detector: UnfittedDetector  # of this setting: `fit(features, labels)` is all that is left
    # every candidate of every training, unrounded; those of `answer` are the answers
    table: pd.DataFrame = field(repr=False)

    def __str__(self) -> str:
        return self.says


def recommended(rows: pd.DataFrame, plugins: list[str], floor: float | None = None) -> tuple[Recommended, list[str]]:
    """Return the answer over all trainings of rows, or of the only one, and why trainings have none.

    `plugins` are files and folders of a user's own.
    """
    from oodbench.report import recommend as report

    every, without = report.recommendations(rows, floor)
    first = every[0]
    cell = report.cell_of(rows, floor, first.answer)
    parts = json.loads(str(rows.loc[rows["cell"] == cell, "detector"].iloc[0]))
    table = report.sheet(every, ()).numbers
    says = "\n".join(report.sentences(first))
    return Recommended(" · ".join(first.answer), says, _unfitted(parts, plugins), table), without


def checked(rows: Any) -> pd.DataFrame:
    """Return rows, each in a place of its own, as they were before a CSV file held them.

    Raises UserError where it is another frame, or none, and where two of its rows are of the same.
    """
    import pandas as pd

    from oodbench.report.tables import counted
    from oodbench.store.rows import typed

    whole = "wanted are whole rows, as oodbench.score and oodbench.rows return them"
    if not isinstance(rows, pd.DataFrame):
        raise UserError(
            f"{type(rows).__name__} is neither a study (a file, a name, a mapping) nor a DataFrame; {whole}"
        )
    if lacking := [name for name in COLUMNS if name not in rows]:
        more = f" and {len(lacking) - NAMED} more" * (len(lacking) > NAMED)
        raise UserError(f"this DataFrame has no column {', '.join(lacking[:NAMED])}{more}; {whole}")
    if rows.empty:
        raise UserError("there are no rows")
    found = typed(rows.reset_index(drop=True))
    if (again := found.duplicated([*LABELS])).any():
        row = found[again].iloc[0]
        of = ", ".join(f"{name} {row[name]}" for name in ("training", "distance", "posthoc", "seed", "ood"))
        raise UserError(
            f"{counted(int(again.sum()), 'row')} beside others of the same labels, such as {of}: give other features "
            "another `training` or `seed`"
        )
    found.attrs = rows.attrs
    return found


def _unfitted(parts: dict[str, Any], plugins: list[str]) -> UnfittedDetector:
    """Return a detector from what a row says of it: the steps of its space, and each plugin with all parameters."""
    rooms = {room: parts[room] for room in ("clustering", "distance", "posthoc", "threshold") if parts.get(room)}
    grid: dict[str, Any] = {
        room: {plugin["name"]: {name: value for name, value in plugin.items() if name != "name"}}
        for room, plugin in rooms.items()
    }
    grid |= {"space": parts["space"]} if "space" in parts else {}
    return UnfittedDetector(grid | ({"plugins": plugins} if plugins else {}))
