"""From rows to the numbers that a claim compares: one for each place and run, and how much each row weighs in it."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from oodbench.report.tables import METHOD, TRAINED, NotThereError, distinct, kept
from oodbench.store.columns import ACCURACIES, INTERVALS, LABELS, LOWER_IS_BETTER, QUALITY_LABELS, RECALLS, SETS, SHARES
from oodbench.study.declarations import PAIRED, ClaimSpec, Labels
from oodbench.study.grid import NONE

RANKS = ("auroc", "aupr_in")  # by which thresholds that rank alike are told
AT_CUT = ("level", "cut", *RECALLS, *INTERVALS)  # differ between thresholds that rank alike
CUTS = ["threshold", "level"]


def compared(rows: pd.DataFrame, claim: ClaimSpec) -> pd.DataFrame:
    """Return the rows that a claim compares."""
    return pd.concat([reduce(there, labels, rows) for labels in claim.compared])


def about(rows: pd.DataFrame, claim: ClaimSpec) -> pd.DataFrame:
    """Return the rows that a claim is about, with the columns that it needs."""
    named = () if claim.table == "quality" else ("key", "ood_data")
    return there(rows[list(dict.fromkeys((*LABELS, *claim.labels, *named, "status", *RANKS, claim.value)))], claim.of)


def there(rows: pd.DataFrame, of: Labels) -> pd.DataFrame:
    """Return the rows, at least one, that have the labels. Raises NotThereError."""
    rows = kept(rows, of)
    if rows.empty:
        raise NotThereError("there are no rows")
    return rows


def of_clusters(rows: pd.DataFrame, claim: ClaimSpec, clusters: pd.DataFrame | None, study: str) -> pd.DataFrame:
    """Return the measures of clusters of the trainings that rows are of, with the labels of rows that they lack.

    They are of ID test items where the claim does not say of which split.
    """
    if clusters is not None:
        clusters = clusters[clusters["train_key"].isin(rows["train_key"])]  # not of epochs on the way, nor out of date
    if clusters is None or clusters.empty:
        raise NotThereError(f"the clusters of these rows are not measured: oodbench quality {study} does that")
    said = {*claim.of, *claim.left, *claim.right, *claim.at, *claim.than, *claim.among, *claim.over}
    if "split" not in said:
        clusters = clusters[clusters["split"] == "test"]
    lacking = dict.fromkeys((each for each in LABELS if each not in QUALITY_LABELS), NONE)
    status = np.where(clusters["error"] == "", "ok", "error")
    return clusters.assign(**lacking | dict.fromkeys((*RANKS, "level"), np.nan), status=status)


def side(rows: pd.DataFrame, claim: ClaimSpec, of: Labels) -> pd.DataFrame:
    """Return the rows of a side, with `place`, `number` (in the claim's unit), how many OOD `sets` make a mean whole.

    Thresholds that rank alike are one, unless the value is of their cuts. An accuracy is a training's: it is taken
    once, of any row that has it.
    """
    found = there(rows, of)
    if claim.value in ACCURACIES:
        found = found[found["status"] == "ok"].drop_duplicates([*TRAINED, *PAIRED, *claim.over, *claim.among])
        found = found.assign(sets=1)
    else:
        tested = there(rows, {column: wanted for column, wanted in of.items() if column in SETS})
        by = ["id", *(column for column in claim.over if column in SETS)]
        alike = claim.value not in AT_CUT and not {*CUTS} & {*claim.over, *claim.among}
        if alike and len(found[CUTS].drop_duplicates()) > 1:
            found = distinct(found)
        found = found.join(tested.groupby(by)["ood"].nunique().rename("sets"), on=by)
    number = found[claim.value].astype("float64").where(found["status"] != "error")
    return found.assign(
        level=found["level"].fillna(0),  # a threshold set on OOD has none
        number=number * (100 if claim.value in SHARES else 1),
        place=found[list(claim.over)].astype(str).agg(" · ".join, axis=1) if claim.over else "",
    )


def numbers(side: pd.DataFrame, claim: ClaimSpec, by: tuple[str, ...] = ()) -> pd.Series[float]:
    """Return one number for each group, place and run; NaN where one that belongs to it is missing.

    It is the mean over OOD sets, then the mean or the best over settings, then the mean over places if that is asked.
    """
    index, settings = _layout(side, claim, by)
    over_sets = side.groupby([*index, *settings], sort=False)
    whole = over_sets["number"].count() == over_sets["sets"].first()
    one = over_sets["number"].mean().where(whole)
    found = one.groupby(index, sort=False)
    best = found.min if claim.value in LOWER_IS_BETTER else found.max
    values = best() if claim.pick == "best" else _whole_mean(found, [*by, "place"])
    if claim.where != "mean":
        return values
    over_places = values.groupby([*by, *claim.run], sort=False)
    return pd.concat({_everywhere(side): _whole_mean(over_places, [*by, "id"])}, names=["place"])


def weighted(side: pd.DataFrame, claim: ClaimSpec, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return rows with their `weight` in the number of their group, place and run, where none is missing of it.

    Numbers are means of means; of the best of several settings there are no weights.
    """
    index, settings = _layout(side, claim, by)
    sets = side.groupby([*index, *settings], sort=False)["number"].transform("size")
    several = side.drop_duplicates([*index, *settings]).groupby(index, sort=False).size().rename("several")
    weight = 1 / (sets * side.join(several, on=index)["several"])
    if claim.where != "mean":
        return side.assign(weight=weight)
    places = side.groupby([*by, *claim.run], sort=False)["place"].transform("nunique")
    return side.assign(weight=weight / places, place=_everywhere(side))


def over_runs(
    rows: pd.DataFrame, numbers: pd.Series[float], claim: ClaimSpec, by: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Return weighted rows with their weight in the mean over the runs of an ID set that have a number.

    Encoders count alike, whatever the number of their runs.
    """
    index = [*by, "place", *claim.run]
    runs = numbers.dropna().index.to_frame(index=False)[index]
    encoders = runs.groupby([*by, "place", "id"])["encoder"].transform("nunique") if "encoder" in runs else 1
    within = runs.groupby([each for each in index if each != "seed"])["seed"].transform("size")
    found = rows.merge(runs.assign(share=1 / (encoders * within)), on=index)
    return found.assign(weight=found["weight"] * found["share"])


def _layout(side: pd.DataFrame, claim: ClaimSpec, by: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the columns of what has one number before places are averaged, and those by which its settings differ."""
    index = [*by, "place", *claim.run]
    settings = [label for label in (*METHOD, "level", "split") if label in side and label not in (*index, *claim.over)]
    return index, settings


def _everywhere(side: pd.DataFrame) -> str:
    return f"mean of {', '.join(side['place'].unique())}"


def _whole_mean(groups: Any, alike: list[str]) -> pd.Series[float]:
    """Return means of groups, NaN where a member has no number, or where there are fewer than in others alike."""
    size = groups.size()
    most = size.groupby(alike, sort=False).transform("max")
    mean: pd.Series[float] = groups.mean().where((groups.count() == size) & (size == most))
    return mean
