"""Published numbers' own rules on the same scores: what each codebase calls FPR95 and AUPR.

Higher score = more OOD here as everywhere in oodbench; a codebase that scores confidence gets the negated score.
Rules agree within a few items where scores are smooth and the positive class is the same; ties tear them apart,
up to 0 against 1 on a constant score. Named by codebase, with the file that was read:

    rule         positive  FPR95 is taken                                 where
    openood      OOD       first point of scikit-learn's ROC with         openood/evaluators/metrics.py since
                           TPR >= 0.95 (points in line are dropped)       873e8c2 (2023-08-10)
    openood_v1   ID        the same, ID positive                          before that; edadaltocg/detectors
    pytorch_ood  OOD       first point with TPR >= 0.95, none dropped     pytorch_ood/metrics/functional.py 0.4.0
    ssd          ID        OOD below the interpolated 95th percentile     inspire-group/SSD utils.py get_fpr
                           of ID
    cider        ID        where recall is nearest to 0.95                cider utils/detection_util.py; outlier
                                                                          exposure and energy, too
    knn_ood      ID        OOD strictly above the round(0.05 n)-th        knn-ood util/metrics.py get_curve
                           lowest ID confidence
    oodeel       OOD       at every fourth score, first point with        oodeel/eval/metrics.py at step 4
                           TPR < 0.95

and AUPR:

    openood      trapezoids, both ways; pytorch-ood and `metrics.aupr_in`, `metrics.aupr_out` are the same
    ssd          average precision, OOD positive          cider  average precision, ID positive
    knn_ood      trapezoids from precision 0 at recall 0, where the others have 1, both ways
    detectors    trapezoids; AUPR-out of scores that are not negated, so of the detector turned round

`truncated` is the per-cluster evaluation of the code behind "Is it all a cluster game?" (rajatkoner08/oodformer,
eval_metric.py calculate_auroc): at most 101 points, integrated without the ends (0, 0) and (1, 1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oodbench.scoring import metrics
from oodbench.scoring.metrics import Curve, Floats, curve

LEVEL = 0.95


def openood(id_: Floats, ood: Floats) -> float:
    return _first_kept(curve(id_, ood))


def openood_v1(id_: Floats, ood: Floats) -> float:
    return _first_kept(curve(id_, ood).turned)


def _first_kept(c: Curve) -> float:
    """Return the FPR at the first point with TPR >= 0.95 of scikit-learn's `roc_curve` as it is by default.

    It keeps the ends and each point whose next step differs from its last one in either count (second
    differences, `drop_intermediate`); of tied groups in a row with the same counts only the last is left.
    """
    turns = (np.diff(c.id_, 2) != 0) | (np.diff(c.ood, 2) != 0)
    kept = np.concatenate([[True], turns, [True]]) if len(c.id_) > 2 else slice(None)
    fpr, tpr = np.append(0.0, c.fpr[kept]), np.append(0.0, c.tpr[kept])
    return float(fpr[np.argmax(tpr >= LEVEL)])


def pytorch_ood(id_: Floats, ood: Floats) -> float:
    return metrics.fpr_at_ood_recall(curve(id_, ood), LEVEL)


def ssd(id_: Floats, ood: Floats) -> float:
    return float(np.mean(ood < np.percentile(id_, 100 * LEVEL)))


def cider(id_: Floats, ood: Floats) -> float:
    """At equal distance to 0.95 the higher recall is taken; at equal recall the greatest FPR, but the least of full."""
    c = curve(id_, ood).turned  # ID is what is to be found
    full = np.searchsorted(c.ood, c.ood[-1])  # points beyond the first of full recall are dropped
    nearest = full - np.argmin(np.abs(c.tpr[full::-1] - LEVEL))  # from there down
    return float(c.fpr[nearest])


def knn_ood(id_: Floats, ood: Floats) -> float:
    confidence = np.sort(-id_)
    return float(np.mean(-ood > confidence[round(0.05 * len(id_))]))


def oodeel(id_: Floats, ood: Floats) -> float:
    cuts = np.sort(np.concatenate([id_, ood]))[1::4]
    fpr, tpr = (1 - np.searchsorted(np.sort(s), cuts) / len(s) for s in (id_, ood))
    return float(np.append(fpr, 0.0)[np.argmax(np.append(tpr, 0.0) < LEVEL)])


def aupr_from_zero(c: Curve) -> float:
    """Return AUPR-out by trapezoids from precision 0 at recall 0, where `metrics.aupr_out` starts from precision 1."""
    return metrics.aupr_out(c) - float(c.new_ood[0] / c.ood[-1]) / 2


def all_rules(id_: Floats, ood: Floats) -> dict[str, float]:
    """Return what each codebase would print, as shares, by `<metric>_<codebase>`."""
    c, turned = curve(id_, ood), curve(-id_, -ood)
    fpr95 = (openood, openood_v1, pytorch_ood, ssd, cider, knn_ood, oodeel)
    return {f"fpr95_{rule.__name__}": rule(id_, ood) for rule in fpr95} | {
        "aupr_in_openood": metrics.aupr_in(c),
        "aupr_out_openood": metrics.aupr_out(c),
        "aupr_out_ssd": metrics.aupr_out_ap(c),
        "aupr_in_cider": metrics.aupr_in_ap(c),
        "aupr_in_knn_ood": aupr_from_zero(c.turned),
        "aupr_out_knn_ood": aupr_from_zero(c),
        "aupr_in_detectors": metrics.aupr_in(c),
        "aupr_out_detectors": metrics.aupr_out(turned),
    }


class Grouped(NamedTuple):
    """Distances of items, each to its cluster."""

    score: Floats  # (N,)
    cluster: NDArray[np.int64]  # (N,)


def truncated(reference: Grouped, id_: Grouped, ood: Grouped) -> dict[str, float]:
    """Return AUROC, AUPR and TNR at 95 % TPR, OOD positive, as the studied code takes them from per-cluster cuts.

    At each percentile of 0 to 100 an item is called OOD if its distance is at least that percentile of its
    cluster's reference distances. Points that call nothing OOD are dropped and no end point is added: where test
    distances exceed all of the reference the AUROC tends to 0, not to 1/2. int(100 p) makes 28 of 29, 56 of 57 and
    57 of 58, as there. TPR is rounded to two digits before it is compared to 0.95. A number that takes more points
    than there are is NaN. An item whose cluster has no reference item has no cut and is not counted; where that
    leaves no ID or no OOD item, all numbers are NaN.
    """
    percents = [int(100 * p) for p in np.linspace(0, 1, 101)]
    called = np.zeros((2, 101))  # ID, OOD
    items = np.zeros(2)
    for cluster in np.unique(reference.cluster):
        cuts = np.percentile(reference.score[reference.cluster == cluster], percents)
        for i, test in enumerate((id_, ood)):
            own = np.sort(test.score[test.cluster == cluster])
            called[i] += len(own) - np.searchsorted(own, cuts)
            items[i] += len(own)
    if not items.all():
        return dict.fromkeys(("auroc", "aupr", "tnr95"), math.nan)
    called = called[:, called.sum(axis=0) > 0]
    fpr, tpr = called / items[:, None]
    enough = fpr[np.round(tpr, 2) >= LEVEL]
    return {
        "auroc": _area(fpr, tpr),
        "aupr": _area(tpr, called[1] / called.sum(axis=0)),
        "tnr95": float(1 - enough.min()) if len(enough) else np.nan,
    }


def _area(place: Floats, height: Floats) -> float:
    """Return the area by trapezoids between the least and the greatest of falling places."""
    return float(np.sum((place[:-1] - place[1:]) * (height[:-1] + height[1:])) / 2) if len(place) > 1 else np.nan
