"""ReAct, Sun et al. 2021, arXiv 2111.12797, by pytorch-ood's ReAct; clipped at percentile 0.9.

The percentile is that of all activations of all training items; OpenOOD's is that of its held-out ID items
(`of: val`). The paper's features come after a ReLU; of features that may be negative, only what is above the
percentile is clipped.
"""

from __future__ import annotations

from typing import Literal

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Fraction, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, classifier, labels, maps, of_maps


class ReAct(Posthoc):
    """ReAct: energy of the logits of features clipped at a percentile of ID activations."""

    percentile: Fraction = 0.9  # of activations, at which features are clipped, as a share
    of: Literal["train", "val"] = "train"  # whose activations: of training items, or of the held-out ID reference

    applies = True

    @property
    def val(self) -> bool:
        return self.of == "val"

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        fitted = detector.ReAct(None, classifier(head), percentile=self.percentile)
        known = train if val is None else val
        fitted.fit_feature_maps(maps(known.h), labels(known))
        return of_maps(fitted.predict_feature_maps)
