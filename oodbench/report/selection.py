"""Settings chosen on validation OOD, beside what the test sets would have chosen. It knows rows and kept scores."""

from __future__ import annotations

import pandas as pd

from oodbench.errors import UserError
from oodbench.report.halves import best_of_run, by_half
from oodbench.report.tables import (
    OTHER,
    RANKED,
    SHOWN_GROUPS,
    Table,
    averaged,
    commonest_threshold,
    named,
    runs_of,
    varies,
)
from oodbench.report.unmade import numberless
from oodbench.store.artifacts import Store
from oodbench.study.declarations import Select

CHOSEN, BEST, GAP = "AUROC", "best on test", "oracle gap"


def selection(rows: pd.DataFrame, select: Select, floor: float | None = None, store: Store | None = None) -> Table:
    """Return for each method the settings that validation chooses in each run, and what they cost.

    A setting is what the axes in `select.over` say beyond the name of a plugin; a space is a setting as a whole. A
    candidate that failed on a set, or lacks the validation number, is none. Ties go to the first in the study.
    `floor` is the study's, below which a frozen probe tells that an encoder did not learn. What the test sets would
    have chosen is measured on images that had no part in it where `store` keeps the scores of all settings.
    """
    done = runs_of(rows, floor, "select from")
    threshold, level = commonest_threshold(done)
    done = named(done[(done["threshold"] == threshold) & (done["level"] == level)])
    if done[select.by].isna().all():
        raise UserError(f"no row has {select.by}: run the study with its validation sets first")
    # a name may go on after its parameters: energy(temperature=2) on linear probe
    names = {axis: done[axis].str.replace(r"\(.*\)", "", regex=True) for axis in select.over if axis != "space"}
    method = [*(axis for axis in RANKED if axis not in select.over), *names]
    settings = done[list(select.over)].agg(" · ".join, axis=1).str.replace("– · ", "").str.replace(" · –", "")
    done = done.assign(**names, setting=settings)
    candidates = _candidates(done, method, select)
    by_run = candidates.groupby([*method, "run"], sort=False)
    best = by_run[select.by].idxmax() if select.by == "val_auroc" else by_run[select.by].idxmin()
    chosen = candidates.loc[best].set_index([*method, "run"])
    halves = None if store is None else by_half(done, store)
    title, run = BEST if halves is None else f"{BEST}, {OTHER}", [*method, "run"]
    columns: dict[tuple[str, str], pd.Series[float]] = {}
    for group in (group for group in SHOWN_GROUPS if group in candidates):
        parts = _halved(candidates, run, group, None if halves is None else done.join(halves))
        oracle = best_of_run(parts, run).where(by_run[group].count() == by_run.size())
        gap = oracle - parts.loc[best, [0, 1]].mean(axis=1).set_axis(chosen.index)
        columns |= {(group, CHOSEN): chosen[group], (group, title): oracle, (group, GAP): gap}
    lost = done.groupby([*method, "run"], sort=False)["unlearned"].any().reindex(chosen.index)
    better = {column: int(column[1] == CHOSEN) for column in columns}
    caption = _caption(select, f"{threshold} at {level:g}", halves is not None)
    numbers, flags = pd.DataFrame(columns), pd.DataFrame(dict.fromkeys(columns, lost))
    table = averaged("selection", caption, numbers, flags, method, better, floor)
    texts = chosen.groupby(method, sort=False)["setting"].agg(_counted).reset_index()
    shown = [axis for axis in method if axis in ("training", *names) or varies(texts[axis])]
    counts = by_run.size().groupby(method, sort=False).max()
    index = pd.MultiIndex.from_frame(texts[shown].assign(chosen=texts["setting"], of=counts.to_numpy()))
    return table.taken(lambda part: part.set_axis(index))


def _candidates(done: pd.DataFrame, method: list[str], select: Select) -> pd.DataFrame:
    """Return one row for each method, run and setting, of several: its validation number, its mean AUROC over groups.

    A group that no setting of a method has, as features of it were not given for each encoder, makes none of them fail;
    nor does a set whose rows are not made, but the mean of its group is none.
    """
    keys = [*method, "run", "setting"]
    sets = done.groupby(["id", "group"])["ood"].nunique()
    done = done.assign(gone=numberless(done, "auroc"))
    by_group = done.groupby([*keys, "id", "group"], sort=False)
    means = by_group.agg(mean=("auroc", "mean"), size=("auroc", "size"), gone=("gone", "any")).reset_index()
    whole = means["size"] == [sets[id_, group] for id_, group in zip(means["id"], means["group"], strict=True)]
    means = means.assign(whole=whole, mean=means["mean"].where(whole & ~means["gone"]))
    every = pd.MultiIndex.from_frame(means[keys].drop_duplicates())  # in the order of the study
    by_name = dict([*means.set_index(keys).groupby("group", sort=False)])
    found = {group: each["mean"].reindex(every) for group, each in by_name.items()}
    found[select.by] = done.groupby(keys, sort=False)[select.by].first().reindex(every)
    table = pd.DataFrame(found, index=every)
    there = pd.DataFrame({group: each["whole"].reindex(every, fill_value=False) for group, each in by_name.items()})
    fair = there | ~there.groupby([*method, "run"], sort=False).transform("any")
    table = table[table[select.by].notna() & there.any(axis=1) & fair.all(axis=1)].reset_index()
    table = table[table.groupby([*method, "run"])["setting"].transform("size") > 1]
    if table.empty:
        raise UserError(f"nothing to select: no method has several settings of {', '.join(select.over)}")
    return table


def _halved(candidates: pd.DataFrame, run: list[str], group: str, rows: pd.DataFrame | None) -> pd.DataFrame:
    """Return the run of each candidate and its mean AUROC over a group on either half of the images, columns 0 and 1.

    Without rows that have them both are of all images.
    """
    keys = [*run, "setting"]
    if rows is None:
        numbers = candidates[[group, group]]
    else:
        means = rows[rows["group"] == group].groupby(keys, sort=False)[[0, 1]].mean()
        numbers = means.reindex(pd.MultiIndex.from_frame(candidates[keys]))
    return candidates[run].join(pd.DataFrame(numbers.to_numpy(), index=candidates.index))


def _counted(settings: pd.Series[str]) -> str:
    counts = settings.value_counts(sort=False)
    if len(counts) == 1:
        return str(counts.index[0])
    return "; ".join(f"{setting} ({count} of {len(settings)})" for setting, count in counts.items())


def _caption(select: Select, threshold: str, halved: bool) -> str:
    metric = {"val_auroc": "AUROC", "val_fpr95_id": "FPR95_id", "val_fpr95_ood": "FPR95_ood"}[select.by]
    oracle = (
        f"`{BEST}, {OTHER}`: the setting of highest test AUROC on one half of the images of each set, in each run and "
        f"group, measured on the other half, both ways, averaged; `{GAP}`: what choosing without the test sets costs, "
        "on the same halves"
        if halved
        else f"`{BEST}`: the setting of highest test AUROC in each run and group; `{GAP}`: what choosing without the "
        f"test sets costs, part of which is luck: `{BEST}` is picked on the images that it is of"
    )
    return (
        f"Settings of {', '.join(select.over)} chosen in each run by the {metric} of the ID reference against the "
        f"validation OOD sets, mean over these; no test set was seen. Per cent, mean ± standard deviation (ddof 1) "
        f"over runs. {oracle}. `of`: how many settings there were to choose from; methods with one are not shown. "
        f"Of the thresholds, the rows are those of {threshold}."
    )
