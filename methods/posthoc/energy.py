"""Energy, Liu et al. 2020, arXiv 2010.03759, by pytorch-ood's EnergyBased."""

from __future__ import annotations

from pytorch_ood import detector

from oodbench.api import ClassifierHead, Positive, Posthoc, Split
from oodbench.toolkit.pytorch_ood import SetScore, of_logits


class Energy(Posthoc):
    """Energy: -T log of the sum of exp(logit / T)."""

    temperature: Positive = 1.0  # by which logits are divided

    def fit(self, train: Split, val: Split | None, head: ClassifierHead) -> SetScore:
        return of_logits(detector.EnergyBased(None, t=self.temperature).predict_logits)
