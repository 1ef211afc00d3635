"""A store of features and scores by image, as a run leaves it, of hand-made rows whose points are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hand_made_rows import made
from numpy.typing import NDArray
from safetensors.numpy import save_file

from oodbench.store import scores
from oodbench.store.artifacts import Store, digest
from oodbench.store.memo import NUMBER

Floats = NDArray[np.float32]

CLASSES = ("ape", "<b>bee</b>", "cat")
OOD = {"near set": "near", "far set": "far"}
COUNTS = {"digits": 90, "near set": 60, "far set": 10}
WRONG = scores.Wrong(np.arange(2), np.full((2, 4, 4, 1), 9, np.uint8))


def rows(*trainings: str, unit: bool = False, **change: Any) -> pd.DataFrame:
    """Return rows of two distances of each training, in two runs, on both OOD sets."""
    space = {"layer": "penultimate", "views": 1, "crop": None, "unit": unit, "zscore": False, "pca": None}
    changes = [
        {"training": training, "distance": distance, "seed": seed, "ood": ood, "group": group}
        | {"train_key": f"{training} {seed}", "cell": f"{training} {distance} {seed}", "ood_data": f"data of {ood}"}
        | {"key": digest([training, distance, seed]), "id_data": "data of digits, train", "auroc": auroc}
        | {"detector": json.dumps({"space": space, "distance": {"name": distance}})}
        | change
        for training in trainings or ("simclr",)
        for distance, auroc in (("cosine", 0.9), ("knn", 0.8))
        for seed in (0, 1)
        for ood, group in OOD.items()
    ]
    return made(*changes)


def labels() -> NDArray[np.int64]:
    return np.arange(COUNTS["digits"]) % len(CLASSES)


def features(name: str, dimensions: int = 6) -> Floats:
    """Return the features (N, D) of a set: of ID three groups that are far apart, of OOD sets one each."""
    draw = np.random.default_rng(len(name))
    centres = 9 * np.eye(dimensions)[labels() if name == "digits" else [3 + list(OOD).index(name)] * COUNTS[name]]
    found: Floats = (centres + draw.normal(size=centres.shape)).astype(np.float32)
    return found


def prepared(store: Store, split: str, **change: Any) -> None:
    """Put a split of the ID set into a store, as `data` keeps it."""
    fields = {"number": 2, "dataset": {"name": "digits"}, "source": "s", "split": split, "image": {}, "files": split}
    fields |= change

    def fill(folder: Path) -> dict[str, Any]:
        np.save(folder / "y.npy", labels())
        return {"content": f"data of digits, {split}", "classes": list(CLASSES)}

    store.write("data", digest(fields), fields, fill)


def bank(store: Store, train_key: str, content: str, x: Floats, views: int = 1) -> None:
    """Put the features (N, D) of a set into a store, as a bank of a training."""
    fields = {"number": NUMBER["bank"], "train": train_key, "set": content, "part": "all", "views": views, "crop": None}

    def fill(folder: Path) -> dict[str, Any]:
        layers = {"penultimate": np.stack([x] + [0 * x] * (views - 1)), "projection": -x[None]}
        save_file(layers, folder / "features.safetensors")
        return {}

    store.write("bank", digest(fields), fields, fill)


def score(name: str, cell: str) -> Floats:
    """Return the scores of a set's images in a cell."""
    found: Floats = (np.arange(COUNTS[name]) + 1000 * len(name) + len(cell)).astype(np.float32)
    return found


def keep_scores(store: Store, kept: pd.DataFrame) -> None:
    for row in kept.to_dict("records"):
        id_, ood = (score(name, row["cell"]) for name in ("digits", row["ood"]))
        found = scores.KeptScores(2.5, id_[:9], id_, ood, WRONG, WRONG)
        scores.keep(store, (row["key"], row["ood"], row["ood_data"]), row["cell"], found)


def filled(folder: Path, found: pd.DataFrame, of: Callable[[str], Floats] = features) -> Store:
    """Return a store that has the features of the first runs of rows, and the scores of their first distance."""
    store = Store(folder)
    prepared(store, "train")
    prepared(store, "test")
    prepared(store, "test", image={"size": 9})  # another format, of which there is no bank
    first = found[found["seed"] == 0]
    for key in first["train_key"].unique():
        bank(store, key, "data of digits, test", of("digits"))
        for name in OOD:
            bank(store, key, f"data of {name}", of(name))
    keep_scores(store, first[first["distance"] == "cosine"])
    return store
