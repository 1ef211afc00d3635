"""Rows of results made by hand, whose means are known."""

from __future__ import annotations

from typing import Any

import pandas as pd

from oodbench.store.rows import frame

BASE: dict[str, Any] = {
    "status": "ok",
    "id": "digits",
    "family": "digits",
    "protocol": "all classes",
    "training": "simclr",
    "encoder": "resnet18",
    "outliers": "–",
    "recipe": "–",
    "reference": "val(0.1)",
    "space": "penultimate",
    "clustering": "labels",
    "distance": "cosine",
    "threshold": "pooled",
    "level": 0.95,
    "seed": 0,
    "ood": "noise",
    "group": "far",
    "accuracy": 0.9,
    "auroc": 0.8,
    "aupr_in": 0.7,
    "fpr95_id": 0.4,
    "fpr95_ood": 0.3,
    "id_recall": 0.95,
    "ood_recall": 0.5,
}


def made(*changes: dict[str, Any]) -> pd.DataFrame:
    """Return a row of a cell of its own for each change."""
    return frame([BASE | {"cell": str(i)} | change for i, change in enumerate(changes)])


def by_seed(values: list[float], **change: Any) -> list[dict[str, Any]]:
    return [change | {"seed": seed, "auroc": value} for seed, value in enumerate(values)]


def validated(*changes: dict[str, Any]) -> pd.DataFrame:
    """Return rows of near-OOD whose settings can be chosen on validation OOD."""
    base = {"posthoc": "–", "group": "near", "ood": "a", "val_auroc": 0.5}
    return made(*(base | change for change in changes))


def knn(k: int, val: float, auroc: float, **change: Any) -> dict[str, Any]:
    return {"distance": f"knn(k={k})" if k != 50 else "knn", "val_auroc": val, "auroc": auroc} | change
