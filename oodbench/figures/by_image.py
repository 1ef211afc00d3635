"""Kept scores as a page draws them: ROC curves, histograms, and the images that a detector is most wrong about."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from oodbench.figures import data
from oodbench.store import scores
from oodbench.store.artifacts import Store
from oodbench.store.scores import Wrong

MOST = 24  # rows that a page shows: images are large
POINTS = 200  # of a curve, at most
SHOWN = 8  # images of a side


def by_image(rows: pd.DataFrame, store: Store, order: list[int]) -> tuple[list[dict[str, Any]], int]:
    """Return what is drawn of the first rows, in an order of their labels, whose scores are kept; and how many are."""
    kept = kept_rows(rows.loc[order], store)
    return list(_drawn(kept[:MOST], store)), len(kept)


def kept_rows(rows: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Return the rows whose scores are kept."""
    there = set(store.keys(scores.KIND))
    made = rows[rows["status"] == "ok"] if there else rows[:0]  # others have neither key nor scores
    which = made[["key", "ood", "ood_data"]].itertuples(index=False)
    return made[np.array([scores.name(*each) in there for each in which], dtype=bool)]


def kept_scores(store: Store, row: Any) -> scores.KeptScores | None:
    """Return the scores of a row; None where they are damaged."""
    return scores.kept(store, (row["key"], row["ood"], row["ood_data"]))


def _drawn(kept: pd.DataFrame, store: Store) -> Iterator[dict[str, Any]]:
    for label, row in kept.iterrows():
        found = kept_scores(store, row)
        if found is not None:
            corners, bins = thinned(data.roc(found)), data.histogram(found)
            sides = {"ID that looks most OOD": found.id_wrong, "OOD that looks most ID": found.ood_wrong}
            yield {
                "row": label,
                "roc": (100 * corners).round(3).to_dict("list"),
                "histogram": bins.assign(id=100 * bins["id"], ood=100 * bins["ood"]).to_dict("list"),
                "cut": float(found.cut),
                "wrong": {side: list(_images(wrong)) for side, wrong in sides.items()},
            }


def thinned(corners: pd.DataFrame) -> pd.DataFrame:
    """Return at most POINTS of the corners of a curve, its ends among them."""
    kept = np.unique(np.linspace(0, len(corners) - 1, POINTS).round().astype(int))
    return corners.iloc[kept]


def _images(wrong: Wrong) -> Iterator[dict[str, Any]]:
    for position, image in zip(wrong.position[:SHOWN], wrong.image[:SHOWN], strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG", optimize=True)
        src = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        yield {"position": int(position), "src": src, "width": image.shape[1], "height": image.shape[0]}
