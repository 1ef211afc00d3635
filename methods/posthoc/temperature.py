"""Temperature scaling, Guo et al. 2017, arXiv 1706.04599: MSP of logits / T, T least in NLL on held-out ID data.

The negative log-likelihood is convex in 1 / T, so that T is found by bisection of its derivative; pytorch-ood's
TemperatureScaling stops after 50 small steps of L-BFGS. T is between 0.01 and 100; a reference without an optimum
in between (all of it classified right: the smaller T the better) is warned of in the row.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from oodbench.api import ClassifierHead, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, doubt, labels, of_logits, reference

LEAST, MOST = 0.01, 100.0
STEPS = 60  # halvings: T to the last bits of float64


class Temperature(Posthoc):
    """Temperature-scaled MSP: 1 - the largest softmax probability of logits / T."""

    val = True

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        held_out = reference(val)
        temperature = fitted(held_out.logits.double(), labels(held_out))
        if not LEAST * 1.001 < temperature < MOST / 1.001:
            warnings.warn(f"{self.label}: the reference is best at T = {temperature:.3g}, the bound", stacklevel=2)
        return of_logits(lambda logits: doubt(logits / temperature))


def fitted(logits: Tensor, y: Tensor) -> float:
    """Return the temperature between LEAST and MOST of least negative log-likelihood of logits (N, C), float64."""
    own = logits.gather(1, y[:, None])

    def slope(temperature: float) -> float:
        """Return the derivative of the mean negative log-likelihood with respect to 1 / T; it falls with T."""
        p = torch.softmax(logits / temperature, 1)
        return float((p * (logits - own)).sum(1).mean())

    low, high = LEAST, MOST
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.sqrt(low * high)
