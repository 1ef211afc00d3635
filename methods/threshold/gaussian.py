"""Quantile of a normal distribution (the Gaussian scaling of Kriegel et al. 2011, doi 10.1137/1.9781611972818.2).

The cut is mean + z sd of the reference scores, sd with ddof 1, z the standard normal quantile of `level`. The
share that it really accepts is `level` only as far as the scores are normal: distances have longer right tails,
and then it accepts less. Where it fits, its cut varies less from one reference to the next than a reference
score does (at level 0.95 half the variance: 2.4 against 4.5 sd^2 / n). A few far outliers move mean and sd, and
with them the cut.
"""

from __future__ import annotations

import math
import warnings
from statistics import NormalDist

from oodbench.api import Rule, Scores, Threshold


class Gaussian(Threshold):
    """Gaussian: one cut for everybody, the `level` quantile of a normal distribution fitted to the reference."""

    nominal = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        least, largest = float(ref.score.min()), float(ref.score.max())
        if least == largest:
            warnings.warn(f"all reference scores are {largest:g}: that is the cut of {self.label}", stacklevel=2)
            return Rule(lambda s: s.score, largest)
        unit = 2.0 ** math.frexp(largest - least)[1]  # exact; the squares of 1e-170, as MSP has them, would be 0
        score = ref.score / unit
        cut = float(score.mean()) + NormalDist().inv_cdf(self.level) * float(score.std())
        return Rule(lambda s: s.score, cut * unit)
