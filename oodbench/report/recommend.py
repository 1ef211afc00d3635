"""Which detector to take: one answer over all detectors of each training, and over all trainings, and what it costs.

The choice is made on validation OOD where a study declares it, else on the other OOD sets than the one that it is
judged on, one left out after the other. Its cost is its regret: how many points of AUROC the best detector on that set
has more. Rivals are told apart from the answer by paired differences over runs, whose observations are those of
verdicts, with 5 % for all of them together. It knows rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodbench.errors import UserError
from oodbench.report.claims.estimates import ERROR, LEAST, Runs, by_observation
from oodbench.report.effects import ends, marked, paired, signed
from oodbench.report.formats import Sheet
from oodbench.report.tables import counted, distinct, named, runs_of, spread
from oodbench.report.unlearned import MARK, explained
from oodbench.study.declarations import POINTS, RUN
from oodbench.study.grid import NONE

FILE = "recommend"
ALL = "all trainings"
WHO = ("outliers", "recipe", "precision", "reference")  # beside its name, where they vary within a training
PARTS = ("space", "clustering", "distance", "posthoc")
SECONDS = {"train_seconds": "training, s", "score_seconds": "scoring, s"}  # by which the cheapest is told
APART = {"fit_seconds": "fitting, s", "item_seconds": "an item, µs", "fitted_bytes": "memory, kB"}  # by newer versions
COSTS = SECONDS | APART
UNIT = {"item_seconds": 1e-6, "fitted_bytes": 1e3}  # in which it is shown
NAMED = 3  # candidates that lack numbers, of which a sentence says the names
LONG = 100  # seconds, of which two digits are no number to read
DECIDED = ("id_recall", "ood_recall")  # what the cut does
SAME = 1e-9  # points: rounding is no difference
Candidate = tuple[str, str]  # training, detector


@dataclass(frozen=True)
class Choice:
    """What is chosen without an OOD set for each of these, and what it costs there."""

    regrets: pd.Series[float]  # points, by ID and OOD set
    auroc: float  # per cent, mean over sets that had no part in the choice
    taken: dict[str, Candidate]  # by OOD set

    @property
    def regret(self) -> float:
        """The mean over ID sets of means over their OOD sets, points."""
        return _mean_over_sets(self.regrets)

    @property
    def worst(self) -> str:
        """The set of the largest regret."""
        place: Any = self.regrets.idxmax()
        id_, ood = place
        several = self.regrets.index.get_level_values("id").nunique() > 1
        return f"{ood} beside {id_}" if several else str(ood)


@dataclass(frozen=True)
class Recommendation:
    """The answer among the detectors of a training, or of all, and what it is expected to cost on an unseen set."""

    scope: str
    # candidates: auroc (of all sets), DECIDED (per cent) at a level, costs, differences from the answer, told_apart
    table: pd.DataFrame
    answer: Candidate
    choice: Choice  # by validation where a study declares it, else by the other sets
    validated: bool
    by_others: Choice | None  # where validation chose and sets are several: what the other sets would have chosen
    tied: int  # rivals that the choice does not tell from the answer
    lacking: tuple[Candidate, ...]  # have no number of a set, run or validation, and are no candidates
    observations: int  # runs, or ID sets or encoders where these are several
    of: str  # what an observation is

    @property
    def apart(self) -> int:
        """How many rivals are told apart from the answer."""
        return int(self.table["told_apart"].sum())

    @property
    def cheapest(self) -> Candidate | None:
        """Of the answer and what is not told apart and at most POINTS behind, the one that takes the fewest seconds."""
        return self._least(SECONDS)

    @property
    def smallest(self) -> Candidate | None:
        """The like of fewest bytes."""
        return self._least(["fitted_bytes"])

    def _least(self, costs: Iterable[str]) -> Candidate | None:
        alike = self.table[~self.table["told_apart"] & (self.table["difference"] >= -POINTS)]
        spent = alike[list(costs)].sum(axis=1, min_count=1)
        least: Any = None if spent.isna().all() else spent.idxmin()
        found: Candidate | None = least
        return found


# ---- from rows ------------------------------------------------------------------------------------------


def recommendations(rows: pd.DataFrame, floor: float | None = None) -> tuple[list[Recommendation], list[str]]:
    """Return the answer over all trainings, where there are several, and that of each; and why others have none.

    `floor` is the study's, below which a frozen probe tells that an encoder did not learn. Raises UserError where
    there is nothing to choose from, or neither validation OOD nor a second OOD set to choose by.
    """
    cells = _candidates(rows, floor)
    sets = list(cells["ood"].unique())
    if cells["val_auroc"].isna().all() and len(sets) < 2:
        why = "no set can be left out to judge the choice on; declare `validation` OOD, or a second OOD set"
        raise UserError(f"{sets[0]} is the only OOD set with numbers, and there is no val_auroc: {why}")
    trainings = {str(name): each for name, each in cells.groupby("training", sort=False)}
    found = [_answer(name, each, RUN) for name, each in trainings.items()]
    if len(trainings) > 1:
        found.insert(0, _over_all(cells))
    if not (there := [each for each in found if isinstance(each, Recommendation)]):
        raise UserError(" ".join(map(str, found)))
    return there, [each for each in found if isinstance(each, str)]


def cell_of(rows: pd.DataFrame, floor: float | None, candidate: Candidate) -> str:
    """Return a cell of a candidate that was made of these rows."""
    cells = _candidates(rows, floor)
    return str(cells.loc[(cells["training"] == candidate[0]) & (cells["detector"] == candidate[1]), "cell"].iloc[0])


def _over_all(cells: pd.DataFrame) -> Recommendation | str:
    """Return the answer over trainings in the runs that all have; an encoder that is of one training is part of it."""
    own = cells.groupby("training")["encoder"].nunique().max() == 1 and cells["encoder"].nunique() > 1
    run = [label for label in RUN if not (own and label == "encoder")]
    in_each = cells.groupby(run, sort=False)["training"].transform("nunique") == cells["training"].nunique()
    return _answer(ALL, cells[in_each], run) if in_each.any() else f"No answer over {ALL}: they have no run in common."


def _candidates(rows: pd.DataFrame, floor: float | None) -> pd.DataFrame:
    """Return rows with a number, in per cent, with `training` and `detector` as names that are no other's."""
    done = named(distinct(runs_of(rows.assign(training=marked(rows, floor)), floor, "choose from")))
    done = done[done["auroc"].notna()]
    if done.empty:
        raise UserError("no row has an AUROC: there is nothing to choose from")
    who = [name for name in WHO if done.groupby("training")[name].nunique().max() > 1]
    several = done.groupby([*PARTS])["threshold"].transform("nunique") > 1
    parts = done[[*PARTS]].assign(threshold=done["threshold"].where(several, NONE)).fillna(NONE)
    settings = done[["distance", "posthoc"]].replace(r"\(.*\)", "", regex=True)
    training = _joined(done[["training", *who]])
    family = _joined(done[["space", "clustering"]].assign(**settings))
    return done.assign(training=training, detector=_joined(parts), **{"family of costs": family})


def _joined(labels: pd.DataFrame) -> NDArray[np.object_]:
    """Return the labels of each row as one."""
    place = labels.groupby([*labels], sort=False, dropna=False).ngroup()
    rows = labels[~place.duplicated()].itertuples(index=False, name=None)
    names = [" · ".join(each for each in row if each != NONE) for row in rows]
    return np.array(names, dtype=object)[place]


def _answer(scope: str, cells: pd.DataFrame, run: Sequence[str]) -> Recommendation | str:
    """Return the answer among the candidates that have every number, or why there is none."""
    keys = ["training", "detector"]
    wide = cells.set_index([*keys, *run, "ood"])["auroc"].unstack([*run, "ood"], sort=False)
    by = cells.groupby(keys, sort=False)
    validated = bool(cells["val_auroc"].notna().any())
    whole = wide.notna().all(axis=1) & (by["val_auroc"].count().eq(by.size()) if validated else True)
    lacking = tuple(wide.index[~whole])
    wide = wide[whole]
    if wide.empty:
        return f"No answer of {scope}: none of its {len(lacking)} detectors has every number."
    sets = wide.T.groupby(["id", "ood"], sort=False).mean().T  # (candidates, ID and OOD sets)
    costs = _costs(cells, keys, run).reindex(wide.index)
    decided = cells.groupby([*keys, "id", "ood"], sort=False)[list(DECIDED)].mean()
    decided = decided.groupby([*keys, "id"], sort=False).mean().groupby(keys, sort=False).mean()
    more = {**costs, **decided.assign(level=by["level"].first()).reindex(wide.index)}
    overall = sets.T.groupby("id", sort=False).mean().mean()
    answer, tied = _first(by["val_auroc"].mean().reindex(wide.index) if validated else overall, costs)
    others = _left_out(sets, costs)
    choice = _choice(sets, dict.fromkeys(cells["ood"].unique(), answer)) if validated else others
    if choice is None:
        return f"No answer of {scope}: it has one OOD set, and none can be left out to judge the choice on."
    runs = by_observation(wide.T.groupby(list(run), sort=False).mean())
    table = against(wide.index, list(wide.index).index(answer), runs, validated).assign(auroc=overall, **more)
    observations = len(np.unique(runs.unit))
    rest = (validated, others if validated else None, tied, lacking, observations, runs.of)
    return Recommendation(scope, table, answer, choice, *rest)


def _left_out(sets: pd.DataFrame, costs: pd.DataFrame) -> Choice | None:
    """Return what the other OOD sets choose for each; None where there is one."""
    names = sets.columns.get_level_values("ood")
    if names.nunique() < 2:
        return None
    means = {ood: sets.loc[:, names != ood].T.groupby("id", sort=False).mean().mean() for ood in names.unique()}
    return _choice(sets, {ood: _first(mean, costs)[0] for ood, mean in means.items()})


def _choice(sets: pd.DataFrame, taken: dict[str, Candidate]) -> Choice:
    places: Any = list(sets)
    seen = pd.Series([float(sets[place][taken[place[1]]]) for place in places], sets.columns)
    return Choice(sets.max() - seen, _mean_over_sets(seen), taken)


def _mean_over_sets(numbers: pd.Series[float]) -> float:
    return float(numbers.groupby("id").mean().mean())


def _costs(cells: pd.DataFrame, keys: list[str], run: Sequence[str]) -> pd.DataFrame:
    """Return the seconds of each candidate, mean over runs; scoring is that of all OOD sets of a study together.

    Where rows tell, that is fitting, its clusters included, and the time of an item for each of these sets. Older rows
    do not: thresholds and settings of a scorer share its work, whose time is in those of the first, and all are given
    the most.
    """
    sums = cells.groupby([*keys, *run], sort=False).agg(
        family=("family of costs", "first"),
        train_seconds=("train_seconds", "first"),
        score_seconds=("score_seconds", "sum"),
        items=("n_ood", "sum"),
        **{name: (name, "first") for name in APART},
    )
    most = sums.groupby(["training", "family", *run], sort=False)["score_seconds"].transform("max")
    alone = sums["fit_seconds"] + sums["items"] * sums["item_seconds"]
    sums = sums.assign(score_seconds=most.where(most > 0) if alone.isna().any() else alone)
    return sums[list(COSTS)].groupby(keys, sort=False).mean()


def _first(numbers: pd.Series[float], costs: pd.DataFrame) -> tuple[Candidate, int]:
    """Return the candidate of the highest number and how many tie with it: the cheapest of these, then the first."""
    best = numbers.index[numbers >= numbers.max() - SAME]
    seconds = costs.loc[best, list(SECONDS)].sum(axis=1).to_numpy()
    return best[int(seconds.argmin())], len(best) - 1


def against(candidates: pd.Index[Any], answer: int, runs: Runs, validated: bool) -> pd.DataFrame:
    """Return of each candidate, a column of the runs' values, its difference from the answer, and if it is told apart.

    An answer that validation chose has its rivals, by Holm. One that is the best of the numbers that it is compared by
    may have been any of the candidates: all of their pairs count, by Bonferroni.
    """
    ahead = runs._replace(values=runs.values - runs.values[:, [answer]])
    found = pd.DataFrame(map(vars, paired(ahead)), index=candidates)
    found = found.rename(columns={"mean": "difference"}).assign(p_of_all=np.nan)
    rivals = np.arange(len(found)) != answer
    if found["observations"].max() >= LEAST:
        p = found.loc[rivals, "p"].to_numpy()
        found.loc[rivals, "p_of_all"] = holm(p) if validated else (p * math.comb(len(found), 2)).clip(max=1)
    return found.assign(told_apart=found["p_of_all"] <= ERROR)


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values (N,) that count that they are several (Holm 1979)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    found = np.empty_like(steps)
    found[order] = steps
    return found


def compared_costs(table: pd.DataFrame) -> list[str]:
    """Return the costs of a front: scoring only where rows do not tell fitting from an item's time."""
    there = [name for name in COSTS if name in table and table[name].notna().any()]
    return [name for name in there if name != "score_seconds" or "item_seconds" not in there]


def front(table: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates to which no other is at least equal in AUROC and every cost, and better in one."""
    costs = compared_costs(table)
    numbers = np.column_stack([-table["auroc"], *(table[name].fillna(np.inf) for name in costs)])  # lower is better
    on: list[int] = []
    for i in np.lexsort(numbers.T[::-1]):  # what beats a candidate comes before it
        better = numbers[on]
        if not ((better <= numbers[i]).all(1) & (better < numbers[i]).any(1)).any():
            on.append(int(i))
    return table.iloc[on]


# ---- writing --------------------------------------------------------------------------------------------


def sentences(found: Recommendation) -> list[str]:
    """Return the answer, what it is expected to cost, from how many rivals it is told apart, and what is cheaper."""
    many = len(found.table) - 1
    among = f"over {ALL}" if found.scope == ALL else f"of {found.scope}"
    tie = ("do", "tie") if found.tied > 1 else ("does", "ties")
    tied = f", as {tie[0]} {counted(found.tied, 'other')} that {tie[1]} with it" * (found.tied > 0)
    choice = found.choice
    said = [f"Of {counted(many + 1, 'detector')} {among}: {_name(found.answer)}{tied}."]
    said.append(
        f"On an OOD set that had no part in the choice: AUROC {choice.auroc:.1f} %, {choice.regret:.1f} points less "
        f"than the best detector of that set, {choice.regrets.max():.1f} at worst ({choice.worst}); means over "
        f"{counted(len(choice.regrets), 'set')}."
    )
    if found.validated:
        others = found.by_others
        beside = f"; chosen by the other OOD sets, it would cost {others.regret:.1f} points" if others else ""
        said.append(f"Chosen on the validation OOD{beside}.")
    else:
        same = sum(each == found.answer for each in choice.taken.values())
        times = f"{same} of {counted(len(choice.taken), 'time')}"
        other = "; else that AUROC is of what was chosen in its place" * (same < len(choice.taken))
        said.append(f"Chosen by all sets, and {times} without the set judged on{other}.")
    rows: Any = found.table
    level, accepted, rejected = rows.loc[found.answer, ["level", *DECIDED]].astype(float)
    if np.isfinite(accepted) and np.isfinite(rejected):
        at = f" at level {level:g}" * bool(np.isfinite(level))
        said.append(f"Its cut{at} accepts {accepted:.1f} % of ID test, and finds {rejected:.1f} % of OOD in the mean.")
    runs = counted(found.observations, found.of)
    if found.observations < LEAST:
        said.append(f"{runs}: no two detectors can be told apart, it takes {LEAST}.")
    else:
        undecided = "; the others are undecided" * (found.apart < many)
        said.append(f"{runs} tell it apart from {found.apart} of {counted(many, 'rival')}{undecided}.")
    said += [*_cheaper(found), *_smaller(found)]
    if found.lacking:
        names = ", ".join(map(_name, found.lacking[:NAMED])) + ", ..." * (len(found.lacking) > NAMED)
        said.append(f"No candidates, for numbers of theirs are missing: {len(found.lacking)} ({names}).")
    return said


def _cheaper(found: Recommendation) -> list[str]:
    cheapest = found.cheapest
    if cheapest is None:
        return ["No row says how long scoring took."]
    if cheapest == found.answer:
        return [f"Nothing cheaper is both not told apart and at most {POINTS} points behind."]
    rows: Any = found.table
    theirs, ours = rows.loc[cheapest], rows.loc[found.answer]
    interval = f" {ends(theirs['low'], theirs['high'])}" * bool(np.isfinite(theirs["low"]))
    seconds = " and ".join(
        f"{kind.removesuffix(', s')} {_short(theirs[cost])} s for {_short(ours[cost])}"
        for cost, kind in SECONDS.items()
        if theirs[cost] != ours[cost] and not np.isnan(theirs[cost])
    )
    difference = f"{signed(theirs['difference'])}{interval} points"
    return [f"Cheapest not told apart and at most {POINTS} points behind: {_name(cheapest)}, {difference}, {seconds}."]


def _smaller(found: Recommendation) -> list[str]:
    smallest = found.smallest
    if smallest is None or smallest == found.answer:
        return []
    rows: Any = found.table
    theirs, ours = (_cost(rows.loc[each, "fitted_bytes"], "fitted_bytes") for each in (smallest, found.answer))
    if theirs == ours:
        return []
    return [f"Of these the smallest in memory, the encoder apart: {_name(smallest)}, {theirs} kB for {ours}."]


def _name(candidate: Candidate) -> str:
    return " · ".join(candidate)


def answers(every: Sequence[Recommendation]) -> pd.DataFrame:
    """Return as text the answer of each training, what it costs, and from how many it is told apart."""
    return pd.DataFrame(
        {
            "among": [each.scope for each in every],
            "answer": [_name(each.answer) if each.scope == ALL else each.answer[1] for each in every],
            "AUROC": [spread(each.choice.auroc) for each in every],
            "regret": [spread(each.choice.regret) for each in every],
            "worst": [spread(each.choice.regrets.max()) for each in every],
            "told apart": [_of_rivals(each) for each in every],
        }
    )


def _of_rivals(found: Recommendation) -> str:
    return f"{found.apart} of {len(found.table) - 1}" if found.observations >= LEAST else NONE


def fronts(found: Recommendation) -> pd.DataFrame:
    """Return as text the candidates to which no other is preferable in AUROC and every cost."""
    table = front(found.table)
    costs = {COSTS[cost]: [_cost(each, cost) for each in table[cost]] for cost in compared_costs(found.table)}
    of = {"front": [*map(_name, table.index)], "AUROC of all sets": table["auroc"].map(spread)}
    return pd.DataFrame(of | costs)


def _cost(value: float, cost: str) -> str:
    return _short(value / UNIT.get(cost, 1))


def _short(seconds: float) -> str:
    return NONE if np.isnan(seconds) else f"{seconds:.2g}" if seconds < LONG else f"{seconds:,.0f}"


def caption(every: Sequence[Recommendation], floor: float | None = None) -> str:
    """Return what the numbers mean, and what they do not say."""
    validated = every[0].validated
    by = (
        "the AUROC of the ID reference against the validation OOD, mean over runs"
        if validated
        else "the mean AUROC over the other OOD sets than the one judged on; the answer by that over all"
    )
    family = (
        "Holm over all rivals"
        if validated
        else "Bonferroni over all pairs, for the answer is the best of the numbers that it is compared by"
    )
    lost = f" {explained(floor)}" * any(MARK in each.scope for each in every)
    costs = "Seconds are those of these rows on their machine: scoring is fitting and all OOD sets together. "
    if any("item_seconds" in compared_costs(each.table) for each in every):
        costs += (
            "Fitting has the clusters of each in it. An item: scoring one of ID test, given its features. Memory: the "
            "arrays that the fitted detector holds; settings that are fitted together have the same."
        )
    else:
        costs += (
            "Clusters and neighbours are fitted once, in the time of the scorer that came first. Older rows, as these, "
            "do not say what fitting, one image and memory cost."
        )
    return (
        f"Chosen by {by}. AUROC: per cent, mean over the sets that had no part in the choice; regret: points that the "
        "best detector of each set has more, mean and worst over the sets. That best one is picked on the test set "
        "itself, so that part of a regret is luck. told apart: rivals whose difference, paired by run, has p <= 0.05 "
        f"after {family}; what is not told apart is not therefore equal, and the "
        "error that the test images have in common is in no interval. Front: no other has at least its "
        f"AUROC, over all sets, at no more of any cost. {costs}{lost}"
    )


def sheet(every: Sequence[Recommendation], below: Sequence[str]) -> Sheet:
    """Return the answers as a table, what is said of each below it; its numbers are those of every candidate."""
    below = [*below, *(" ".join(sentences(each)) for each in every)]
    return Sheet(FILE, answers(every), below, pd.concat(map(_listed, every), ignore_index=True), 2)


def _listed(found: Recommendation) -> pd.DataFrame:
    chosen = found.table.index == found.answer
    on = found.table.index.isin(front(found.table).index)
    table = found.table.assign(among=found.scope, answer=chosen, cheapest=found.table.index == found.cheapest, front=on)
    numbers = {"held_out_auroc": found.choice.auroc, "regret": found.choice.regret, "worst": found.choice.regrets.max()}
    table = table.assign(**{name: np.where(chosen, number, np.nan) for name, number in numbers.items()})
    table = table.sort_values("auroc", ascending=False, kind="stable").reset_index()
    return table[["among", *(name for name in table if name != "among")]]
