"""Two score arrays to numbers. Higher score = more OOD; the positive class is in a metric's name.

Everything follows from one sort: `curve` counts, at each distinct score, how many ID and OOD items score at
least that much. Scores are float64, equal scores are one point of the curve, no point is dropped and
nothing is interpolated. In the formulas t runs over the distinct scores and "called OOD" means score >= t:

    FPR(t) = share of ID called OOD          TPR(t) = share of OOD called OOD
    auroc            area under TPR over FPR by trapezoids = P(ood > id) + P(ood = id) / 2
    fpr95_id         share of OOD accepted where at least 95 % of ID is accepted, the least of such shares
                     (most papers: SSD, KNN, CIDER, outlier exposure)
    fpr95_ood        share of ID rejected where at least 95 % of OOD is found, the least of such shares
                     (OpenOOD since 2023-08, pytorch-ood)
    aupr_out         area under precision over recall, OOD positive, by trapezoids; aupr_out_ap: average
                     precision, the sum of precision x step in recall
    aupr_in          the same with ID positive and the score negated; aupr_in_ap likewise
    detection_error  the least over t of (FPR + 1 - TPR) / 2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """Counts at each distinct score, from the highest down: items that score at least that much."""

    id_: NDArray[np.int64]  # (T,) the last is the number of ID items
    ood: NDArray[np.int64]  # (T,) the last is the number of OOD items

    @property
    def fpr(self) -> Floats:
        return np.asarray(self.id_ / self.id_[-1])

    @property
    def tpr(self) -> Floats:
        return np.asarray(self.ood / self.ood[-1])


def curve(id_: Floats, ood: Floats) -> Curve:
    """Return the counts that all ranking metrics are made of; raises ValueError on NaN, infinity or nothing."""
    for name, scores in (("ID", id_), ("OOD", ood)):
        if not len(scores):
            raise ValueError(f"there are no {name} scores")
        if not np.isfinite(scores).all():
            raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} {name} scores are NaN or infinite")
    scores = np.concatenate([id_, ood]).astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    is_ood = (order >= len(id_)).astype(np.int64)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of equal scores
    found = np.cumsum(is_ood)[last]
    return Curve(last + 1 - found, found)


def auroc(c: Curve) -> float:
    return _trapezoid(np.append(0.0, c.tpr), np.append(0.0, c.fpr))


def fpr_at_id_recall(c: Curve, level: float = 0.95) -> float:
    """Return the share of OOD accepted at the loosest cut that accepts at least `level` of ID."""
    accepted = (c.id_[-1] - np.append(0, c.id_)) / c.id_[-1]  # of ID, from "accept all" on; falls
    found = np.append(0.0, c.tpr)
    return float(1 - found[accepted >= level].max())


def fpr_at_ood_recall(c: Curve, level: float = 0.95) -> float:
    """Return the share of ID rejected at the strictest cut that finds at least `level` of OOD."""
    return float(c.fpr[c.tpr >= level].min())


def aupr_out(c: Curve) -> float:
    return _trapezoid(*_precision_recall(c.ood, c.id_))


def aupr_out_ap(c: Curve) -> float:
    return _average_precision(*_precision_recall(c.ood, c.id_))


def aupr_in(c: Curve) -> float:
    return _trapezoid(*_precision_recall(*_id_positive(c)))


def aupr_in_ap(c: Curve) -> float:
    return _average_precision(*_precision_recall(*_id_positive(c)))


def detection_error(c: Curve) -> float:
    return float(min(0.5, ((c.fpr + 1 - c.tpr) / 2).min()))


def _id_positive(c: Curve) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return counts of ID and of OOD that score at most so much, from the lowest score up."""
    below = [np.append(counts[-1] - counts[:-1][::-1], counts[-1]) for counts in (c.id_, c.ood)]
    return below[0], below[1]


def _precision_recall(true: NDArray[np.int64], false: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return precision and recall from recall 0, where the precision is 1, as scikit-learn has it."""
    precision = true / (true + false)
    return np.append(1.0, precision), np.append(0.0, true / true[-1])


def _trapezoid(height: Floats, place: Floats) -> float:
    return float(np.sum(np.diff(place) * (height[1:] + height[:-1])) / 2)


def _average_precision(precision: Floats, recall: Floats) -> float:
    return float(np.sum(np.diff(recall) * precision[1:]))


def prevalence(c: Curve) -> float:
    """Return the share of OOD among all items."""
    return float(c.ood[-1] / (c.id_[-1] + c.ood[-1]))


def ties(c: Curve) -> float:
    """Return the share of items whose score another item has, too."""
    sizes = np.diff(c.id_ + c.ood, prepend=0)
    return float(sizes[sizes > 1].sum() / sizes.sum())


RANKING: dict[str, Callable[[Curve], float]] = {
    "auroc": auroc,
    "aupr_in": aupr_in,
    "aupr_in_ap": aupr_in_ap,
    "aupr_out": aupr_out,
    "aupr_out_ap": aupr_out_ap,
    "prevalence": prevalence,
    "fpr95_id": fpr_at_id_recall,
    "fpr95_ood": fpr_at_ood_recall,
    "detection_error": detection_error,
    "ties": ties,
}


def ranking(id_: Floats, ood: Floats) -> dict[str, float]:
    """Return every metric that depends on the order of scores only, as shares."""
    c = curve(id_, ood)
    return {name: metric(c) for name, metric in RANKING.items()}


def recalls(id_: Floats, ood: Floats, cut: float) -> dict[str, float]:
    """Return the shares that a rule gets right: of ID accepted (score <= cut), of OOD found (score > cut)."""
    return {"id_recall": float((id_ <= cut).mean()), "ood_recall": float((ood > cut).mean())}


def warnings(numbers: dict[str, float], title: str) -> list[str]:
    """Return what a reader has to know about a ranking; `title` names the distance and the set."""
    found = []
    if numbers["auroc"] < 0.5:
        found.append(f"AUROC below 50: {title} takes OOD for ID")
    if numbers["ties"] == 1 and numbers["detection_error"] == 0.5:
        found.append(f"constant score: {title}")
    elif numbers["ties"] > 0.01:
        found.append(f"{100 * numbers['ties']:.0f} % of scores tied: {title}")
    return found
