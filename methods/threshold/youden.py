"""Cut of the largest Youden index (Youden 1950, doi 10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3).

J = TPR - FPR on the reference and the validation OOD scores = share of the reference accepted - share of the OOD
accepted. Every decision that a cut can make on them is tried, and the cut is the largest score that it accepts.
Of cuts with the same J the highest is taken, which accepts most of the reference. J weighs ID and OOD alike,
however many there are of each.

It sees OOD data, and what it finds holds for OOD like those. It has no use for `level`.
"""

from __future__ import annotations

import warnings

import torch

from oodbench.api import Rule, Scores, Threshold


class Youden(Threshold):
    """Youden: one cut for everybody, where the share of ID accepted exceeds that of validation OOD the most."""

    needs_ood = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        if ood is None or not len(ood.score):
            raise ValueError(f"{self.label} needs scores of validation OOD sets")
        cuts = torch.cat([ref.score, ood.score]).unique()  # ascending
        kept, missed = (torch.searchsorted(s.score.sort().values, cuts, right=True) for s in (ref, ood))
        gain = kept * len(ood.score) - missed * len(ref.score)  # J in whole numbers: ties are exact
        if gain.max() == 0:
            warnings.warn(
                f"no cut accepts more of the reference than of the validation OOD: {self.label}", stacklevel=2
            )
        return Rule(lambda s: s.score, float(cuts[gain == gain.max()][-1]))
