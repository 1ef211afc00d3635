"""Split conformal cut (Vovk et al. 2005; Lei et al. 2018, arXiv 1604.04173): a level that holds for finite samples.

The cut is the ceil((n + 1) level)-th smallest of n reference scores. An ID item exchangeable with the
reference is then accepted with probability at least `level`, over the draw of both, whatever the scores'
distribution, and at most level + 1 / (n + 1) where no scores tie. Where n is too small for that, only accepting
everything keeps the promise: the row says so. It needs a reference that nothing was fitted on.
"""

from __future__ import annotations

import math
import warnings

from oodbench.api import Rule, Scores, Threshold
from oodbench.toolkit.counts import least_count


class Conformal(Threshold):
    """Conformal: one cut for everybody that accepts ID with probability `level`, the reference's size included."""

    held_out = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        n = len(ref.score)
        place = least_count(self.level, n + 1)
        if place > n:
            warnings.warn(f"{n} reference items are too few for {self.label}: everything is accepted", stacklevel=2)
            return Rule(lambda s: s.score, math.inf)
        return Rule(lambda s: s.score, float(ref.score.sort().values[place - 1]))
