"""Kept scores as a page draws them: ROC curves, histograms, and the images that a detector is most wrong about."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from oodbench.store import scores
from oodbench.store.artifacts import Store
from oodbench.store.scores import KeptScores, Wrong

MOST = 24  # rows that a page shows: images are large
POINTS = 200  # of a curve, at most
BINS = 40
SHOWN = 8  # images of a side


def by_image(rows: pd.DataFrame, store: Store, order: list[int]) -> tuple[list[dict[str, Any]], int]:
    """Return what is drawn of the first rows, in an order of their labels, whose scores are kept; and how many are."""
    there = set(store.keys(scores.KIND))
    which = rows[["key", "ood", "ood_data"]]
    names = {label: scores.name(*map(str, each)) for label, *each in which.itertuples()}
    kept = [row for row in order if names[row] in there]
    return list(_drawn(which, store, kept[:MOST])), len(kept)


def _drawn(which: pd.DataFrame, store: Store, kept: list[int]) -> Iterator[dict[str, Any]]:
    for label in kept:
        key, ood, content = map(str, which.loc[label])
        found = scores.kept(store, (key, ood, content))
        if found is not None:
            fpr, tpr = roc(found.id_, found.ood)
            sides = {"ID that looks most OOD": found.id_wrong, "OOD that looks most ID": found.ood_wrong}
            yield {
                "row": int(label),
                "roc": [(100 * fpr).round(3).tolist(), (100 * tpr).round(3).tolist()],
                "histogram": histogram(found),
                "cut": float(found.cut),
                "wrong": {side: list(_images(wrong)) for side, wrong in sides.items()},
            }


def roc(id_: NDArray[Any], ood: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of ID (N,) and of OOD (M,) that score at least t, over at most POINTS values of t."""
    every = np.unique(np.concatenate([id_, ood]))[::-1]
    cuts = every if len(every) < POINTS else every[np.linspace(0, len(every) - 1, POINTS - 1).round().astype(int)]
    shares = [1 - np.searchsorted(np.sort(each), cuts) / len(each) for each in (id_, ood)]
    fpr, tpr = (np.concatenate([[0.0], each]) for each in shares)
    return fpr, tpr


def histogram(found: KeptScores) -> dict[str, list[float]]:
    """Return shares in per cent of ID and of OOD in equal bins, the outermost 0.5 % of all scores within the ends."""
    both = np.concatenate([found.id_, found.ood])
    low, high = np.quantile(both[np.isfinite(both)], (0.005, 0.995))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = [np.histogram(each.clip(edges[0], edges[-1]), edges)[0] for each in (found.id_, found.ood)]
    shares = [(100 * each / max(each.sum(), 1)).round(3).tolist() for each in counts]
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "ID": shares[0], "OOD": shares[1]}


def _images(wrong: Wrong) -> Iterator[dict[str, Any]]:
    for position, image in zip(wrong.position[:SHOWN], wrong.image[:SHOWN], strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG", optimize=True)
        src = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        yield {"position": int(position), "src": src, "width": image.shape[1], "height": image.shape[0]}
