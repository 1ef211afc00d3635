"""Cut of the largest F1 score, OOD positive (van Rijsbergen 1979), as anomaly detection libraries set it (anomalib).

F1 = 2 TP / (2 TP + FP + FN) on the reference and the validation OOD scores, TP = OOD that is found. Every
decision that a cut can make on them is tried, and the cut is the largest score that it accepts; of cuts with the
same F1 the highest is taken, which accepts most of the reference.

F1 depends on how many items there are of each: with more OOD against the same ID the cut falls, and with few ID
the best is to reject everything, which the row then says. Only J of Youden is free of that. It sees OOD data,
and what it finds holds for OOD like those. It has no use for `level`.
"""

from __future__ import annotations

import math
import warnings

import torch

from oodbench.api import Rule, Scores, Threshold


class F1(Threshold):
    """F1: one cut for everybody, where OOD is found with the best F1 on the reference and validation OOD."""

    needs_ood = True

    def fit(self, ref: Scores, ood: Scores | None = None) -> Rule:
        if ood is None or not len(ood.score):
            raise ValueError(f"{self.label} needs scores of validation OOD sets")
        everything = torch.tensor([-math.inf], dtype=torch.float64)  # above this cut
        cuts = torch.cat([everything, ref.score, ood.score]).unique()  # ascending
        kept, missed = (torch.searchsorted(s.score.sort().values, cuts, right=True) for s in (ref, ood))
        found, rejected = len(ood.score) - missed, len(ref.score) - kept
        f1 = 2 * found.double() / (found + rejected + len(ood.score))
        cut = float(cuts[f1 == f1.max()][-1])
        if cut == -math.inf:
            warnings.warn(f"on the validation data the best F1 is to reject everything: {self.label}", stacklevel=2)
        return Rule(lambda s: s.score, cut)
