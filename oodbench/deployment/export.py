"""From a cell of a study, its training in the store, to the folder of a detector. It trains nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from oodbench.deployment import detector as deployed
from oodbench.deployment import folder as folders
from oodbench.deployment import onnx_encoder
from oodbench.deployment.folder import DeployedFacts, ExpectedNumbers, HeldAgainst, Tensors
from oodbench.errors import UserError
from oodbench.execution.pipeline import Pipeline
from oodbench.scoring import detectors as scoring
from oodbench.scoring.fitted import FittedDetector
from oodbench.store.memo import NUMBER
from oodbench.store.provenance import commit, libraries, machine, now, version
from oodbench.study.fingerprints import fingerprint_module
from oodbench.study.grid import LAYER_HEAD, Cell, Detector, Run, has_shifted
from oodbench.study.settings import PLAIN
from oodbench.training.embed import EMBED_BATCH
from oodbench.training.weights import plan_of

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


class ExportRequest(NamedTuple):
    """What is to be exported, and how."""

    cell: str
    rows: pd.DataFrame  # of the cell, one for each OOD set
    to: Path
    onnx: bool
    tell: Callable[[str], None]  # hears how large it will be


@dataclass(frozen=True)
class _Known:
    """What the study has of a cell."""

    cell: Cell
    bank: scoring.Bank
    scores: scoring.ImageScores
    fitted: FittedDetector


def export(pipeline: Pipeline, asked: ExportRequest) -> DeployedFacts:
    """Write the detector of a cell to a folder, whole or not at all, and hold it against the study's scores.

    Raises UserError where the cell cannot be exported, has failed, or its training is not in the store.
    """
    folders.check_free(asked.to)
    if asked.onnx:
        onnx_encoder.check_installed((*onnx_encoder.WRITES, *onnx_encoder.RUNS))
    cell = _cell(pipeline, asked)
    known = _known(pipeline, cell)
    model = pipeline.encoders.model(cell.run)
    weights: Tensors = dict(model.state_dict())
    bank = deployed.tensors_of(cell.detector, known.bank, known.fitted.parts, _probe(pipeline, cell))
    sizes = [sum(each.nbytes for each in tensors.values()) for tensors in (weights, bank)]
    what = f"{len(known.bank.y):,} training items that {cell.detector.scorer.label} is fitted on"
    asked.tell(f"encoder: {sizes[0]:,} bytes; {what}: {sizes[1]:,} bytes")
    facts = _facts(pipeline, known, asked)
    trust = deployed.Trust(pipeline.study.registry, True, pipeline.watch.warn)

    def fill(folder: Path) -> DeployedFacts:
        folders.save(weights, folder / folders.ENCODER)
        folders.save(bank, folder / folders.BANK)
        if asked.onnx:
            onnx_encoder.write(model, facts.image.size, folder / folders.ONNX)
        read = [folders.loaded(folder / name) for name in (folders.ENCODER, folders.BANK)]
        made = deployed.assembled(facts, read[0], read[1], pipeline.device, trust)
        if made.threshold != facts.cut:
            raise UserError(f"{facts.title}: fitted again, its cut is {made.threshold!r} in place of {facts.cut!r}")
        return facts.model_copy(update={"held": _held(pipeline, known, made, folder, asked.onnx)})

    return folders.write(asked.to, fill)


def _cell(pipeline: Pipeline, asked: ExportRequest) -> Cell:
    """Return the cell of a hash. Raises UserError where it cannot be exported."""
    study = pipeline.study
    cell = next((each for work in plan_of(study).work for each in work.cells if each.id == asked.cell), None)
    if cell is None:
        raise UserError(f"cell {asked.cell}: {study.file} has no such cell any more")
    if failed := next((each for each in asked.rows["error"] if each), ""):
        raise UserError(f"{cell.title} has failed: {failed}")
    if not pipeline.encoders.has_weights(cell.run):
        raise UserError(f"{cell.run.title} is not trained; oodbench run {study.file} trains it")
    if cell.detector.posthoc and cell.detector.posthoc.network:
        raise UserError(f"{cell.title}: a folder scores features, and {cell.detector.scorer.label} passes images")
    if cell.detector.space.seen != PLAIN:
        where = "whose draw depends on the set that an image is in"
        raise UserError(
            f"{cell.title}: it scores {cell.detector.space.label}, augmented views {where}; take plain ones"
        )
    return cell


def _known(pipeline: Pipeline, cell: Cell) -> _Known:
    """Return what the study has of a cell: its features, its scores by image, and the detector fitted on them."""
    run, detector = cell.run, cell.detector
    bank = pipeline.bank(run, [PLAIN], baselines=detector.posthoc is not None)
    how = scoring.How(pipeline.device, pipeline.options.memory, keep_scores=True)
    pipeline.watch.stage("score", cell.title)
    one = dict([*bank.ood.items()][:1])  # scores of ID do not depend on it
    first = next(scoring.judged([detector], replace(bank, ood=one), [*one], run.seed, how), None)
    if first is None or first.scores is None:
        raise UserError(f"{cell.title} fails: {first.error if first else 'there is no OOD set'}")
    with deployed.quiet():
        return _Known(cell, bank, first.scores, FittedDetector(detector, bank, run.seed, how))


def _probe(pipeline: Pipeline, cell: Cell) -> Tensors | None:
    if not cell.detector.posthoc or LAYER_HEAD["logits"] in cell.run.training.heads:
        return None
    found = pipeline.banks.probe(cell.run)
    return None if found is None else found._asdict()


def _held(pipeline: Pipeline, known: _Known, made: deployed.DeployedDetector, folder: Path, onnx: bool) -> HeldAgainst:
    """Score the first ID test images by what was written, and return how far they are from the study's scores."""
    images = pipeline.library.prepared(known.cell.run.id, "test").x[:EMBED_BATCH]
    x, wanted = np.array(images), known.scores.id_[: len(images)]

    def difference() -> float:
        apart = np.abs(made.predictions(made.layers([x])).score - wanted) / np.maximum(1, np.abs(wanted))
        return float(apart.max())

    found = difference()
    if not onnx:
        return HeldAgainst(images=len(x), largest_difference=found)
    made.model = onnx_encoder.OnnxEncoder(made.model, folder / folders.ONNX)
    return HeldAgainst(images=len(x), largest_difference=found, onnx_difference=difference())


# ---- what stands in detector.json ----------------------------------------------------------------------------


def _facts(pipeline: Pipeline, known: _Known, asked: ExportRequest) -> DeployedFacts:
    run, detector, rows = known.cell.run, known.cell.detector, asked.rows
    parts, first = known.fitted.parts, rows.iloc[0]
    return DeployedFacts(
        format=1,
        title=known.cell.title,
        study=pipeline.study.name,
        cell=asked.cell,
        train_key=pipeline.encoders.train_key(run),
        made=_made(pipeline),
        numbers=dict(NUMBER),
        sources=_sources(pipeline, run, detector),
        image=run.image,
        bits=getattr(run.id, "bits", None),
        range=getattr(run.id, "range", None),
        exif=getattr(run.id, "exif", False),
        encoder=run.encoder,
        heads=dict(run.training.heads),
        precision=pipeline.encoders.precision(run),  # type: ignore[arg-type]
        shifted=has_shifted(run.training),
        classes=list(pipeline.library.prepared(run.id, "train").classes),
        detector=detector.canonical,
        seed=run.seed,
        covariance_type=parts.clusters.covariance_type if parts.clusters else None,
        cut=known.scores.cut,
        reference=_quantiles(known.scores.reference),
        accuracy=None if pd.isna(first["accuracy"]) else float(first["accuracy"]),
        id_recall=float((known.scores.id_ <= known.scores.cut).mean()),
        warnings=sorted({str(each) for each in rows["warnings"] if each}),
        expected={str(row["ood"]): _expected(row) for _, row in rows.iterrows()},
        held=None,
        bytes={},
        files={},
    )


def _made(pipeline: Pipeline) -> dict[str, Any]:
    device = str(pipeline.device)
    made = {"version": version(), "commit": commit(), "libraries": libraries(), "at": now()}
    return made | {"device": device, "machine": machine(device)}


def _sources(pipeline: Pipeline, run: Run, detector: Detector) -> dict[str, str]:
    """Return the hash of the code of each plugin, and of an encoder that is somebody's own."""
    registry, own = pipeline.study.registry, run.encoder.module
    found = {room: registry.fingerprint(room, each.name) for room, each in detector.plugins.items()}
    return found | ({"encoder": fingerprint_module(own)} if own else {})


def _quantiles(reference: NDArray[np.float64]) -> dict[str, float]:
    return {f"{q:g}": float(np.quantile(reference, q)) for q in QUANTILES}


def _expected(row: pd.Series[Any]) -> ExpectedNumbers:
    numbers = {name: float(row[name]) for name in ("auroc", "fpr95_id", "ood_recall")}
    return ExpectedNumbers(group=str(row["group"]), **{k: math.nan if pd.isna(v) else v for k, v in numbers.items()})
