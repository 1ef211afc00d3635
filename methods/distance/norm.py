"""Minus the L2 norm of raw features (Le-Gia & Ahn 2023, arXiv 2312.15288): ID is longer, so a short vector is OOD.

Of OECL's three scores: `of: mean` in a space of one view is the norm of the plain image's output (squared in the
studied code, which is the same order); in a space of several views it is the norm of their mean; `of: each` is
the mean over views of the squared norms.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores


class Norm(Distance):
    """Norm: minus the L2 norm of raw features, of the mean view or squared and averaged over views."""

    of: Literal["mean", "each"] = "mean"  # the mean of several views, or each of them

    clusters = False
    raw = True

    @property
    def views(self) -> bool:
        return self.of == "each"

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        return self._score

    def leave_one_out(self, f: Tensor, c: Clusters) -> Scores:
        return self._score(f[None] if self.views else f)  # nothing is fitted, so nothing is to be left out

    def _score(self, x: Tensor) -> Scores:
        squares = x.double().square().sum(-1)  # (M,) or (V, M)
        score = -squares.mean(0) if self.views else -squares.sqrt()
        return Scores(score, torch.zeros_like(score, dtype=torch.int64))
