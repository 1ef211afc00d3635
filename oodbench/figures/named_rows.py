"""Figures of the rows that words name: the kept scores of cells, and the features of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from oodbench.errors import UserError
from oodbench.figures import data
from oodbench.figures.boards import board
from oodbench.figures.by_image import kept_rows, kept_scores
from oodbench.figures.feature_maps import TRAINING, feature_maps
from oodbench.store.artifacts import Store
from oodbench.store.columns import LABELS
from oodbench.store.scores import KeptScores
from oodbench.study.grid import NONE

MOST = 12  # rows of one figure


def roc(rows: pd.DataFrame, store: Store, study: str) -> pd.DataFrame:
    """Return the corners of the ROC curve of each row, in per cent, beside its name (`of`) and `auroc`.

    Raises UserError where no scores are kept of these rows, or of more than a figure holds.
    """
    kept = _kept(rows, store, study)
    parts = [data.roc(found).mul(100).assign(of=name, auroc=100 * auroc) for name, auroc, found in kept]
    return pd.concat(parts, ignore_index=True)


def histogram(rows: pd.DataFrame, store: Store, study: str) -> pd.DataFrame:
    """Return the shares of scores of each row in per cent, beside its name (`of`), and its `cut`; raises as `roc`."""
    parts = []
    for name, _, found in _kept(rows, store, study):
        bins = data.histogram(found)
        parts.append(bins.assign(id=100 * bins["id"], ood=100 * bins["ood"], of=name, cut=found.cut))
    return pd.concat(parts, ignore_index=True)


def bank(rows: pd.DataFrame, store: Store, study: str) -> pd.DataFrame:
    """Return the images of a map of the one training that rows are of, in the space of the highest of them.

    `attrs` say what it is `of`, and what shares of the variance PCA's axes `explained`. Raises UserError of several
    trainings, and where the features are not in the store.
    """
    rows = rows[rows["status"] == "ok"]
    trainings = rows.drop_duplicates(TRAINING)
    found = board(rows)
    if found is None or len(trainings) > 1:
        differing = [name for name in TRAINING if trainings[name].nunique() > 1] or ["training"]
        names = "; ".join(f"{name} {', '.join(trainings[name].unique())}" for name in differing)
        raise UserError(f"these words name {len(trainings)} trainings, the figure is of one: add a word of {names}")
    maps, _ = feature_maps(rows, store, [row for behind in found.rows for row in behind])
    if not maps:
        of, how = trainings["training"].iloc[0], f"oodbench run {study} leaves them there"
        raise UserError(f"the features of {of} are not in {store.root}; {how}, OODBENCH_STORE names another store")
    points = maps[0].points
    row = rows.loc[maps[0].row]
    points.attrs = {"explained": maps[0].explained, "of": f"{row['training']}, seed {row['seed']}, {maps[0].space}"}
    return points


Make = Callable[[pd.DataFrame, Store, str], pd.DataFrame]
NAMED: dict[str, Make] = {"roc": roc, "histogram": histogram, "bank": bank}


def _kept(rows: pd.DataFrame, store: Store, study: str) -> Iterator[tuple[str, float, KeptScores]]:
    """Yield the labels in which a row whose scores are kept differs from others, its AUROC, and these scores."""
    kept = kept_rows(rows, store)
    if kept.empty:
        how = f"the key `scores` of a study says of which cells `oodbench run {study}` keeps them"
        raise UserError(f"no scores by image of these {len(rows)} rows are kept in {store.root}: {how}")
    differing = [name for name in LABELS if kept[name].astype(str).nunique() > 1 and name != "group"]
    if len(kept) > MOST:
        words = "; ".join(f"{name} {', '.join(kept[name].astype(str).unique()[:MOST])}" for name in differing)
        raise UserError(f"scores are kept of {len(kept)} such rows, a figure holds {MOST}: add a word of {words}")
    for _, row in kept.iterrows():
        found = kept_scores(store, row)
        if found is not None:
            names = [f"{name} {row[name]}" if name in ("seed", "level") else str(row[name]) for name in differing]
            yield " · ".join(each for each in names if each not in ("", NONE)) or str(row["ood"]), row["auroc"], found
