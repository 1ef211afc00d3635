"""What matters: how much of the variance of a metric each axis of a study takes, and what each of its levels adds.

Detectors of different parts are different designs, for a baseline has no clustering. Of each design the shares are of
its largest full grid: levels that are not crossed with all others are left out, and named. On a full grid the sums of
squares of main effects and two-way interactions are orthogonal (Fisher 1925; Montgomery 2017, chapter 5), whatever
their order. What a level adds is compared at the same places, paired by run; its unit of analysis is that of verdicts.
It knows rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodbench.errors import UserError, suggestion
from oodbench.report.claims.estimates import TWO_SIDED, Runs, by_observation, estimate, interval
from oodbench.report.claims.sides import AT_CUT
from oodbench.report.formats import Sheet
from oodbench.report.tables import METHOD, counted, distinct, kept, named, spread
from oodbench.report.unlearned import MARK, explained, unlearned
from oodbench.store.columns import COMPAT, LOWER_IS_BETTER, METRICS, RECALLS
from oodbench.study.declarations import RUN
from oodbench.study.grid import NONE

FILE = "effects"
PARTS = ("space", "clustering", "distance", "posthoc")  # which a detector has tells its design
MACHINE = "machine"  # a column of rows that several machines made
AXES = ("id", *METHOD, "head", "ood", "seed", MACHINE)
VALUES = (*METRICS, *RECALLS, *COMPAT)
SMALL = 0.005  # a share that the table adds up with others
OUTSIDE = "*"  # of a level that is not in the full grid
IMAGES, RESIDUAL = "images", "residual"
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Paired:
    """A mean difference over runs, with its two-sided 95 % t interval; NaN where there is none."""

    mean: float
    low: float
    high: float
    p: float  # two-sided, that the mean is 0
    runs: int
    observations: int
    of: str  # what an observation is


@dataclass(frozen=True)
class Share:
    """Of the variance over the cells of a design, what an axis or an interaction takes."""

    of: str  # `training`, `training x space`
    share: float
    squares: float  # sum of squares, in the metric's unit squared
    freedom: int  # degrees of freedom


@dataclass(frozen=True)
class Effect:
    """What a level of an axis adds to the mean of the levels of the full grid, at the places where all of them are."""

    axis: str
    level: str
    mean: float  # of the axis, plus the difference
    difference: Paired
    places: int  # combinations of the other axes, but for runs
    in_grid: bool


@dataclass(frozen=True)
class Design:
    """Detectors of the same parts: the axes that vary, the largest full grid of these, and what it tells."""

    name: str
    cells: int
    grid: int  # cells of them that are in the full grid
    deviation: float  # of these cells, in points
    left_out: dict[str, list[str]]  # axis -> levels that are not crossed with all others
    told: dict[str, str]  # an axis that differs only with another -> that one
    shares: tuple[Share, ...]  # the largest first, the residual last
    images: float  # share; NaN where the metric's error is not known from rows
    effects: tuple[Effect, ...]


# ---- from rows ------------------------------------------------------------------------------------------


def effects(rows: pd.DataFrame, value: str = "auroc", group: str = "", floor: float | None = None) -> list[Design]:
    """Return what matters in each design of a study, for a metric over the OOD sets of a group, "" of all.

    Rows of several machines say of which they are in a column `machine`. `floor` is the study's, below which a frozen
    probe tells that an encoder did not learn. Raises UserError where there is no such metric or group, or where nothing
    varies.
    """
    cells = cells_of(rows.assign(training=marked(rows, floor)), value, group)
    parts = (cells[[*PARTS]] != NONE).apply(lambda has: " x ".join(has.index[has]), axis=1)
    found = [_design(name, each) for name, each in cells.groupby(parts, sort=False)]
    if all(each.grid == 1 for each in found):
        raise UserError("nothing varies in these rows: effects are of axes with several levels")
    return found


def marked(rows: pd.DataFrame, floor: float | None) -> pd.Series[str]:
    """Return the training of each row, with the mark where an encoder of it did not learn."""
    lost = unlearned(rows, floor).groupby(rows["training"]).transform("any")
    return rows["training"] + lost.map({True: f" {MARK}", False: ""})


def cells_of(rows: pd.DataFrame, value: str, group: str = "") -> pd.DataFrame:
    """Return rows with a `number` (per cent), of thresholds that rank alike one, and its `error` from the images.

    A baseline goes by its name alone, and which `head` it reads is a column. So is the `machine`.
    """
    if value not in VALUES:
        raise UserError(f"--value {value}: rows have no such metric{suggestion(value, VALUES)}")
    rows = kept(rows, {"group": group}, "--group: ") if group else rows
    rows = rows if MACHINE in rows else rows.assign(**{MACHINE: ""})
    found = pd.concat([_numbered(each, value) for _, each in rows.groupby(MACHINE, sort=False)])
    if found.empty:
        raise UserError(f"no row has {value}")
    return found


def _numbered(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the cells of the rows of one machine that have a number."""
    if value in AT_CUT:
        level = rows["level"].map(" at {:g}".format).where(rows["level"].notna(), "")
        rows = named(rows).assign(threshold=rows["threshold"] + level)
    else:
        rows = named(distinct(rows))
    reads = rows["posthoc"].fillna(NONE).str.extract(r"^(.*?)(?: on (linear probe))?$")
    rows = rows.assign(posthoc=reads[0], head=reads[1].fillna("classifier"))
    rows = rows.assign(number=100 * rows[value], error=100 * image_error(rows, value))
    return rows[(rows["status"] == "ok") & rows["number"].notna()]


def image_error(rows: pd.DataFrame, value: str) -> pd.Series[float]:
    """Return the standard error of each number over draws of images, as a share; NaN where rows do not tell it.

    AUROC: Hanley and McNeil 1982, equation 2. Rates at a cut: binomial, as if the cut were given.
    """
    a, n_id, n_ood = (rows[name].astype("float64") for name in (value, "n_id", "n_ood"))
    if value == "auroc":
        both_ood, both_id = a / (2 - a), 2 * a**2 / (1 + a)
        squares = a * (1 - a) + (n_ood - 1) * (both_ood - a**2) + (n_id - 1) * (both_id - a**2)
        return (squares.clip(lower=0) / (n_id * n_ood)) ** 0.5
    binomial = {"_id": n_ood, "_ood": n_id} if value.startswith("fpr") else {"id_recall": n_id, "ood_recall": n_ood}
    images = next((n for ending, n in binomial.items() if value.endswith(ending)), np.nan)
    return (a * (1 - a) / images) ** 0.5


def _design(name: str, cells: pd.DataFrame) -> Design:
    varying = [axis for axis in AXES if cells[axis].nunique() > 1]
    told = confounded(cells, varying)
    axes = [axis for axis in varying if axis not in told]
    grid = full_grid(cells, axes)
    crossed = [axis for axis in axes if grid[axis].nunique() > 1]
    ordered = grid.sort_values(crossed) if crossed else grid
    levels = {axis: grid[axis].unique().tolist() for axis in axes}
    left_out = {axis: [str(x) for x in cells[axis].unique() if x not in levels[axis]] for axis in axes}
    values = ordered["number"].to_numpy().reshape([len(levels[axis]) for axis in crossed])
    images = float((grid["error"] ** 2).mean() / values.var()) if values.var() else np.nan
    found = [each for axis in axes if axis != "seed" for each in _marginal(cells, axis, axes, levels[axis], told)]
    lacking = {axis: names for axis, names in left_out.items() if names}
    sizes = (len(cells), len(grid), float(values.std()))
    return Design(name, *sizes, lacking, told, shares(values, crossed), images, tuple(found))


def confounded(cells: pd.DataFrame, axes: Sequence[str]) -> dict[str, str]:
    """Return the axes that have one level at each level of another, and which; of two that do so the first stays."""
    found: dict[str, str] = {}
    for axis, other in ((a, b) for a in reversed(axes) for b in axes if a != b):
        alone = cells.groupby(other, sort=False)[axis].nunique().max() == 1
        if axis not in found and other not in found and alone:
            found[axis] = other
    return found


def full_grid(cells: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Return the cells of a grid in which each level of an axis meets each combination of the others.

    The level that meets the smallest share of them goes first; among equals the one of fewest cells.
    """
    while len(cells):
        sizes = cells[[*axes]].nunique()
        if len(cells) == sizes.prod():
            return cells
        counts = {axis: cells[axis].value_counts(sort=False) for axis in axes if sizes[axis] > 1}
        worst = min(counts, key=lambda axis: (counts[axis].min() * sizes[axis], counts[axis].min()))
        cells = cells[cells[worst] != counts[worst].idxmin()]
    return cells


# ---- shares ---------------------------------------------------------------------------------------------


def shares(values: Floats, axes: Sequence[str]) -> tuple[Share, ...]:
    """Return main effects and two-way interactions of one number a cell, an array with an axis for each factor.

    The residual is what is left: interactions of three and more, and noise. Of no variance there are no shares.
    """
    centred = values - values.mean()
    total = float((centred**2).sum())
    if total == 0:
        return ()
    every = range(values.ndim)
    main: dict[tuple[int, ...], Floats] = {
        (i,): centred.mean(axis=tuple(j for j in every if j != i), keepdims=True) for i in every
    }
    pairs: dict[tuple[int, ...], Floats] = {
        (i, j): centred.mean(axis=tuple(k for k in every if k not in (i, j)), keepdims=True) - main[i,] - main[j,]
        for i, j in combinations(every, 2)
    }
    found = []
    for which, effect in {**main, **pairs}.items():
        squares = float((effect**2).sum()) * values.size / effect.size
        freedom = int(np.prod([values.shape[i] - 1 for i in which]))
        found.append(Share(" x ".join(axes[i] for i in which), squares / total, squares, freedom))
    left = max(total - sum(each.squares for each in found), 0.0)
    freedom = values.size - 1 - sum(each.freedom for each in found)
    found.sort(key=lambda each: -each.share)
    return (*found, Share(RESIDUAL, left / total, left, freedom))


# ---- levels ---------------------------------------------------------------------------------------------


def paired(runs: Runs) -> list[Paired]:
    """Return of each candidate the mean of its differences by run, whose observations are those of verdicts."""
    found = estimate(runs)
    numbers = (found.mean, *interval(found, TWO_SIDED), found.p, (~np.isnan(runs.values)).sum(0), found.size[:, 0])
    return [
        Paired(mean, low, high, p, count, observations, runs.of)
        for mean, low, high, p, count, observations in zip(*(part.tolist() for part in numbers), strict=True)
    ]


def _marginal(
    cells: pd.DataFrame, axis: str, axes: Sequence[str], levels: Sequence[str], told: dict[str, str]
) -> Iterator[Effect]:
    """Yield what each level adds, the highest first, then those that are not in the full grid."""
    apart = {axis, *(each for each, by in told.items() if by == axis)}
    run = [label for label in RUN if label not in apart]
    place = [each for each in axes if each not in (axis, *run)]
    wide = cells.set_index([*run, *place, axis])["number"].unstack(axis, sort=False)
    common = wide[list(levels)].mean(axis=1, skipna=False)
    ahead = wide.sub(common, axis=0)
    mean = float(estimate(by_observation(common.groupby(run).mean())).mean)
    differences = paired(by_observation(ahead.groupby(run).mean()))
    spots = ahead.notna().groupby(place).any().sum() if place else ahead.notna().any().astype(int)
    found = []
    for level, over, places in zip(ahead, differences, spots, strict=True):
        found.append(Effect(axis, str(level), mean + over.mean, over, int(places), level in levels))
    yield from sorted(found, key=lambda each: (not each.in_grid, -np.nan_to_num(each.difference.mean, nan=-np.inf)))


# ---- writing --------------------------------------------------------------------------------------------


def about(design: Design) -> str:
    """Return what the full grid of a design is, and what it is without."""
    parts = [f"{design.name}: {design.grid:,} of {design.cells:,} cells are a full grid"]
    parts.append(f"their standard deviation is {design.deviation:.1f} points")
    if design.left_out:
        names = "; ".join(f"{axis}: {', '.join(levels)}" for axis, levels in design.left_out.items())
        parts.append(f"not crossed with all others, so in no share: {names}")
    alone = [f"{axis} differs only with {other}, and is in its share" for axis, other in design.told.items()]
    return "; ".join([*parts, *alone]) + "."


def share_table(design: Design) -> pd.DataFrame:
    """Return shares as text, the largest first; those of less than half a per cent are one line."""
    large = [each for each in design.shares[:-1] if each.share >= SMALL]
    small = [each for each in design.shares[:-1] if each.share < SMALL]
    lines = [(each.of, each.share, str(each.freedom)) for each in large]
    if small:
        freedom = str(sum(each.freedom for each in small))
        each_ = "each " * (len(small) > 1)
        lines.append(
            (f"{counted(len(small), 'other')}, {each_}below {SMALL:.1%}", sum(x.share for x in small), freedom)
        )
    lines += [(each.of, each.share, str(each.freedom)) for each in design.shares[-1:]]
    if not np.isnan(design.images):
        lines.append((f"{IMAGES}, of one number", design.images, NONE))
    of, shares_, freedom_ = zip(*lines, strict=True) if lines else ((), (), ())
    return pd.DataFrame({"axis": of, "share": [f"{100 * each:.1f}" for each in shares_], "df": freedom_})


def level_table(design: Design) -> pd.DataFrame:
    """Return as text what each level adds that is at a place with those of the grid."""
    found = [each for each in design.effects if each.places]
    return pd.DataFrame(
        {
            "axis": [each.axis for each in found],
            "level": [each.level + f" {OUTSIDE}" * (not each.in_grid) for each in found],
            "mean": [spread(each.mean) for each in found],
            "difference": [signed(each.difference.mean) for each in found],
            "95 % interval": [ends(each.difference.low, each.difference.high) for each in found],
            "places": [f"{each.places:,}" for each in found],
            "of": [counted(each.difference.observations, each.difference.of) for each in found],
        }
    )


def signed(number: float) -> str:
    return NONE if np.isnan(number) else f"{number:+.1f}"


def ends(low: float, high: float) -> str:
    return NONE if np.isnan(low) else f"[{low:+.1f}, {high:+.1f}]"


def caption(designs: Sequence[Design], value: str, group: str = "", floor: float | None = None) -> str:
    """Return what the numbers mean, and what they do not say."""
    better = "lower is better" if value in LOWER_IS_BETTER else "higher is better"
    over = f"the {group}-OOD sets" if group else "all OOD sets"
    few = any(np.isnan(each.difference.low) for design in designs for each in design.effects if each.places)
    outside = any(not each.in_grid for design in designs for each in design.effects)
    images = (
        f"{IMAGES}: the mean variance of one number over draws of test images (AUROC: Hanley and McNeil 1982; "
        "rates: binomial), beside the same total; all cells share these images, so most of it moves them together and "
        "is in no share. "
    ) * any(not np.isnan(design.images) for design in designs)
    return (
        f"Of {value} over {over}; {better}. Share: per cent of the variance over the cells of a full grid, sums of "
        "squares of main effects (one name) and two-way interactions (a x b: how far the effect of one depends on the "
        f"other); {RESIDUAL}: interactions of three and more, and noise. A share hangs on which levels a study has. "
        f"{images}Thresholds that rank alike are one; the settings of a sweep are levels of their own. "
        "Mean: per cent, at the places (combinations of the other axes) where all levels of the grid are; difference: "
        "of a level from their mean, in points, paired by run; interval: 95 % t, over runs (or ID sets, or encoders, "
        "where these are several), each on its own, of no family of tests; the error that the test images have in "
        "common is in none. Seeds are runs, their levels not listed."
        + f" {OUTSIDE}: not in the full grid, compared with the mean of those that are at the places where it is, too."
        * outside
        + f" {NONE}: one run has no interval." * few
        + f" {explained(floor)}" * any(MARK in each.level for design in designs for each in design.effects)
    )


def sheet(designs: Sequence[Design], value: str, caption: str) -> Sheet:
    """Return both tables of each design as one, what a terminal shows one below the other; numbers unrounded."""
    parts = [table(each).assign(design=each.name) for each in designs for table in (share_table, level_table)]
    columns = ["design", "axis", "level", "share", "df", "mean", "difference", "95 % interval", "places", "of"]
    text = pd.concat(parts, ignore_index=True).reindex(columns=columns).astype(object).fillna(NONE)
    return Sheet(FILE, text, [caption, *map(about, designs)], pd.DataFrame(list(_listed(designs, value))), 3)


def _listed(designs: Sequence[Design], value: str) -> Iterator[dict[str, Any]]:
    for design in designs:
        of: dict[str, Any] = {"design": design.name, "value": value}
        for each in design.shares:
            kind = "share" if each.of == RESIDUAL or " x " not in each.of else "interaction"
            numbers = {"share": 100 * each.share, "squares": each.squares, "df": each.freedom}
            yield of | {"kind": kind, "axis": each.of, "level": ""} | numbers
        yield of | {"kind": "share", "axis": IMAGES, "level": "", "share": 100 * design.images}
        for effect in design.effects:
            labels = {"kind": "level", "axis": effect.axis, "level": effect.level, "mean": effect.mean}
            found = vars(effect.difference) | {"difference": effect.difference.mean, "mean": effect.mean}
            yield of | labels | found | {"places": effect.places, "in_grid": effect.in_grid}
