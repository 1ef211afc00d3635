"""OpenMax, Bendale & Boult 2016, arXiv 1511.06233: a Weibull tail of 20 distances, 10 classes revised (OpenOOD: 3).

The means and Weibull tails of classes are pytorch-ood's, fitted on training items that are classified right, by
Euclidean distance. The revision of logits is our own: theirs measures distances only to classes that some item of the
same batch is predicted to be of. The score is the log odds of the unknown class, in the order of its probability
without rounding to 0 or 1. A class of which no training item is classified right is an error.
"""

from __future__ import annotations

import torch
from pytorch_ood.detector.openmax.numpy import OpenMax as Fit
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Size, Split
from oodbench.toolkit.pytorch_ood import SetScore, labels, of_logits


class OpenMax(Posthoc):
    """OpenMax: log odds of an unknown class that takes from the top classes what lies in their tails."""

    tail: Size = 20  # largest distances of a class, to which its Weibull distribution is fitted
    alpha: Size = 10  # top classes whose logits are revised; all where there are fewer

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        y, classes = labels(train), train.logits.shape[1]
        right = train.logits.argmax(1) == y
        lacking = sorted(set(range(classes)) - set(y[right].tolist()))
        if lacking:
            raise ValueError(f"{self.label}: no training item of class {lacking[0]} is classified right")
        fitted = Fit(tailsize=self.tail).fit(train.logits[right].double().cpu().numpy(), y[right].cpu().numpy())
        tails = [fitted.distributions[k] for k in range(classes)]
        parameters = [[tail.c, tail.scale, tail.translation - tail.min_val] for tail in tails]
        shape, scale, shift = torch.tensor(parameters, dtype=torch.float64, device=y.device).T  # each (C,)
        means = torch.stack([torch.as_tensor(fitted.centers[k], device=y.device) for k in range(classes)])
        alpha = min(self.alpha, classes)
        ranked = 1 - torch.arange(classes, dtype=torch.float64, device=y.device) / alpha

        def score(logits: Tensor) -> Tensor:
            distance = torch.cdist(logits, means, compute_mode="donot_use_mm_for_euclid_dist")  # (B, C)
            outlying = 1 - (-((distance + shift) / scale).pow(shape)).exp()
            order = logits.argsort(dim=1, descending=True, stable=True)
            weight = torch.zeros_like(logits).scatter(1, order, ranked.clamp_min(0).expand_as(logits))
            taken = logits * outlying * weight
            found: Tensor = taken.sum(1) - (logits - taken).logsumexp(1)
            return found

        return of_logits(score)
