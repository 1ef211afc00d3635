"""CSI's contrastive score without shifts (Tack et al. 2020, arXiv 2007.08176).

Minus the largest cosine of an item to a training item, times the item's own length, on raw projection features: ID
is longer and near something known. In a space of several views, `of: mean` scores the mean view, as CSI's code
does; `of: each` is the mean over views of the scores of each. Training items are seen plain.

The training item of largest cosine is found by a matrix product; the score is then computed from the two vectors.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.vectors import unit

BLOCK = 512  # queries at a time: a block of cosines is BLOCK x N float32


class NormCosine(Distance):
    """Norm times cosine: minus the largest cosine to a training item, times the item's own length."""

    of: Literal["mean", "each"] = "mean"  # the mean of several views, or each of them

    clusters = False
    raw = True

    @property
    def views(self) -> bool:
        return self.of == "each"

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        direction = unit(f.double()).float()

        def score(x: Tensor) -> Scores:
            items = x.flatten(0, -2)  # (M, D) or (V M, D)
            found = torch.cat([(unit(rows) @ direction.T).argmax(1) for rows in items.split(BLOCK)])
            scores = _scores(items, f, found).view(x.shape[:-1])
            scores = scores.mean(0) if self.views else scores
            return Scores(scores, torch.zeros_like(scores, dtype=torch.int64))

        return score

    def leave_one_out(self, f: Tensor, c: Clusters) -> Scores:
        """Return the scores of the training items; each is seen plain, so that it has one view."""
        if len(f) < 2:
            raise ValueError(f"{self.label} of no other training item")
        direction = unit(f.double()).float()
        found = []
        for items in torch.arange(len(f), device=f.device).split(BLOCK):
            cosine = direction[items] @ direction.T
            cosine[torch.arange(len(items), device=f.device), items] = -torch.inf
            found.append(cosine.argmax(1))
        scores = _scores(f, f, torch.cat(found))
        return Scores(scores, torch.zeros_like(scores, dtype=torch.int64))


def _scores(x: Tensor, f: Tensor, place: Tensor) -> Tensor:
    """Return minus the product of x (M, D) and the direction of f (N, D) at a place (M,), float64."""
    pairs = zip(x.split(BLOCK), place.split(BLOCK), strict=True)
    return -torch.cat([(rows.double() * unit(f[other].double())).sum(1) for rows, other in pairs])
