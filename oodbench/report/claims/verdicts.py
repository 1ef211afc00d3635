"""Claims held against rows: which hold, which fail, which these rows do not decide. It knows rows alone, and, for
claims about clusters, what `oodbench quality` measured of them.

A claim is about the mean of left minus right, paired by run (ID classes, encoder and seed). It is about ID sets like
those of the study: where there are several, an ID set is one observation, the mean of its runs, for its seeds tell
nothing of other sets. So is an encoder where encoders are several and the ID set is one; of several ID sets the claim
is about these encoders. `ids: these` is about the sets at hand alone: errors within each are added, with degrees of
freedom by Satterthwaite (1946).

A claim holds where the one-sided 95 % t interval of the mean lies within what it says, and fails where it lies
outside; else it is open. What is to be above and lies within the margin on either side of 0 is equal (two one-sided
tests, Schuirmann 1987). The error of a mean is that over runs and, of AUROC where scores by image are kept, that of
the test images which these runs share. From ten runs on a bootstrap-t has to decide the same, else the claim is open.
Where one of several comparisons is enough to decide, their number divides the 5 % (Bonferroni). Each claim is tested
on its own; what does not stand when the 5 % are shared by all claims of a study (Holm 1979) says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import nct

from oodbench.report.claims import sides
from oodbench.report.claims.bootstrap import FROM, bootstrap_t
from oodbench.report.claims.estimates import (
    ERROR,
    LEAST,
    UNITS,
    Floats,
    ImageError,
    MeanEstimate,
    Runs,
    by_observation,
    estimate,
    interval,
)
from oodbench.report.claims.images import Covariance, ImageErrors, Where
from oodbench.report.formats import Sheet
from oodbench.report.tables import NotThereError, counted
from oodbench.report.unmade import UNMADE, sets_of
from oodbench.store.columns import LOWER_IS_BETTER, SHARES
from oodbench.study.declarations import POINTS, ClaimSpec
from oodbench.study.grid import NONE

HOLDS, FAILS, EQUAL, OPEN, MISSING = "holds", "fails", "equal", "open", "not enough data"
DECIDED = (HOLDS, FAILS, EQUAL)
POWER = 0.8  # that a claim is decided with as many more runs as an open one asks for
MOST = 1000  # runs that it asks for
PLACES = 3  # that a cell lists; of more it says the counts and the ends, and CSV has all
FILE = "verdict"


@dataclass(frozen=True)
class Evidence:
    """Differences over runs at one place: left minus right, or by how much one candidate is better than another."""

    place: str  # labels of `over`, "" without
    pair: str  # who is compared, where the claim does not say
    state: str
    difference: float
    error: float  # standard error over runs
    low: float  # one-sided 95 % each
    high: float
    runs: int
    wins: int  # runs in which left is above right
    lost: int  # runs in which a side has no number
    observations: int = 0
    of: str = "run"  # what an observation is
    more: int = 0  # observations that would decide what is open, where it is as it looks; MOST: so many, or more
    where_more: str = ""
    images: float = np.nan  # the part of the error that is of the test images; NaN where it is not known, and not in it
    d: float = np.nan  # the difference over the standard deviation of observations (within ID sets, if of these alone)
    bootstrap: str = ""  # what the bootstrap-t draws that checks the t interval; "" where there is none
    bootstrap_low: float = np.nan  # one-sided 95 % each
    bootstrap_high: float = np.nan
    by_t: str = ""  # the state by the t interval alone, where the bootstrap does not decide the same

    def text(self, unit: str) -> str:
        """Return `place (state): pair +1.2 ± 0.3 points, 5 runs, 4 above (3 more runs would decide it)`."""
        where = f"{self.place} ({self.state}): " if self.place else ""
        who = f"{self.pair} " if self.pair else ""
        spread = "" if np.isnan(self.error) else f" ± {self.error:.2f}"
        spread += "" if np.isnan(self.images) else f" ({self.images:.2f} of images)"
        within = f"{counted(self.observations, self.of)} of " if self.of != "run" else ""
        runs = f"{self.difference:+.2f}{spread}{unit}, {within}{counted(self.runs, 'run')}, {self.wins} above"
        lost = f", {self.lost} without a number" if self.lost else ""
        return f"{where}{who}{runs if self.runs else 'no run'}{lost}{self._checked()}{self._more()}"

    def _checked(self) -> str:
        if not self.by_t:
            return f", by bootstrap over {self.bootstrap} too" if self.bootstrap else ""
        by_t = f"{self.by_t} by t alone [{self.low:+.2f}, {self.high:+.2f}]"
        return (
            f", {by_t}, not by bootstrap over {self.bootstrap} [{self.bootstrap_low:+.2f}, {self.bootstrap_high:+.2f}]"
        )

    def _more(self) -> str:
        if self.more == MOST and not np.isnan(self.images):
            return f" (the test images are too few for over {MOST} more {self.of}s to decide it)"
        many = f"over {MOST} more {self.of}s" if self.more == MOST else counted(self.more, f"more {self.of}")
        return f" ({many}{self.where_more} would decide it)" if self.more else ""


Decision = tuple[str, list[Evidence], pd.DataFrame]  # the state of a claim, why, and the rows that have no number


@dataclass(frozen=True)
class ClaimVerdict:
    name: str
    claim: ClaimSpec
    state: str
    why: str = ""  # what is missing, "" where nothing is
    evidence: tuple[Evidence, ...] = ()
    lost: int = 0  # rows without a number: failed, or what they measure does not exist
    looks: int = 0  # while seeds were added
    alone_of: int = 0  # claims that share the 5 % among which it is not decided; 0 where it is, or is not decided alone

    @property
    def unit(self) -> str:
        return " points" if self.claim.value in SHARES else ""

    def text(self) -> str:
        """Return the evidence as one line."""
        lost = [f"{counted(self.lost, 'row')} without a number"] if self.lost else []
        best = ["settings picked on test"] if self.claim.pick == "best" else []
        alone = [f"not after Holm over {self.alone_of} claims"] if self.alone_of else []
        looks = [f"after {counted(self.looks, 'look')}"] if self.looks else []
        return "; ".join(filter(None, [self.why, *self._shown(), *lost, *best, *looks, *alone]))

    def more_runs(self) -> int:
        """Return how many more seeds an undecided claim asks for; 0 where it is decided, or seeds do not decide it."""
        undecided = (OPEN, MISSING)
        waiting = [each for each in self.evidence if each.state in undecided] if self.state in undecided else []
        if self.claim.table == "quality" or any(each.of != "run" for each in waiting):
            return 0
        return max((each.more or LEAST - each.runs for each in waiting), default=0)

    def _shown(self) -> list[str]:
        """Return each place, or, of many, how many are of which state, and the two at the ends."""
        if len(self.evidence) <= PLACES:
            return [each.text(self.unit) for each in self.evidence]
        counts = Counter(each.state for each in self.evidence)
        ends = sorted(self.evidence, key=lambda each: (np.isnan(each.difference), each.difference))
        last = max(self.evidence, key=lambda each: -np.inf if np.isnan(each.difference) else each.difference)
        states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
        return [f"{len(ends)} places, {states}", f"from {ends[0].text(self.unit)}", f"to {last.text(self.unit)}"]


def verdicts(
    rows: pd.DataFrame,
    claims: Mapping[str, ClaimSpec],
    clusters: pd.DataFrame | None = None,
    study: str = "STUDY",
    looks: Mapping[str, int] = MappingProxyType({}),
    images: ImageErrors | None = None,
) -> list[ClaimVerdict]:
    """Return what becomes of each claim; `clusters` are the measures of clusters, None where there are none.

    `images` know the errors of test images; without them these are in no error.

    Of a claim that `run --until-decided` has looked at k times the last look has a share 1 / 2^k of the 5 %, so that
    all looks together err no more often (alpha spending, Lan and DeMets 1983).
    """

    def judged(name: str, family: int) -> ClaimVerdict:
        found = verdict(rows, name, claims[name], clusters, study, family * 2 ** looks.get(name, 0), images)
        return replace(found, looks=looks.get(name, 0))

    found = {name: judged(name, 1) for name in claims}
    tested = sum(each.state != MISSING for each in found.values())
    alone, before = {name for name, each in found.items() if each.state in DECIDED}, -1
    decided = len(alone)
    while len(alone) not in (0, before):  # Holm's steps: what is decided leaves more of the 5 % to the others
        before = len(alone)
        family = tested - (decided - before)
        alone = {name for name in alone if judged(name, family).state != found[name].state}
    return [replace(each, alone_of=tested if name in alone else 0) for name, each in found.items()]


def verdict(
    rows: pd.DataFrame,
    name: str,
    claim: ClaimSpec,
    clusters: pd.DataFrame | None = None,
    study: str = "STUDY",
    family: int = 1,
    images: ImageErrors | None = None,
) -> ClaimVerdict:
    """Return whether a claim holds on rows, or on the measures of their clusters, and by which numbers.

    `family` is how many claims share the 5 %.
    """
    try:
        if claim.table == "quality":
            rows = sides.of_clusters(rows, claim, clusters, study)
        asked = _Asked(name, claim, family, images)
        state, evidence, lost = (_best if claim.among else _comparison)(sides.about(rows, claim), asked)
    except NotThereError as missing:
        return ClaimVerdict(name, claim, MISSING, str(missing))
    each = ", two in each ID set" if claim.ids == "these" else ""
    why = f"wanted are {LEAST} runs of both sides{each}" if state == MISSING else ""
    if names := sets_of(lost):
        why = f"{'cannot be decided: ' * (state in (MISSING, OPEN))}rows of {names} are missing"
    return ClaimVerdict(name, claim, state, why, tuple(evidence), int((lost["status"] != UNMADE).sum()))


# ---- kinds of claims ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    name: str
    claim: ClaimSpec
    family: int  # claims that share the 5 %
    images: ImageErrors | None

    def shared(
        self, parts: Sequence[tuple[int, pd.DataFrame]], numbers: pd.Series[float], candidates: pd.Index | None = None
    ) -> dict[Where, Covariance]:
        """Return the errors of images by place and ID set, of rows that are in a number with a sign each."""
        if self.images is None or not self.claim.by_image:
            return {}

        by = self.claim.among

        def made() -> pd.DataFrame:
            weighted = [(sign, sides.weighted(each, self.claim, by)) for sign, each in parts]
            rows = pd.concat([each.assign(weight=sign * each["weight"]) for sign, each in weighted])
            rows = sides.over_runs(rows, numbers, self.claim, by)
            places = {who: i for i, who in enumerate(_tuples(candidates.to_frame()))} if candidates is not None else {}
            return rows.assign(
                weight=100 * rows["weight"], who=[places[each] for each in _tuples(rows[list(by)])] if by else 0
            )

        return self.images.errors(self.name, made)

    def at(self, place: str, runs: Runs, found: Mapping[Where, Covariance]) -> list[Covariance]:
        """Return the errors of images of the blocks of runs at a place; none where one is unknown.

        ID sets that are observations have images of their own.
        """
        if runs.of == UNITS["id"] and self.claim.ids != "these":
            return []
        there = [found.get((place, id_)) for id_ in runs.ids]
        return [each for each in there if each is not None] if None not in there else []


def _comparison(rows: pd.DataFrame, asked: _Asked) -> Decision:
    claim, family = asked.claim, asked.family
    seen: list[pd.DataFrame] = []

    def ahead(rows: pd.DataFrame) -> pd.Series[float]:
        seen.extend(sides.side(rows, claim, of) for of in (claim.left, claim.right))
        left, right = (sides.numbers(each, claim) for each in seen[-2:])
        both, common = left.sub(right), left.index.intersection(right.index)
        return both[both.index.isin(common)] if len(common) else both  # NaN where one has no number

    differences = ahead(sides.there(rows, claim.at)) - ahead(sides.there(rows, claim.than)) if claim.at else ahead(rows)
    places = {str(place): by_observation(each) for place, each in differences.groupby("place", sort=False)}
    enough = family * (1 if claim.where == "all" else len(places))
    shared = asked.shared(list(zip((1, -1, -1, 1), seen, strict=False)), differences)
    found = [
        _evidence(
            claim, runs, enough, family * len(places), [each.of(0) for each in asked.at(place, runs, shared)], place
        )
        for place, runs in places.items()
    ]
    lost = pd.concat([each[each["number"].isna()] for each in seen])
    return _together(claim, [each.state for each in found]), found, lost


def _tuples(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(frame.itertuples(index=False, name=None))


def _best(rows: pd.DataFrame, asked: _Asked) -> Decision:
    """Return whether the winner is ahead of every other candidate; without one, whether every candidate is not."""
    claim, family = asked.claim, asked.family
    for column, wanted in claim.winner.items():
        sides.there(rows, {column: wanted})
    rows = sides.side(rows, claim, {})
    sign = -1 if claim.value in LOWER_IS_BETTER else 1
    numbers = sign * sides.numbers(rows, claim, claim.among)
    wide = numbers.unstack(list(claim.among), sort=False)
    shared = asked.shared([(sign, rows)], numbers, wide.columns)
    names = [" · ".join(map(str, each)) for each in wide.columns.to_frame().itertuples(index=False)]
    places = {str(place): by_observation(each) for place, each in wide.groupby(level="place", sort=False)}
    if len(names) < 2:
        raise NotThereError(f"there is no one to be ahead of {names[0]}")
    winner = " · ".join(str(claim.winner[label]) for label in claim.among) if claim.winner else None
    if winner is not None and winner not in names:
        raise NotThereError(f"no row is of {winner}")
    decided = family * len(places) * (len(names) - 1)  # comparisons, one of which is enough to lose
    enough = family * (1 if claim.where == "all" else len(places)) * (1 if winner else len(names))

    def against(place: str, who: int, rival: int, ask: bool = False) -> Evidence:
        runs, pair = places[place], f"{names[who]} against {names[rival]}"
        ahead = runs._replace(values=runs.values[:, who] - runs.values[:, rival])
        images = [each.of(who, rival) for each in asked.at(place, runs, shared)]
        return _evidence(claim, ahead, enough, decided, images, place, pair, ask)

    def wins(who: int) -> str:
        rivals = [each for each in range(len(names)) if each != who]
        return _together(claim, [_all(against(place, who, each).state for each in rivals) for place in places])

    def closest(place: str) -> Evidence:
        """Return the winner, or the highest candidate, against the highest of the others."""
        means = np.array([_mean(column) for column in places[place].values.T])
        order = [int(each) for each in np.argsort(-means, kind="stable")]
        who = names.index(winner) if winner is not None else order[0]
        return against(place, who, next(each for each in order if each != who), ask=True)

    if winner is not None:
        state = wins(names.index(winner))
    else:
        turned = {HOLDS: FAILS, FAILS: HOLDS, EQUAL: HOLDS}  # who is not ahead, or is equal, is no winner
        state = _all(turned.get(each, each) for each in map(wins, range(len(names))))
    return state, [closest(place) for place in places], rows[rows["number"].isna()]


# ---- numbers to states ----------------------------------------------------------------------------------


def _evidence(
    claim: ClaimSpec,
    runs: Runs,
    enough: int,
    decided: int,
    images: Sequence[ImageError],
    place: str,
    pair: str = "",
    ask: bool = True,
) -> Evidence:
    """Return what differences say: `enough` and `decided` are how many such a holding or a failing one is picked of.

    `images`: what they add to the error; `ask`: also how many more observations would decide what is open, which takes
    long.
    """
    there = ~np.isnan(runs.values)
    these = claim.ids == "these" and runs.of == UNITS["id"]
    values, found = runs.values[there], estimate(runs, these, images)
    decided *= 2 if claim.relation == "near" else 1
    by_t = state = MISSING
    error, low, high, more, checked = float(found.spread()[0]), np.nan, np.nan, 0, None
    known = not np.isnan(error)
    if known and len(values) >= LEAST:
        by_t = state = _state(claim, partial(interval, found), enough, decided)
        low, high = interval(found, 1)
        if ask or state != OPEN:
            checked = bootstrap_t(runs._replace(values=values, unit=runs.unit[there]), found, these)
        if checked:
            state = _state(claim, checked.with_t, enough, decided)
        if ask and state == OPEN:
            more = _more(claim, checked.wider() if checked and state != by_t else found, enough, decided)
    mean = found.mean if known else _mean(values)
    count = len(values) if these else int(found.size[0])
    seen = (error, low, high, len(values), int((values > 0).sum()), int((~there).sum()), count)
    of, where_more = ("run", f" in each {runs.of}") if these else (runs.of, "")
    spread = float(np.sqrt(found.variance.mean()))
    sizes = (found.of_images if known else np.nan, mean / spread if spread > 0 else np.nan)
    over, ends = (f"{of}s{checked.shared}", checked.interval(1)) if checked else ("", (np.nan, np.nan))
    alone = by_t if state != by_t else ""
    return Evidence(place, pair, state, mean, *seen, of, more, where_more, *sizes, over, *ends, alone)


def _state(claim: ClaimSpec, ends: Callable[[int], tuple[float, float]], enough: int, decided: int) -> str:
    """Return what an interval says, given its ends at a share of the error."""
    if _region(claim, *ends(enough)) == HOLDS:
        return HOLDS
    beyond = _region(claim, *ends(decided))
    return beyond if beyond in (FAILS, EQUAL) else OPEN


def _mean(values: Floats) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def _region(claim: ClaimSpec, low: float, high: float) -> str:
    """Return where an interval lies: within what a claim says, outside of it, or across its edge."""
    margin = claim.least
    if claim.relation == "above":
        inside, outside = low > margin, high <= margin
    elif claim.relation == "at_least":
        inside, outside = low >= -margin, high < -margin
    else:
        inside, outside = low >= -margin and high <= margin, low > margin or high < -margin
    equal = claim.relation == "above" and margin > 0 and low >= -margin
    return HOLDS if inside else OPEN if not outside else EQUAL if equal else FAILS


def _more(claim: ClaimSpec, found: MeanEstimate, enough: int, decided: int) -> int:
    """Return how many more observations, in each block, decide with 80 % power where mean and spread are as they look.

    Of a claim that is to be near both ends have to be kept: the power is at least the sum of both less 1.
    """
    near, edge = claim.relation == "near", -claim.least if claim.relation == "at_least" else claim.least
    ahead = abs(found.mean) < edge if near else found.mean > edge
    ends = [edge - found.mean, edge + found.mean] if near and ahead else [abs(abs(found.mean) - edge)]
    ends = ends if near else [abs(found.mean - edge)]
    error, freedom = found.spread(np.arange(1.0, MOST))
    wanted = stdtrit(freedom, 1 - ERROR / (enough if ahead else decided))
    power = sum(nct.sf(wanted, freedom, end / error) for end in ends) - (len(ends) - 1)
    reached = np.flatnonzero(power >= POWER)
    return int(reached[0]) + 1 if len(reached) else MOST


def _all(states: Iterable[str]) -> str:
    """Return whether all hold: one that fails decides, or is equal, then one without data, then one that is open."""
    found = set(states)
    return next((each for each in (FAILS, EQUAL, MISSING, OPEN) if each in found), HOLDS)


def _together(claim: ClaimSpec, states: list[str]) -> str:
    """Return whether a claim holds on all of its places, or on more than half of them."""
    if claim.where != "most":
        return _all(states)
    if 2 * states.count(HOLDS) > len(states):
        return HOLDS
    if 2 * (states.count(FAILS) + states.count(EQUAL)) >= len(states):
        return FAILS if FAILS in states else EQUAL
    return MISSING if MISSING in states else OPEN


# ---- writing --------------------------------------------------------------------------------------------


def caption(found: list[ClaimVerdict]) -> str:
    """Return what the states mean."""
    picked = any(each.claim.pick == "best" for each in found)
    best = " Where settings were picked on test, the sides are what no one could have chosen beforehand." * picked
    units = {line.of for each in found for line in each.evidence} - {"run"}
    several = (
        f" Where {' or '.join(f'{each}s' for each in sorted(units))} are several, each is one observation."
        if units
        else ""
    )
    looks = " Of k looks, while seeds were added, the last has a share 1 / 2^k of the 5 %." * any(
        each.looks for each in found
    )
    these = " Of `ids: these` the claim is about these ID sets alone." * any(
        each.claim.ids == "these" for each in found
    )
    return (
        "Mean difference of the sides, left minus right, ± its standard error over runs (ID classes, encoder, seed), "
        f"paired by run; points are of per cent.{several}{these} holds: the one-sided 95 % t interval lies within what "
        f"the claim says; fails: it lies outside; equal: neither side is ahead by over the margin, {POINTS} points "
        "where none is said; open: these rows do not decide it, and how many more would, with 80 % power, if mean and "
        "spread are as they look. Where one of several comparisons decides, their number divides the 5 %; what does "
        f"not stand when all claims share it, by Holm, says so.{looks}{_of_images(found)}{_by_bootstrap(found)}{best}"
    )


def _of_images(found: list[ClaimVerdict]) -> str:
    """Return of which claims the error of images is known."""
    lines = [each for one in found for each in one.evidence if not np.isnan(each.error) and each.of != UNITS["id"]]
    known = sum(not np.isnan(each.images) for each in lines)
    where = "in no error" if not known else "only where it says so (of images) in the error" * (known < len(lines))
    said = f" What the runs of an ID set share, the draw of its test images, is {where}." if where else ""
    return said + " Of images: DeLong's error, paired by image." * bool(known)


def _by_bootstrap(found: list[ClaimVerdict]) -> str:
    checked = any(line.bootstrap for each in found for line in each.evidence)
    said = (
        f" From {FROM} observations on a claim is decided where the bootstrap-t interval (over runs and, where their "
        "error is known, test images) says what the t interval says; else it is open, or what both say."
    )
    return said * checked


def sheet(found: list[ClaimVerdict], about: str = "") -> Sheet:
    """Return a table with a row for each claim, its numbers a row for each claim and place; `about` are the rows."""
    text = {
        "claim": [each.claim.says for each in found],
        "verdict": [each.state for each in found],
        "evidence": [each.text() or NONE for each in found],
        "source": [each.claim.source or NONE for each in found],
    }
    numbers = pd.DataFrame(list(_listed(found)))
    return Sheet(FILE, pd.DataFrame(text), [about + caption(found)], numbers, len(text))


def _listed(found: list[ClaimVerdict]) -> Iterator[dict[str, Any]]:
    """Yield each claim at each place, with unrounded numbers."""
    for each in found:
        about: dict[str, Any] = {"claim": each.name, "says": each.claim.says, "source": each.claim.source}
        about |= {"verdict": each.state, "why": each.why, "value": each.claim.value, "picked": each.claim.pick}
        about |= {"margin": each.claim.least, "alone_of": each.alone_of}
        nothing = Evidence("", "", each.state, np.nan, np.nan, np.nan, np.nan, 0, 0, 0)
        yield from (about | {"lost_rows": each.lost} | vars(line) for line in each.evidence or (nothing,))
