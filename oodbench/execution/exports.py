"""What a study has made, as files: features that `oodbench score` reads, scores by image. It trains nothing."""

from __future__ import annotations

import gzip
import itertools
import re
import shlex
import tempfile
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import save_file
from torch import Tensor

from oodbench.api import Dataset
from oodbench.data.feature_files import MATRICES
from oodbench.data.library import Split
from oodbench.errors import UserError
from oodbench.execution.pipeline import Pipeline
from oodbench.execution.runner import TrainedFeatures
from oodbench.report.formats import no_formula
from oodbench.scoring.detectors import Bank, How
from oodbench.scoring.detectors import judged as scored
from oodbench.scoring.metrics import Floats
from oodbench.store.files import write_whole
from oodbench.store.rows import Results
from oodbench.study.grid import LAYER_HEAD, NONE, Cell, Run, Work
from oodbench.study.settings import PLAIN
from oodbench.study.study import Study
from oodbench.training.banks import reference_of
from oodbench.training.embed import Layers
from oodbench.training.encoders import Indices
from oodbench.training.weights import plan_of

Arrays = dict[str, Tensor]
ENDINGS = (".csv", ".csv.gz", ".parquet")  # of files of scores
LONGEST = 120  # characters of a name, of the 255 bytes that file systems allow


@dataclass(frozen=True)
class Exported:
    """A folder of features, and the command that scores it."""

    folder: Path
    command: str
    key: str  # of the training
    stems: dict[tuple[str, str], str]  # role (ood, validation) and name of a set -> stem of its file


def export(pipeline: Pipeline, to: Path, only: Container[str] | None = None) -> Iterator[Exported | Run]:
    """Write the features of each training of a study, whole or not at all; yield those that are not trained as runs.

    `only` are the keys of the trainings that are wanted.
    """
    runs = [work.run for work in plan_of(pipeline.study).work]
    for run in runs:
        if only is not None and pipeline.encoders.train_key(run) not in only:
            continue
        if pipeline.store.read("train", pipeline.encoders.train_key(run)) is None:  # one that is damaged is not there
            yield run
            continue
        folder = to / f"{_safe(run.title)}-{pipeline.encoders.train_key(run)}"
        pipeline.watch.stage("export", run.title)
        bank = pipeline.bank(run, [PLAIN], baselines=False)
        names = _names(bank)
        try:
            _write(folder, _files(pipeline, run, bank, names))
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error}") from error
        command = _command(pipeline.study, run, _label(run, runs), folder, names)
        yield Exported(folder, command, pipeline.encoders.train_key(run), names)


def _files(pipeline: Pipeline, run: Run, bank: Bank, names: dict[tuple[str, str], str]) -> Iterator[tuple[str, Arrays]]:
    yield "train", _arrays(bank.fit, bank.y) | _head(pipeline, run)
    if bank.reference is not None:
        yield "val", _arrays(bank.reference.layers[PLAIN], bank.reference.y)
    yield "id", _arrays(bank.test.layers[PLAIN], bank.test.y)
    for role, sets in (("ood", bank.ood), ("validation", bank.validation)):
        for name, layers in sets.items():
            yield names[role, name], _arrays(layers[PLAIN])


def _arrays(layers: Layers, y: Tensor | None = None) -> Arrays:
    """Return the layers (1, M, D) of a set under the names of its file, (M, D)."""
    found = {name: layers[layer][0] for name, layer in MATRICES.items() if layer in layers}
    return found if y is None else found | {"labels": y}


def _head(pipeline: Pipeline, run: Run) -> Arrays:
    """Return the weights of the training's own classifier, where it has one that is linear."""
    head = pipeline.banks.head(run) if LAYER_HEAD["logits"] in run.training.heads else None
    if head is None or head.weight is None or head.bias is None:
        return {}
    return {"weight": head.weight.cpu(), "bias": head.bias.cpu()}


def _write(folder: Path, files: Iterable[tuple[str, Arrays]]) -> None:
    """Write a folder of files in place of one that is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as made:
        new = Path(made) / "new"
        new.mkdir()
        for name, arrays in files:
            save_file({key: each.contiguous() for key, each in arrays.items()}, new / f"{name}.safetensors")
        if folder.exists():
            folder.rename(Path(made) / "old")
        new.rename(folder)


# ---- scores ----------------------------------------------------------------------------------------------------


def cells(study: Study, start: str) -> list[tuple[Work, Cell]]:
    """Return the cells of a study whose hashes begin so, each with what it is of."""
    return [(work, cell) for work in plan_of(study).work for cell in work.cells if cell.id.startswith(start)]


def scores(pipeline: Pipeline, which: str) -> pd.DataFrame:
    """Return the scores of a cell by image, made of the features in the store: a row for each image of each set.

    `role` is ID test, ID reference, or the group of an OOD set, whose `set` is the `ood` of rows; `position` counts the
    images of a set as the study has it from 0, as the `index` of `oodbench audit` does;
    `class` is the image's in its own set; `score` is larger for more OOD, and `accepted` where it is at most the cut.
    Raises UserError where no cell, or several, begin so, where its training is not in the store, or where it fails.
    """
    study = pipeline.study
    found = cells(study, which)
    if len(found) != 1:
        many = f"{len(found)} cells begin so" if found else "the study has no such cell"
        raise UserError(f"cell {which}: {many}; `cell` is a column of leaderboard.csv")
    ((work, cell),) = found
    run, detector = work.run, cell.detector
    if not pipeline.encoders.has_weights(run):
        raise UserError(f"{run.title} is not trained; oodbench run {study.file} trains it")
    source = TrainedFeatures(work, pipeline, Results(study.results), {})
    how = How(pipeline.device, pipeline.options.memory, keep_scores=True)
    judged = list(scored([detector], source.bank([detector]), list(run.sets), source.seed, how))
    if failed := next((each for each in judged if each.error), None):
        raise UserError(f"{detector.scorer.label} of {run.title} fails on {failed.ood}: {failed.error}")
    first = judged[0].scores
    assert first is not None
    parts = [_part(pipeline, run.id, "test", None, "ID test", first.id_), _reference(pipeline, run, first.reference)]
    for group, members in run.ood.items():
        for each in judged:
            if each.ood in members and each.scores is not None:
                part = _part(pipeline, run.sets[each.ood], "test", None, group, each.scores.ood)
                parts.append(part.assign(set=each.ood))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(accepted=rows["score"] <= first.cut)


def _reference(pipeline: Pipeline, run: Run, found: Floats) -> pd.DataFrame:
    fit, held_out = pipeline.encoders.split(run)
    if run.reference.kind == "train":
        return _part(pipeline, run.id, "train", fit, "ID reference", found)
    dataset, split, part = reference_of(run)
    return _part(pipeline, dataset, split, held_out if part == "val" else None, "ID reference", found)


def _part(
    pipeline: Pipeline, dataset: Dataset, split: Split, at: Indices | None, role: str, found: Floats
) -> pd.DataFrame:
    prepared = pipeline.library.prepared(dataset, split)
    at = np.arange(len(prepared.y)) if at is None else at
    names = np.array(prepared.classes, dtype=object)[prepared.y[at]]
    return pd.DataFrame(
        {"role": role, "set": dataset.label, "split": split, "position": at, "class": names, "score": found}
    )


def check_ending(file: Path) -> None:
    """Raise UserError where scores cannot be written to a file of such a name."""
    if not file.name.endswith(ENDINGS):
        raise UserError(f"--to {file}: wanted is a file {', '.join(ENDINGS)}")
    if file.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UserError(f"--to {file}: to write .parquet files, pip install 'oodbench[parquet]'")


def write_scores(rows: pd.DataFrame, file: Path) -> None:
    """Write scores in the form that the name says, whole or not at all."""
    if file.name.endswith(".parquet"):
        write_whole(file, rows.to_parquet(index=False))
        return
    content = rows.map(no_formula).to_csv(index=False).encode()
    write_whole(file, gzip.compress(content, mtime=0) if file.name.endswith(".gz") else content)


# ---- names ----------------------------------------------------------------------------------------------------


def _safe(name: str) -> str:
    """Return a name that every file system takes and no shell reads as anything else."""
    return re.sub(r"[^A-Za-z0-9.=_+]+", "-", name).strip("-.")[:LONGEST]


def _names(bank: Bank) -> dict[tuple[str, str], str]:
    """Return the stem of each OOD set's file by role and name, no two alike, in upper or lower case."""
    found: dict[tuple[str, str], str] = {}
    for role, name in (*(("ood", each) for each in bank.ood), *(("validation", each) for each in bank.validation)):
        taken, first = {each.casefold() for each in found.values()}, f"{role}-{_safe(name)}"
        stems = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
        found[role, name] = next(stem for stem in stems if stem.casefold() not in taken)
    return found


def _label(run: Run, runs: list[Run]) -> str:
    """Return what tables call a training: its label, and what tells it from others of the same label."""
    differing = [name for name in ("encoder", "outliers", "precision") if len({each.labels[name] for each in runs}) > 1]
    parts = [run.training.label, *(run.labels[name] for name in differing), run.recipe_label]
    return " · ".join(part for part in parts if part not in ("", NONE))


def _command(study: Study, run: Run, label: str, folder: Path, names: dict[tuple[str, str], str]) -> str:
    """Return the command, quoted for a shell, that scores what is in a folder."""

    def file(stem: str) -> str:
        return str(folder / f"{stem}.safetensors")

    words = ["oodbench", "score", "--train", file("train"), "--id", f"{run.id.label}={file('id')}"]
    if run.reference.kind != "train":
        words += ["--val", file("val")]
    for group, members in run.ood.items():
        for name in members:
            words += [f"--{group}", f"{name}={file(names['ood', name])}"]
    for each in run.validation:
        words += ["--validation", f"{each.label}={file(names['validation', each.label])}"]
    words += ["--name", f"{study.name}-features", "--training", label, "--seed", str(run.seed)]
    return shlex.join(words)
