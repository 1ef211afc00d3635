"""Rows that a study declares and that are not made, as those of OOD sets whose files are not here are.

In tables and verdicts they stand beside rows that are there, without numbers: so no mean over OOD sets is taken of
fewer sets than are declared. It knows rows alone.
"""

from __future__ import annotations

import pandas as pd

from oodbench.store.columns import COMPAT, FULL_SPECTRUM, METRICS

UNMADE = "not made"  # the status of such a row; on disk there is none
OF_OOD = (
    *(*METRICS, *COMPAT, *FULL_SPECTRUM),
    *("ood_recall", "ood_recall_low", "ood_recall_high", "balanced_accuracy", "f1"),
)


def declared(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows, and for each of their cells that has numbers one without any for each OOD set that it lacks.

    Which sets there should be is in `attrs`; where it says nothing, none is lacking. What does not depend on an OOD
    set, such as an accuracy, is that of the cell.
    """
    sets = [(id_, ood, group) for id_, of in rows.attrs.get("sets", {}).items() for ood, group in of.items()]
    if not sets or not rows.attrs.get("lacking", "unknown"):
        return rows
    done = rows[rows["status"] == "ok"].drop_duplicates("cell")
    places = pd.DataFrame(sets, columns=["id", "ood", "group"], dtype=rows["id"].dtype).reset_index(names="of sets")
    every = done.drop(columns=["ood", "group"]).merge(places, on="id")
    lost = every[
        ~pd.MultiIndex.from_frame(every[["cell", "ood"]]).isin(pd.MultiIndex.from_frame(rows[["cell", "ood"]]))
    ]
    if lost.empty:
        return rows
    blank = {name: pd.Series(float("nan"), lost.index, lost[name].dtype) for name in (*OF_OOD, "n_ood") if name in lost}
    lost = lost.assign(**blank, ood_data="", error="", status=UNMADE)
    order = {cell: i for i, cell in enumerate(rows["cell"].unique())}
    both = pd.concat([rows.merge(places[["id", "ood", "of sets"]], "left", ["id", "ood"]), lost], ignore_index=True)
    both = both.assign(of_cells=both["cell"].map(order)).sort_values(["of_cells", "of sets"], kind="stable")
    found = both[list(rows.columns)].astype(rows.dtypes.to_dict()).reset_index(drop=True)
    found.attrs = rows.attrs
    return found


def numberless(rows: pd.DataFrame, value: str) -> pd.Series[bool]:
    """Return which rows are not made and would have a number: a mean that has one of them is none."""
    return (rows["status"] == UNMADE) & rows[value].isna()


def sets_of(rows: pd.DataFrame) -> str:
    """Return the OOD sets of those rows that are not made; "" where all are."""
    return ", ".join(rows.loc[rows["status"] == UNMADE, "ood"].unique())


def said(rows: pd.DataFrame) -> str:
    """Return what a caption says of rows that are of a changed study, or of a part of it, or not all there; else ""."""
    changed, only = rows.attrs.get("set", []), rows.attrs.get("only", "")
    parts = [f"Not the study as its file is: changed by --set {' '.join(changed)}" if changed else ""]
    parts += [f"A part of the study: {only}" if only else "", rows.attrs.get("lacking", "")]
    return " ".join(f"{each}." for each in parts if each)
