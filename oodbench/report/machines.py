"""How far the numbers of a study hang on the machine: the same cells, made on two. It knows rows, not machines."""

from __future__ import annotations

import pandas as pd

from oodbench.errors import UserError
from oodbench.report.tables import Table
from oodbench.report.unmade import UNMADE, declared
from oodbench.store.columns import LABELS

MOVED, MOST, CHANCE = "mean difference", "largest", "deviation over seeds"


def variance(here: pd.DataFrame, there: pd.DataFrame) -> Table:
    """Return by how many points of AUROC the rows of two machines differ, beside what another seed does to one of them.

    A cell and OOD set that failed on either is left out, and counted in the caption.
    """
    numbers = [rows.set_index(["cell", "ood"])["auroc"] for rows in (here, there)]
    pairs = pd.DataFrame({"here": numbers[0], "there": numbers[1]}).dropna()
    if pairs.empty:
        raise UserError("the two machines have no number in common: see why their rows failed")
    rows = here.set_index(pd.MultiIndex.from_frame(here[["cell", "ood"]].set_axis(["", ""], axis=1))).loc[pairs.index]
    moved = 100 * (pairs["there"] - pairs["here"]).abs()
    same = [label for label in LABELS if label != "seed"]
    chance = 100 * rows.groupby(same, sort=False, dropna=False)["auroc"].transform("std")
    by = pd.DataFrame({MOVED: moved, MOST: moved, CHANCE: chance}).groupby(
        [rows["training"], rows["group"]], sort=False
    )
    mean = by.agg({MOVED: "mean", MOST: "max", CHANCE: "mean"})
    every = declared(here)
    gone = every[every["status"] == UNMADE].groupby(["training", "group"]).size()
    mean[mean.index.isin(gone.index)] = float("nan")  # a group that lacks a set has no mean
    machines = [", ".join(dict.fromkeys(each["trained_on"])) for each in (here, there)]
    lost = len(here) - len(pairs)
    caption = (
        f"Points of AUROC between the same rows made on {machines[0]} and on {machines[1]}, the mean and the largest "
        f"over n rows, and beside them the mean standard deviation (ddof 1) over seeds. {lost} of {len(here)} rows "
        "have no number on both."
    )
    return Table("machine", caption, mean, mean * float("nan"), by.count(), dict.fromkeys(mean, 0))
