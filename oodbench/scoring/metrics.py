"""Two score arrays to numbers. Higher score = more OOD; the positive class is in a metric's name.

Everything follows from one sort: `curve` counts, at each distinct score, how many ID and OOD items score at
least that much. Scores are float64, equal scores are one point of the curve, no point is dropped and
nothing is interpolated. In the formulas t runs over the distinct scores and "called OOD" means score >= t:

    FPR(t) = share of ID called OOD          TPR(t) = share of OOD called OOD
    auroc            area under TPR over FPR by trapezoids = P(ood > id) + P(ood = id) / 2
    fpr95_id         share of OOD accepted where at least 95 % of ID is accepted, the least of such shares
                     (most papers: SSD, KNN, CIDER, outlier exposure); fpr80_id, fpr90_id, fpr99_id likewise
    fpr95_ood        share of ID rejected where at least 95 % of OOD is found, the least of such shares
                     (OpenOOD since 2023-08, pytorch-ood); fpr80_ood, fpr90_ood, fpr99_ood likewise
    aupr_out         area under precision over recall, OOD positive, by trapezoids; aupr_out_ap: average
                     precision, the sum of precision x step in recall
    aupr_in          the same with ID positive and the score negated; aupr_in_ap likewise
    prevalence       share of OOD among all items: what AUPR-out of a score worth nothing is
    detection_error  the least over t of (FPR + 1 - TPR) / 2
    autc             area under the threshold curve: (mean of u over ID + mean of 1 - u over OOD) / 2, where u is
                     the score scaled to [0, 1] by the least and greatest of all items; that is the mean of FPR
                     and 1 - TPR over all cuts of [0, 1] (Humblot-Renaux 2023, arXiv 2306.14658; scaled as in
                     pytorch-ood). The only one that depends on more than the order of scores
    oscr             open-set classification rate: area under the share of ID that is accepted and classified
                     right over the share of OOD accepted (Dhamija 2018, arXiv 1811.04110), ties by trapezoids
                     as in pytorch-ood = P(classified right and ood > id) + P(classified right and ood = id) / 2
    ties             share of items whose score another item has, too

And at the cut of a threshold, where score > cut is called OOD: TP and FN of OOD, FP and TN of ID:

    id_recall          TN / (TN + FP)         ood_recall  TP / (TP + FN)
    balanced_accuracy  (id_recall + ood_recall) / 2
    f1                 2 TP / (2 TP + FP + FN), OOD positive; 0 where no OOD is found

docs/metrics.md says which papers use which, and what `oodbench.compat` reproduces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oodbench.toolkit.counts import least_count

Floats = NDArray[np.float64]

FEW = 30  # items of a set: one more or less moves an AUROC by points
LARGE = 900  # exponent of scores whose differences and sums might be infinite
LEVELS = (0.8, 0.9, 0.95, 0.99)  # of the FPRs that a row has


@dataclass(frozen=True, eq=False)
class Curve:
    """Counts at each distinct score, from the highest down: items that score at least that much.

    The counts are whole numbers kept as float64: they are divided all the time.
    """

    id_: Floats  # (T,) the last is the number of ID items
    ood: Floats  # (T,) the last is the number of OOD items
    correct: Floats | None = None  # (T,) ID items that the classifier gets right

    @property
    def fpr(self) -> Floats:
        return np.asarray(self.id_ / self.id_[-1])

    @property
    def tpr(self) -> Floats:
        return np.asarray(self.ood / self.ood[-1])

    @cached_property
    def new_id(self) -> Floats:
        """ID items at each distinct score."""
        return np.diff(self.id_, prepend=0.0)

    @cached_property
    def new_ood(self) -> Floats:
        """OOD items at each distinct score."""
        return np.diff(self.ood, prepend=0.0)

    @cached_property
    def precision(self) -> Floats:
        """Share of OOD among the items that score at least so much."""
        return np.asarray(self.ood / (self.ood + self.id_))

    @cached_property
    def turned(self) -> Curve:
        """The curve of the negated scores with ID for OOD and OOD for ID: ID is what is to be found."""
        ood, id_ = (n[-1] - (n - new) for n, new in ((self.id_, self.new_id), (self.ood, self.new_ood)))
        return Curve(np.flip(id_).copy(), np.flip(ood).copy())


class Ranked:
    """ID scores, sorted once, to be set against any number of OOD sets."""

    def __init__(self, id_: Floats, correct: ArrayLike | None = None) -> None:
        """Take the ID scores and which of the items the classifier gets right, both (n_id,)."""
        self._id = _finite(id_, "ID")
        self._falling = -self._id
        self._right: Floats | None = None  # (n_id + 1,) classified right among the first so many
        if correct is None:
            self._falling.sort()
            return
        right = np.asarray(correct, dtype=bool)
        if right.shape != self._falling.shape:
            raise ValueError(f"correct has the shape {right.shape}, for {len(self._falling)} ID scores")
        order = np.argsort(self._falling)
        self._falling = self._falling[order]
        self._right = np.append(0.0, np.cumsum(right[order]))

    def against(self, ood: Floats) -> Curve:
        """Return the counts that all ranking metrics are made of; raises ValueError on NaN, infinity or nothing."""
        falling = -_finite(ood, "OOD")
        falling.sort()
        both = np.concatenate([self._falling, falling])
        order = np.argsort(both, kind="stable")  # finds two sorted runs and merges them
        both = both[order]
        ends = np.append(both[1:] != both[:-1], True)  # of groups of equal scores
        last = slice(None) if ends.all() else np.flatnonzero(ends)
        found = np.cumsum(order >= len(self._falling))[last].astype(np.float64)
        id_ = np.arange(1.0, len(both) + 1)[last] - found
        right = None if self._right is None else self._right[id_.astype(np.intp)]
        return Curve(id_, found, right)

    def ranking(self, ood: Floats, levels: Sequence[float] = LEVELS) -> dict[str, float]:
        """Return every metric that needs no threshold, as shares; `levels` are those of the FPRs.

        `oscr` is among them where it is known which ID items are classified right.
        """
        c = self.against(ood)
        numbers = {name: metric(c) for name, metric in RANKING.items()}
        for level in levels:
            numbers[f"fpr{100 * level:g}_id"] = fpr_at_id_recall(c, level)
            numbers[f"fpr{100 * level:g}_ood"] = fpr_at_ood_recall(c, level)
        numbers["autc"] = autc(self._id, np.asarray(ood, dtype=np.float64))
        if c.correct is not None:
            numbers["oscr"] = oscr(c)
        return numbers


class Rankings:
    """Rankings of many pairs of ID and OOD scores, none computed twice.

    Pairs with the same ID scores share their sort; a pair that was there before (two thresholds that calibrate
    alike) shares its numbers.
    """

    def __init__(self, correct: ArrayLike | None = None, levels: Sequence[float] = LEVELS) -> None:
        self._correct, self._levels = correct, levels
        self._ranked: dict[bytes, Ranked] = {}  # by the bytes of ID scores
        self._known: dict[tuple[bytes, bytes], dict[str, float]] = {}

    def __call__(self, id_: Floats, ood: Floats) -> dict[str, float]:
        """Return what `ranking` returns."""
        mine, pair = id_.tobytes(), (id_.tobytes(), ood.tobytes())
        if mine not in self._ranked:
            self._ranked[mine] = Ranked(id_, self._correct)
        if pair not in self._known:
            self._known[pair] = self._ranked[mine].ranking(ood, self._levels)
        return self._known[pair].copy()


def _finite(scores: Floats, name: str) -> Floats:
    """Return scores as float64; raises ValueError on NaN, infinity or nothing."""
    if not len(scores):
        raise ValueError(f"there are no {name} scores")
    finite = np.isfinite(scores)
    if not finite.all():
        raise ValueError(f"{int((~finite).sum())} of {len(scores)} {name} scores are NaN or infinite")
    return np.array(scores, dtype=np.float64)


def curve(id_: Floats, ood: Floats, correct: ArrayLike | None = None) -> Curve:
    """Return the counts that all ranking metrics are made of; raises ValueError on NaN, infinity or nothing."""
    return Ranked(id_, correct).against(ood)


def ranking(
    id_: Floats, ood: Floats, levels: Sequence[float] = LEVELS, correct: ArrayLike | None = None
) -> dict[str, float]:
    """Return every metric that needs no threshold, as shares; see `Ranked` for many OOD sets of one ID set."""
    return Ranked(id_, correct).ranking(ood, levels)


def auroc(c: Curve) -> float:
    return float(np.sum(c.new_id * (2 * c.ood - c.new_ood)) / 2 / (c.id_[-1] * c.ood[-1]))


def fpr_at_id_recall(c: Curve, level: float = 0.95) -> float:
    """Return the share of OOD accepted at the strictest cut that accepts at least `level` of ID."""
    return fpr_at_ood_recall(c.turned, level)


def fpr_at_ood_recall(c: Curve, level: float = 0.95) -> float:
    """Return the share of ID rejected at the strictest cut that finds at least `level` of OOD."""
    if not 0 <= level <= 1:
        raise ValueError(f"the level {level} is not within 0 and 1")
    needed = least_count(level, int(c.ood[-1]))
    return float(c.id_[np.searchsorted(c.ood, needed)] / c.id_[-1]) if needed > 0 else 0.0


def aupr_out(c: Curve) -> float:
    """Return the area under precision over recall from recall 0 on, where the precision is 1, as in scikit-learn."""
    first, later = c.new_ood[0], np.sum(c.new_ood[1:] * c.precision[:-1])
    return float((aupr_out_ap(c) + (first + later) / c.ood[-1]) / 2)


def aupr_out_ap(c: Curve) -> float:
    return float(np.sum(c.new_ood * c.precision) / c.ood[-1])


def aupr_in(c: Curve) -> float:
    return aupr_out(c.turned)


def aupr_in_ap(c: Curve) -> float:
    return aupr_out_ap(c.turned)


def prevalence(c: Curve) -> float:
    """Return the share of OOD among all items."""
    return float(c.ood[-1] / (c.id_[-1] + c.ood[-1]))


def detection_error(c: Curve) -> float:
    n_id, n_ood = c.id_[-1], c.ood[-1]
    return float((1 - np.max(c.ood * n_id - c.id_ * n_ood) / (n_id * n_ood)) / 2)


def autc(id_: Floats, ood: Floats) -> float:
    """Return the area under the threshold curve; that of a constant score is 0.5, as of any score worth nothing."""
    low, high = min(id_.min(), ood.min()), max(id_.max(), ood.max())
    _, size = np.frexp(max(abs(low), abs(high)))
    if size > LARGE:  # a power of 2 less changes no digit
        return autc(np.ldexp(id_, -size), np.ldexp(ood, -size))
    span = high - low
    return float((1 + ((id_ - low).mean() - (ood - low).mean()) / span) / 2) if span else 0.5


def oscr(c: Curve) -> float:
    """Return the open-set classification rate; at most the accuracy. Raises ValueError where `correct` is not known."""
    if c.correct is None:
        raise ValueError("oscr needs to know which ID items are classified right")
    accepted = 2 * (c.correct[-1] - c.correct) + np.diff(c.correct, prepend=0.0)  # twice: ties count half
    return float(np.sum(c.new_ood * accepted) / 2 / (c.id_[-1] * c.ood[-1]))


def ties(c: Curve) -> float:
    """Return the share of items whose score another item has, too."""
    items = c.id_[-1] + c.ood[-1]
    return float((items - np.count_nonzero(c.new_id + c.new_ood == 1)) / items)


RANKING: dict[str, Callable[[Curve], float]] = {
    "auroc": auroc,
    "aupr_in": aupr_in,
    "aupr_in_ap": aupr_in_ap,
    "aupr_out": aupr_out,
    "aupr_out_ap": aupr_out_ap,
    "prevalence": prevalence,
    "detection_error": detection_error,
    "ties": ties,
}


def recalls(id_: Floats, ood: Floats, cut: float) -> dict[str, float]:
    """Return what a rule gets right, where score <= cut is accepted: recalls, balanced accuracy and F1 of OOD."""
    rejected, found = np.count_nonzero(id_ > cut), np.count_nonzero(ood > cut)
    id_recall, ood_recall = 1 - rejected / len(id_), found / len(ood)
    return {
        "id_recall": id_recall,
        "ood_recall": ood_recall,
        "balanced_accuracy": (id_recall + ood_recall) / 2,
        "f1": 2 * found / (found + rejected + len(ood)),
    }


def warnings(numbers: dict[str, float], title: str, sizes: Sequence[int] = ()) -> list[str]:
    """Return what a reader has to know about a ranking of so many items; `title` names the distance and the set."""
    found = []
    if (few := min(sizes, default=FEW)) < FEW:
        found.append(f"{few} item{'s' * (few > 1)} on a side: {title}")
    if numbers["auroc"] < 0.5:
        found.append(f"AUROC below 50: {title} takes OOD for ID")
    if numbers["ties"] == 1 and numbers["detection_error"] == numbers["auroc"] == 0.5:
        found.append(f"constant score: {title}")
    elif numbers["ties"] > 0.01:
        found.append(f"{100 * numbers['ties']:.0f} % of scores tied: {title}")
    return found
