"""KL matching, Hendrycks et al. 2022, arXiv 1911.11132, section 4.2.

The typical posterior of each class is the mean softmax of the held-out ID items that are predicted to be of it, as in
the paper; a class that none is predicted to be of has none. All is in the space of logarithms: softmax is 1 in float64
once logits are 37 apart, and the divergence of two such posteriors is then rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import BatchScore, SetScore, of_logits, reference

SMALL = 1e-6  # divergences below it are summed from terms that are none of them negative


class KLMatching(Posthoc):
    """KL matching: least KL divergence of the softmax from a class's typical softmax."""

    val = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        logits = reference(val).logits.double()
        predicted = logits.argmax(1)
        typical = torch.stack([_log_mean(logits[predicted == k], int(k)) for k in predicted.unique()])
        return of_logits(_least_divergence(typical))


def _least_divergence(log_d: Tensor) -> BatchScore:
    """Return what scores logits (B, C) by the least divergence from posteriors whose logarithms are (K, C)."""

    def score(logits: Tensor) -> Tensor:
        log_p, _ = _log_softmax(logits)
        p = log_p.exp()
        found = ((p * log_p).sum(1, keepdim=True) - p @ log_d.T).min(1)
        least, small = found.values, found.values < SMALL
        if small.any():
            least = least.masked_scatter(small, _divergence(log_p[small], log_d[found.indices[small]]))
        return least

    return score


def _divergence(log_p: Tensor, log_d: Tensor) -> Tensor:
    """Return the KL divergence (B,) of posteriors, given logarithms (B, C): the sum of p log(p / d) - p + d."""
    u, p, d = log_p - log_d, log_p.exp(), log_d.exp()
    return (p * u - torch.where(u.abs() < 1, d * u.clamp(-1, 1).expm1(), p - d)).sum(1)


def _log_softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the softmax of logits (B, C), and 1 less the largest probability (B,), to all digits."""
    largest = logits.max(1, keepdim=True)
    apart = logits - largest.values
    others = apart.exp().scatter(1, largest.indices, 0).sum(1, keepdim=True)
    return apart - others.log1p(), (others / (1 + others))[:, 0]


def _log_mean(logits: Tensor, predicted: int) -> Tensor:
    """Return the logarithms (C,) of the mean softmax of items (N, C) that are all predicted to be of one class."""
    log_p, rest = _log_softmax(logits)
    found = log_p.logsumexp(0) - math.log(len(logits))
    found[predicted] = torch.log1p(-rest.mean())
    return found
