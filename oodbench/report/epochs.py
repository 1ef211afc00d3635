"""The course of trainings over the epochs that a study keeps, as a table. It knows rows alone."""

from __future__ import annotations

import pandas as pd

from oodbench.report import tables
from oodbench.study.grid import NONE

NAME = "curve"
ENDINGS = ("md", "tex", "html")  # of its table; as CSV it is its rows
SHOWN = ("class_separation", "global_separation", "cluster_purity", "silhouette")


def table(rows: pd.DataFrame) -> tables.Table:
    """Return means over runs, epoch by epoch for each method, times 100."""
    done = tables.named(rows[rows["error"] == ""]).assign(run=rows["id"] + " " + rows["seed"].astype(str))
    by = tables.naming(done)
    done = done.assign(method=done.groupby(by, sort=False).ngroup()).sort_values(["method", "epoch"], kind="stable")
    of_run = done.groupby([*by, "epoch", "run"], sort=False)
    numbers = {("ID", "probe accuracy"): of_run["accuracy_linear"].first()}
    numbers |= {("clusters", name): of_run[name].first() for name in SHOWN}
    auroc = done.set_index([*by, "epoch", "run", "ood"])["auroc"].unstack("ood", sort=False)
    numbers |= {(str(ood), "AUROC"): auroc[ood] for ood in done["ood"].unique()}
    wide = 100 * pd.DataFrame(numbers).dropna(axis=1, how="all").reindex(of_run.size().index)
    over = wide.groupby([*by, "epoch"], sort=False)
    caption = _caption(done)
    return tables.Table(
        NAME, caption, over.mean(), over.std(ddof=1), over.count(), dict.fromkeys(wide.columns, 0), details=()
    )


def _caption(done: pd.DataFrame) -> str:
    spaces, clusterings, thresholds = (
        ", ".join(each for each in done[name].unique() if each != NONE) for name in ("space", "clustering", "threshold")
    )
    runs = done["run"].nunique()
    return (
        f"Trainings at the epochs that were kept; epoch 0 is before the first step. Times 100, mean ± standard "
        f"deviation (ddof 1) over {runs} {'run' if runs == 1 else 'runs'}. Space {spaces or NONE}, clusters "
        f"{clusterings or NONE}, threshold {thresholds}. The accuracy is that of a linear probe. Measures are of ID "
        f"test features, each item in the cluster of the nearest centroid; separations and silhouettes go from -100 "
        f"to 100, class_separation is that of the classes themselves."
    )
