"""Scores by image that a study keeps, in float32, beside the images that a detector is most wrong about.

There is an artifact for each row that the study's key `scores` names. Rounding to float32 may tie scores, so that an
area under a curve of them can differ from the row's by some 1e-7.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from oodbench.store.artifacts import Store, digest

KIND = "scores"
_FILE = "scores.safetensors"


class Wrong(NamedTuple):
    """The images of a set that lie furthest on the other side, the furthest first."""

    position: NDArray[np.int64]  # (K,) among the images of the set
    image: NDArray[np.uint8]  # (K, H, W, C), made smaller where they are large


class KeptScores(NamedTuple):
    """Calibrated scores, larger = more OOD; what is at most the cut is accepted as ID."""

    cut: float
    reference: NDArray[np.float32]  # (R,) of the ID items that the cut is set on
    id_: NDArray[np.float32]  # (N,) of ID test
    ood: NDArray[np.float32]  # (M,) of the row's OOD set
    id_wrong: Wrong  # those of ID test that look most OOD
    ood_wrong: Wrong  # those of the OOD set that look most ID


def fields(key: str) -> dict[str, Any]:
    """Return what the artifacts' keys are a hash of, for a row's `key`: what all OOD sets of its cell share."""
    return {"row": key}


def name(key: str, ood: str, ood_data: str) -> str:
    """Return the key of the artifact of a row, by its columns of these names."""
    return f"{digest(fields(key))}-{digest([ood, ood_data])}"


def keep(store: Store, row: tuple[str, str, str], cell: str, found: KeptScores) -> None:
    """Keep the scores of a row, by its `key`, `ood` and `ood_data`, in place of what is there."""
    arrays: dict[str, NDArray[Any]] = {"reference": found.reference, "id": found.id_, "ood": found.ood}
    for side, wrong in (("id", found.id_wrong), ("ood", found.ood_wrong)):
        arrays |= {f"{side}_position": wrong.position, f"{side}_image": wrong.image}

    def fill(folder: Path) -> dict[str, Any]:
        save_file({each: np.ascontiguousarray(array) for each, array in arrays.items()}, folder / _FILE)
        return {"cut": found.cut, "cell": cell, "ood": row[1]}

    store.remove(KIND, name(*row))
    store.write(KIND, name(*row), fields(row[0]), fill)


def kept(store: Store, row: tuple[str, str, str]) -> KeptScores | None:
    """Return the scores of a row, by its `key`, `ood` and `ood_data`; None where they are not kept."""
    artifact = store.read(KIND, name(*row))
    if artifact is None:
        return None
    found = load_file(artifact.file(_FILE))
    wrong = [Wrong(found[f"{side}_position"], found[f"{side}_image"]) for side in ("id", "ood")]
    return KeptScores(artifact.meta["cut"], found["reference"], found["id"], found["ood"], *wrong)
