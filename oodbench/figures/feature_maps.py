"""The features of a training on two planes, by PCA and by t-SNE, of the banks that a store keeps; no torch.

What a bank and a prepared set are keyed by, `training/banks.py` and `data/library.py` say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from oodbench.figures.by_image import kept_rows, kept_scores
from oodbench.store.artifacts import Store, digest, sha256
from oodbench.store.memo import NUMBER

TRAININGS = 5  # that a page shows: t-SNE takes two seconds each
IMAGES = 400  # of ID test, and of all OOD sets together
SEED = 0  # of which images, and of t-SNE
PERPLEXITY, STEPS = 30, 500  # of t-SNE
CELLS = 10  # whose kept scores are colours
TRAINING = ["family", "protocol", "training", "outliers", "encoder", "recipe", "precision", "reference"]
PLAIN = {"layer": "penultimate", "views": 1, "crop": None, "unit": False}  # what baselines see
SAYS = (
    f"Test images by their features, in one run and in the space of a training's highest method: at most {IMAGES} of "
    f"ID and {IMAGES} of all OOD sets together, drawn with seed {SEED}. PCA and t-SNE (scikit-learn's; perplexity "
    f"{PERPLEXITY}, {STEPS} steps from PCA, seed {SEED}) are of the images shown. On the plane of t-SNE sizes of "
    "groups and distances between them mean nothing. A name stands at the mean, on the plane, of the images of an ID "
    "class."
)

PLANES = {"pca": "PCA", "tsne": "t-SNE"}

Array = NDArray[np.floating[Any]]


class FeatureMap(NamedTuple):
    """Images of ID test and of OOD sets on two planes, in the space of a detector."""

    row: int  # the label of one of the detector's rows
    space: str
    # of each image `set`, `group` (ID, near, far), `class` ("" of OOD), `position` in its set; `pca_x`, `pca_y`,
    # `tsne_x`, `tsne_y`; and its score in the cell of each of `scored`, named `score LABEL`
    points: pd.DataFrame
    explained: tuple[float, float]  # per cent of the variance of the images shown, by axis of PCA
    images: dict[str, int]  # in each set, of which some are shown
    scored: list[int]  # labels of rows


class _Features(NamedTuple):
    group: str
    all: int
    at: NDArray[np.int64]  # (S,) positions of the images shown
    x: Array  # (S, D)


def feature_maps(rows: pd.DataFrame, store: Store, order: Sequence[int]) -> tuple[list[FeatureMap], int]:
    """Return the maps of the first trainings, in an order of rows' labels, and how many trainings have none.

    A training is mapped in the first of its runs whose features are there, in the space of that run's first row.
    """
    ordered = rows.loc[list(order)]
    runs = ordered[ordered["status"] == "ok"].drop_duplicates("train_key")
    found: list[FeatureMap] = []
    lacking = 0
    for _, training in runs.groupby(TRAINING, sort=False):
        maps = (feature_map(rows, store, label) for label in training.index)
        each = next((one for one in maps if one is not None), None)
        found += [] if each is None else [each]
        lacking += each is None
        if len(found) == TRAININGS:
            break
    return found, lacking


def feature_map(rows: pd.DataFrame, store: Store, label: int) -> FeatureMap | None:
    """Return the map of the training and space of a row; None where the features are not there, or all alike.

    Shown are at most IMAGES of ID test and IMAGES of all OOD sets, as many of each, which a generator draws by SEED.
    """
    row = rows.loc[label]
    space = PLAIN | json.loads(str(row["detector"])).get("space", {})
    given, classes = _sets(rows[(rows["cell"] == row["cell"]) & (rows["status"] == "ok")], store, space)
    if len(given) < 2:
        return None
    points = pd.concat(
        [pd.DataFrame({"set": name, "group": each.group, "position": each.at}) for name, each in given.items()]
    )
    points.insert(2, "class", np.concatenate([classes, np.full(len(points) - len(classes), "", dtype=object)]))
    x = np.concatenate([each.x for each in given.values()]).astype(np.float64)
    planes = _planes(x)
    if planes is None:
        return None
    xy, explained = planes
    points = points.reset_index(drop=True).assign(**xy)
    told, scored = _scores(rows[rows["train_key"] == row["train_key"]], store, points)
    points = points.assign(**told).sample(frac=1, random_state=SEED, ignore_index=True)  # so that none hides the others
    images = {name: each.all for name, each in given.items()}
    return FeatureMap(int(label), _called(space), points, explained, images, scored)


def _sets(cell: pd.DataFrame, store: Store, space: dict[str, Any]) -> tuple[dict[str, _Features], NDArray[np.object_]]:
    """Return the features of ID test and of each OOD set of a cell, and the classes of the former's images."""
    one, draw = cell.iloc[0], np.random.default_rng(SEED)
    found: dict[str, _Features] = {}
    classes = np.array([], dtype=object)
    for content, labels in _id_tests(store, one["id_data"]):
        x = _bank(store, one["train_key"], content, space)
        if x is not None:
            at = _some(len(x), IMAGES, draw)
            found[one["id"]], classes = _Features("ID", len(x), at, x[at]), labels[at]
            break
    for ood, group, content in cell[["ood", "group", "ood_data"]].itertuples(index=False) if found else ():
        x = _bank(store, one["train_key"], content, space)
        if x is not None:
            at = _some(len(x), max(1, IMAGES // len(cell)), draw)
            found[ood] = _Features(group, len(x), at, x[at])
    return found, classes


def _some(count: int, most: int, draw: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(draw.choice(count, min(count, most), replace=False))


def _id_tests(store: Store, id_data: str) -> list[tuple[str, NDArray[np.object_]]]:
    """Return content and classes (N,) of what may be the test split of the ID set whose train split has a content."""
    known = [store.manifest("data", key) | {"key": key} for key in store.keys("data")]
    known = [each for each in known if "fields" in each]
    train = {_of(each) for each in known if each["fields"]["split"] == "train" and each["meta"]["content"] == id_data}
    found = []
    for each in known:
        if each["fields"]["split"] == "test" and _of(each) in train:
            file = store.path("data", each["key"]) / "y.npy"
            if file.is_file() and sha256(file) == each["files"][file.name]:  # the images are not read
                names = np.array(each["meta"]["classes"], dtype=object)
                found.append((each["meta"]["content"], names[np.load(file)]))
    return found


def _of(manifest: dict[str, Any]) -> str:
    """Return what both splits of a prepared set have in common."""
    fields = manifest["fields"]
    return digest([fields[name] for name in ("dataset", "source", "image")])


def _bank(store: Store, train_key: str, content: str, space: dict[str, Any]) -> Array | None:
    """Return the features (N, D) of a set, of the first view where a space has several."""
    fields = {"number": NUMBER["bank"], "train": train_key, "set": content, "part": "all"}
    artifact = store.read("bank", digest(fields | {"views": space["views"], "crop": space["crop"]}))
    if artifact is None:
        return None
    with safe_open(artifact.file("features.safetensors"), "numpy") as file:
        found: Array = file.get_slice(space["layer"])[:1][0]
    if not space["unit"]:
        return found
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(length > 0, length, 1)


def _planes(x: Array) -> tuple[dict[str, Array], tuple[float, float]] | None:
    """Return the axes of both planes of features (N, D), and PCA's shares of the variance; None of features alike."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if min(x.shape) < 2 or len(x) < 4 or not np.ptp(x, axis=0).any():
        return None
    pca = PCA(2, svd_solver="full")
    perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, max_iter=STEPS, init="pca", random_state=SEED, n_jobs=1)
    with threadpool_limits(1):  # the same twice; threads that wait for each other take longer, too
        found = zip(PLANES, (each.fit_transform(x).astype(np.float64) for each in (pca, tsne)), strict=True)
        axes = {f"{name}_{axis}": xy[:, i] for name, xy in found for i, axis in enumerate("xy")}
    one, other = (100 * float(each) for each in pca.explained_variance_ratio_)
    return axes, (one, other)


def _scores(rows: pd.DataFrame, store: Store, points: pd.DataFrame) -> tuple[dict[str, Array], list[int]]:
    """Return the kept scores of images by cell, NaN of a set of which none are kept, and a row of each cell."""
    kept = kept_rows(rows, store)
    told: dict[str, Array] = {}
    scored: list[int] = []
    for _, cell in list(kept.groupby("cell", sort=False))[:CELLS]:
        score = np.full(len(points), np.nan)
        for _, row in cell.iterrows():
            found = kept_scores(store, row)
            if found is not None:
                for part, values in ((points["group"] == "ID", found.id_), (points["set"] == row["ood"], found.ood)):
                    score[part] = values[points.loc[part, "position"]]
        scored.append(int(cell.index[0]))
        told[f"score {scored[-1]}"] = score
    return told, scored


def _called(space: dict[str, Any]) -> str:
    first = ", the first view" if space["views"] > 1 or space["crop"] else ""
    return f"{space['layer']}{', each of unit length' if space['unit'] else ''}{first}"
