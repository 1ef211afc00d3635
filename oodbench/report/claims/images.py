"""What test images add to the error of a claim about AUROC: all runs share them, so no number of runs averages it away.

The AUROC of a row is a mean over ID images and over OOD images of placements: of an image, the share of the other
side that it is told from. Means over runs, settings and OOD sets are means of placements too, so that their covariance
over images, divided by their number, is that of DeLong, DeLong and Clarke-Pearson (1988), paired by image. It is taken
of kept scores; where they are not kept, of what was measured when they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from oodbench.report.claims.estimates import Floats, ImageError
from oodbench.store import scores
from oodbench.store.artifacts import Store, digest

TEXT = ("claim", "place", "id", "digest")
COLUMNS = {**dict.fromkeys(TEXT, "str"), "left": "Int64", "right": "Int64", "covariance": "float64", "items": "Int64"}
Where = tuple[str, str]  # place and ID set


class Covariance(NamedTuple):
    """Of the means of candidates over the draw of images, in points²."""

    matrix: Floats  # (K, K)
    items: int  # images of the smallest set

    def of(self, who: int, rival: int | None = None) -> ImageError:
        """Return the error of a candidate's mean, or of how much it is ahead of a rival's."""
        sign = np.zeros(len(self.matrix))
        sign[who] += 1
        if rival is not None:
            sign[rival] -= 1
        return ImageError(max(0.0, float(sign @ self.matrix @ sign)), self.items)


class ImageErrors:
    """The errors of images of a study's claims: of the scores that a store keeps, else as they were `kept` before."""

    def __init__(self, store: Store | None, kept: pd.DataFrame | None = None) -> None:
        self._store = store
        self._kept = {} if kept is None else {str(name): each for name, each in kept.groupby("digest")}
        self._seen: dict[str, dict[Where, Covariance]] = {}
        self._new: list[pd.DataFrame] = []

    def errors(self, claim: str, made: Callable[[], pd.DataFrame]) -> dict[Where, Covariance]:
        """Return the errors of a claim by place and ID set, of those where all scores are known.

        The rows have `place`, `id`, the position of the candidate `who`, the `weight` with which a row's AUROC is in
        the candidate's mean, in points, and what names the row: `key`, `ood`, `ood_data`.
        """
        if claim not in self._seen:
            blocks = {(str(place), str(id_)): each for (place, id_), each in made().groupby(["place", "id"])}
            found = {where: self._block(claim, where, rows) for where, rows in blocks.items()}
            self._seen[claim] = {where: each for where, each in found.items() if each is not None}
        return self._seen[claim]

    def table(self) -> pd.DataFrame | None:
        """Return all that is known, to be kept; None where nothing is new."""
        return pd.concat([*self._kept.values(), *self._new], ignore_index=True) if self._new else None

    def _block(self, claim: str, where: Where, rows: pd.DataFrame) -> Covariance | None:
        rows = rows[["who", "key", "ood", "ood_data", "weight"]].sort_values(["who", "key", "ood", "ood_data"])
        name = digest([[who, *words, f"{weight:.9g}"] for who, *words, weight in rows.itertuples(index=False)])
        if name in self._kept:
            there = self._kept[name]
            matrix = np.zeros((int(there["left"].max()) + 1,) * 2)
            matrix[there["left"].to_numpy(int), there["right"].to_numpy(int)] = there["covariance"]
            return Covariance(matrix, int(there["items"].iloc[0]))
        found = self._measured(rows)
        if found is not None:
            left, right = (each.ravel() for each in np.indices(found.matrix.shape))
            numbers = {"left": left, "right": right, "covariance": found.matrix.ravel(), "items": found.items}
            about = {"claim": claim, "place": where[0], "id": where[1], "digest": name}
            self._new.append(pd.DataFrame(about | numbers)[list(COLUMNS)])
        return found

    def _measured(self, rows: pd.DataFrame) -> Covariance | None:
        """Return the covariance by kept scores, None where one is not there."""
        count = int(rows["who"].max()) + 1
        sums: dict[tuple[str, str], Floats] = {}  # by OOD set, and ("", "") for ID test: (K, images)
        for who, key, ood, content, weight in rows.itertuples(index=False):
            there = scores.kept(self._store, (key, ood, content)) if self._store else None
            if there is None:
                return None
            for of, each in zip((("", ""), (ood, content)), placements(there.id_, there.ood), strict=True):
                sums.setdefault(of, np.zeros((count, len(each))))[who] += weight * each
        matrix = sum(np.atleast_2d(np.cov(each)) / each.shape[1] for each in sums.values())
        return Covariance(np.asarray(matrix), min(each.shape[1] for each in sums.values()))


def placements(id_: NDArray[np.floating], ood: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return of each ID score (N,) the share of OOD above it, of each OOD score (M,) that of ID below; ties half."""
    ranks = rankdata(np.concatenate([id_, ood]))
    n, m = len(id_), len(ood)
    return 1 - (ranks[:n] - rankdata(id_)) / m, (ranks[n:] - rankdata(ood)) / n
