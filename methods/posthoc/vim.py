"""Virtual-logit matching (ViM), Wang et al. 2022, arXiv 2203.10807, by pytorch-ood's ViM.

The principal space has as many dimensions as in the authors' code: 1000 of 2048 features and more, 512 of fewer;
where there are no more than 512, half of them. OpenOOD chooses 256 or 1000 by validation.
"""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Posthoc, Size, Split
from oodbench.toolkit.pytorch_ood import SetScore, labels, of_features, weights


class ViM(Posthoc):
    """ViM: scaled norm of the features outside the principal space of training features, plus the energy."""

    dims: Size | None = None  # of the principal space, fewer than the features; None = see above

    linear = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        weight, bias = weights(head)
        dims = _dims(train.h.shape[1]) if self.dims is None else self.dims
        if dims >= train.h.shape[1]:
            raise ValueError(f"{self.label}: a principal space of {dims} leaves nothing of {train.h.shape[1]} features")
        fitted = detector.ViM(None, dims, weight, bias).fit_features(train.h, labels(train))
        return of_features(fitted.predict_features)


def _dims(features: int) -> int:
    if features >= 2048:
        return 1000
    return 512 if features > 512 else features // 2
