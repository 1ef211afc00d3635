"""One cut for all items, at a quantile of the ID reference scores (the papers' "global" threshold)."""

from __future__ import annotations

from oodbench.api import Rule, Scores, Threshold
from oodbench.toolkit.counts import least_count


class Pooled(Threshold):
    """Pooled: one cut for everybody, the smallest reference score that accepts `level` of the reference."""

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        place = least_count(self.level, len(ref.score))
        return Rule(lambda s: s.score, float(ref.score.sort().values[place - 1]))
