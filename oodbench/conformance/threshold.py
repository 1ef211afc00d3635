"""What holds of every threshold."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import torch

from oodbench.api import Rule, Scores, Threshold
from oodbench.conformance.toys import expect, reference


def _far(ref: Scores) -> Scores:
    """Return scores in the same clusters that lie above all of a reference."""
    return Scores(ref.score + 10, ref.cluster)


def _rule(threshold: Threshold, ref: Scores) -> Rule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a note for the rows is no mistake
        return threshold.fit(ref, _far(ref) if threshold.needs_ood else None)


def _accepted(rule: Rule, scores: Scores) -> float:
    return float((rule.calibrate(scores) <= rule.cut).double().mean())


def _accepted_of(threshold: Threshold, ref: Scores) -> float:
    """Return the share of its own reference that a threshold accepts."""
    return _accepted(_rule(threshold, ref), ref)


def accepts(threshold: Threshold) -> None:
    """Where that is its promise, it accepts `level` of its reference."""
    if threshold.needs_ood or threshold.nominal:
        return
    ref = reference()
    share = _accepted_of(threshold, ref)
    most = threshold.level + 5 / len(ref.score) * (4 if threshold.clusters else 1)
    expect(threshold.level <= share <= most, f"it accepts {threshold.level:g} of its reference, not {share:.4f}")


def models(threshold: Threshold) -> None:
    """Where it models scores, it accepts about `level` of bell-shaped ones."""
    if not threshold.nominal:
        return
    rng = np.random.default_rng(7)
    bells = {"normal": rng.normal(10, 1, 20_000), "Gamma-distributed": rng.gamma(16, 1, 20_000)}
    for name, drawn in bells.items():
        share = _accepted_of(threshold, Scores(torch.as_tensor(drawn), torch.arange(len(drawn)) % 4))
        close = abs(share - threshold.level) < 0.03
        expect(close, f"it accepts about {threshold.level:g} of many {name} scores, not {share:.4f}")


def separates(threshold: Threshold) -> None:
    """Where it sees OOD scores, it tells separated ones apart."""
    if not threshold.needs_ood:
        return
    rule, new = _rule(threshold, reference()), reference(seed=8)
    kept, missed = _accepted(rule, new), _accepted(rule, _far(new))
    expect(kept > 0.9, f"of ID far below the OOD it accepts more than 0.9, not {kept:.4f}")
    expect(missed < 0.1, f"of OOD far above the ID it accepts less than 0.1, not {missed:.4f}")


def is_monotone(threshold: Threshold) -> None:
    """It keeps the order of a cluster."""
    rule = _rule(threshold, reference())
    score = torch.linspace(-1, 8, 200, dtype=torch.float64)
    for k in range(5 if threshold.clusters else 1):  # the last cluster has no reference
        calibrated = rule.calibrate(Scores(score, torch.full((200,), k)))
        expect(calibrated.dtype == torch.float64, "calibrated scores are float64")
        expect(calibrated.isfinite().all(), "calibrated scores are finite, far outside the reference too")
        expect((calibrated.diff() >= 0).all(), "in a cluster, a higher score is never calibrated lower")


def follows_level(threshold: Threshold) -> None:
    """Where it has a level, a higher one accepts more."""
    if threshold.needs_ood:  # it has another aim
        return
    shares = [_accepted_of(dataclasses.replace(threshold, level=level), reference()) for level in (0.5, 0.9, 0.99)]
    expect(shares == sorted(shares) and shares[0] < shares[-1], f"a higher level accepts more, not {shares}")


CHECKS = (accepts, models, separates, is_monotone, follows_level)
