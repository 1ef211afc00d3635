"""Scores again what a submission states, from the features that it encloses, as `oodbench score` does."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from oodbench.errors import UserError
from oodbench.exchange.archive import Archive, EnclosedFeatures
from oodbench.exchange.parameters import Parameters
from oodbench.execution.score_features import Given, score
from oodbench.scoring.detectors import How
from oodbench.store.memo import Watch
from oodbench.study.settings import PLAIN, Reference
from oodbench.study.study import Detectors


@dataclass
class Rescored:
    """What scoring some cells again has found."""

    cells: int = 0  # that were scored again
    agree: int = 0
    forged: dict[tuple[str, str], str] = field(default_factory=dict)  # cell and OOD set -> what was found in its place
    reasons: Counter[str] = field(default_factory=Counter)  # why cells were not scored again


def rescore(archive: Archive, rows: pd.DataFrame, parameters: Parameters, sample: int, tolerance: float) -> Rescored:
    """Score so many cells again whose features are enclosed, drawn anew each time, and hold them against their rows.

    An AUROC counts as the stated one where it differs by at most the tolerance.
    """
    found = Rescored()
    done = rows[(rows["status"] == "ok") & rows["train_key"].isin(archive.facts.features.keys())]
    cells = list(done["cell"].unique())
    drawn = random.SystemRandom().sample(cells, min(sample, len(cells)))  # nobody knows before which
    for key, members in done[done["cell"].isin(drawn)].groupby("train_key"):
        with tempfile.TemporaryDirectory(prefix="oodbench-submission-") as folder:
            try:
                _extract(archive, str(key), Path(folder))
                for _, each in members.groupby("cell"):
                    made = _scored(archive.facts.features[str(key)], each, parameters, Path(folder))
                    _compare(each, made, tolerance, found)
            except UserError as error:
                found.reasons[str(error).replace(f"{folder}/", "")] += members["cell"].nunique()
    return found


def _extract(archive: Archive, key: str, to: Path) -> None:
    """Write the features of an encoder to a folder. Raises UserError that names the member that lacks or is damaged."""
    features = archive.facts.features[key]
    own = ["train", "id", "val"] if features.val else ["train", "id"]
    for stem in (*own, *features.ood.values(), *features.validation.values()):
        member = f"features/{key}/{stem}.safetensors"
        if member not in archive.facts.files:
            archive.fail(member, "is missing")
        archive.extract(member, to / f"{stem}.safetensors")


def _scored(
    features: EnclosedFeatures, rows: pd.DataFrame, parameters: Parameters, folder: Path
) -> dict[str, Any] | str:
    """Return the AUROC of a cell by OOD set, or why it cannot be scored."""
    first = rows.iloc[0]
    try:
        detector = parameters.detector(first["detector"])
    except (UserError, KeyError, TypeError, ValueError) as error:
        return f"its plugins are not here: {error}; give yours with --plugins"
    if detector.space.seen != PLAIN:
        return f"features in files have one view, not {detector.space.label}"
    if lost := [ood for ood in rows["ood"] if ood not in features.ood]:
        return f"the features of {lost[0]} are not enclosed"
    axes = Detectors(
        registry=parameters.registry,
        reference=Reference(kind="val" if features.val else "train"),
        spaces=[detector.space],
        clusterings=[detector.clustering] if detector.clustering else [],
        distances=[detector.distance] if detector.distance else [],
        posthocs=[detector.posthoc] if detector.posthoc else [],
        thresholds=[detector.threshold],
        saw=tuple(features.validation),
    )
    given = Given(
        train=_file(folder, "train"),
        id=(first["id"], _file(folder, "id")),
        ood=[(group, ood, _file(folder, features.ood[ood])) for group, ood in rows[["group", "ood"]].to_numpy()],
        val=_file(folder, "val") if features.val else None,
        validation={name: _file(folder, stem) for name, stem in features.validation.items()},
        grid=axes,
        name=first["cell"],
        root=folder,
        training="submission",
        seed=int(first["seed"]),
    )
    return _judged(given)


def _judged(given: Given) -> dict[str, Any] | str:
    try:
        made = score(given, How(torch.device("cpu")), Watch()).rows
    except UserError as error:
        return str(error)
    if failed := next((each for each in made["error"] if each), ""):
        return str(failed)
    return dict(zip(made["ood"], made["auroc"], strict=True))


def _file(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.safetensors"


def _compare(rows: pd.DataFrame, made: dict[str, Any] | str, tolerance: float, found: Rescored) -> None:
    if isinstance(made, str):
        found.reasons[made] += 1
        return
    found.cells += 1
    stated = {(cell, ood): auroc for cell, ood, auroc in rows[["cell", "ood", "auroc"]].to_numpy()}
    off = {at: value for at, value in stated.items() if not abs(value - made[at[1]]) <= tolerance}
    found.forged |= {at: f"AUROC {value:.6f} stated, {made[at[1]]:.6f} scored again" for at, value in off.items()}
    found.agree += not off
