"""Quantile of a shifted Gamma distribution (Gamma scaling, Kriegel et al. 2011, doi 10.1137/1.9781611972818.2).

The paper fits shape and scale to mean and standard deviation of scores that start at 0. Scores of other signs
and units need a location, too, so a third moment fits it (Pearson's type III): with mean m, standard deviation
s (ddof 1) and skewness g (the mean cube of (score - m) / s) of the reference,

    shape = 4 / g^2    scale = s g / 2    location = m - shape x scale = m - 2 s / g

Moments rather than maximum likelihood, which is unbounded where the location may reach the least score. They
feel outliers: one far score raises g and s. No Gamma distribution leans to the left: where g <= 0 the row says
that the normal distribution was taken, which the family tends to as g falls to 0.
"""

from __future__ import annotations

import math
import warnings

from scipy.stats import pearson3

from oodbench.api import Rule, Scores, Threshold


class Gamma(Threshold):
    """Gamma: one cut for everybody, the `level` quantile of a shifted Gamma fitted to the reference's moments."""

    nominal = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        least, largest = float(ref.score.min()), float(ref.score.max())
        if least == largest:
            warnings.warn(f"all reference scores are {largest:g}: that is the cut of {self.label}", stacklevel=2)
            return Rule(lambda s: s.score, largest)
        unit = 2.0 ** math.frexp(largest - least)[1]  # exact; the squares of 1e-170, as MSP has them, would be 0
        score = ref.score / unit
        mean, sd = score.mean(), score.std()
        skewness = float(((score - mean) / sd).pow(3).mean())
        if skewness <= 0:
            warnings.warn(
                f"the reference scores have skewness {skewness:.2g}, a Gamma distribution has more than 0: "
                f"{self.label} takes a normal distribution",
                stacklevel=2,
            )
        cut = pearson3.ppf(self.level, max(skewness, 0.0), loc=float(mean), scale=float(sd))
        return Rule(lambda s: s.score, float(cut) * unit)
