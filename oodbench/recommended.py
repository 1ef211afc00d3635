"""Which detector to take, from Python: the answer of `oodbench recommend`, and that detector to be fitted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oodbench.errors import UserError
from oodbench.own_features import UnfittedDetector

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("cell", "detector", "training", "ood", "auroc", "val_auroc", "warnings")  # tell rows from another frame


@dataclass(frozen=True)
class Recommended:
    """One detector, and what is known of it beside the others; as text it is the sentences of `oodbench recommend`."""

    label: str  # training and detector, as tables call them
    says: str  # the answer, what it is expected to cost on an OOD set that had no part in the choice, and its rivals
    detector: UnfittedDetector  # of this setting: `fit(features, labels)` is all that is left
    table: pd.DataFrame = field(
        repr=False
    )  # every candidate of every training, unrounded; those of `answer` are the answers

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


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows, each in a place of its own. Raises UserError where it is another frame."""
    if lacking := [name for name in NEEDED if name not in rows]:
        whole = "wanted are whole rows, as oodbench.score and oodbench.rows return them"
        raise UserError(f"this DataFrame has no column {', '.join(lacking)}; {whole}")
    if rows.empty:
        raise UserError("there are no rows")
    found = rows.reset_index(drop=True)
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
