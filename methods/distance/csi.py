"""CSI's score over shifted images, Tack et al. 2020, arXiv 2007.08176, with the weights of the authors' code.

    s(x) = 1/4 sum over quarter turns t of  a_t * max over training items m of cos(z_t(x), z_t(m)) * ||z_t(x)||_2
                                          + b_t * l_t(x)

z_t is the projection of the image in turn t, l_t its logit of that turn in the classifier of turns. The weights
balance the turns and the two parts: a_t = 1 / mean over training items of ||z_t(m)||_2, which is their own largest
cosine times their length, and b_t = 1 / mean over training items of l_t(m). The score is -s.

In a space of several views z and l are means over views; the authors take ten crops of 0.54 of the area, the space
`{layer: shifted, views: 10, crop: 0.54}`. Training items are seen in every turn, but plain; theirs are such crops, too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oodbench.api import Clusters, Distance, Scorer, Scores
from oodbench.toolkit.vectors import unit

TURNS = 4
BLOCK = 512  # queries at a time: a block of cosines is BLOCK x N float32


class CSI(Distance):
    """CSI: norm times largest cosine, and the logit of the turn, over four quarter turns."""

    clusters = False
    layers = ("shifted",)
    raw = True

    def fit(self, f: Tensor, c: Clusters) -> Scorer:
        projections, logits = _by_turn(f)
        lengths = torch.stack([z.double().norm(dim=1).mean() for z in projections])  # (4,)
        means = logits.double().mean(0)  # (4,)
        if not ((lengths > 0) & (means > 0)).all():
            found = f"lengths {lengths.tolist()}, logits {means.tolist()}"
            raise ValueError(f"{self.label} weighs by 1 / means over training items, which must be positive: {found}")
        directions = [unit(z.double()).float() for z in projections]

        def score(x: Tensor) -> Scores:
            seen, told = _by_turn(x)
            near = [_largest(*each) for each in zip(seen, projections, directions, strict=True)]
            s = (torch.stack(near, 1) / lengths + told.double() / means).mean(1)
            return Scores(-s, torch.zeros_like(s, dtype=torch.int64))

        return score


def _by_turn(f: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the projections (M, P) in each of four turns, and the logits (M, 4) of each turn in that turn."""
    parts = f.unflatten(1, (TURNS, -1))  # (M, 4, P + 4)
    return list(parts[..., :-TURNS].unbind(1)), parts[..., -TURNS:].diagonal(dim1=1, dim2=2)


def _largest(x: Tensor, z: Tensor, direction: Tensor) -> Tensor:
    """Return the largest product of each x (M, P) with the direction of an item z (N, P), float64.

    The item is found by a matrix product; the product is then computed from the two vectors.
    """
    found = []
    for rows in x.split(BLOCK):
        place = (unit(rows) @ direction.T).argmax(1)
        found.append((rows.double() * unit(z[place].double())).sum(1))
    return torch.cat(found)
