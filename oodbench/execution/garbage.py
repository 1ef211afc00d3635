"""Which artifacts of a store no study needs any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from oodbench.api import Dataset
from oodbench.data.library import Split
from oodbench.errors import UserError
from oodbench.execution import audit, cluster_survey, epoch_curve
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Runner
from oodbench.store.artifacts import Store
from oodbench.store.memo import Watch, digest
from oodbench.study.grid import Run
from oodbench.study.study import Study
from oodbench.training.checkpoints import KIND


def garbage(studies: list[Study], warn: Callable[[str], None]) -> tuple[Store, list[tuple[str, str]]]:
    """Return the store that studies share, and (kind, key) of each artifact that none of them needs.

    A study whose data is not prepared tells nothing about what it needs: UserError. Checkpoints of trainings that
    a study needs are kept, and so is what it needs on a device of either precision where it asks for `auto`.
    """
    roots = {study.store.resolve() for study in studies}
    if len(roots) != 1:
        raise UserError(f"the studies use different stores: {', '.join(sorted(str(root) for root in roots))}")
    store = Store(studies[0].store, warn)
    needed = {each for study in studies for each in _needed(study)}

    def wanted(kind: str, key: str) -> bool:
        return ("train", key.partition("-")[0]) in needed if kind == KIND else (kind, key) in needed

    return store, [(kind, key) for kind in store.kinds() for key in store.keys(kind) if not wanted(kind, key)]


def _needed(study: Study) -> set[tuple[str, str]]:
    runner = Runner(study, Options(device="cpu"), Watch())
    pipeline = runner.pipeline
    found: set[tuple[str, str]] = set()
    for work in runner.plan.work:
        sets: list[tuple[Dataset, Split]] = [(work.run.id, "train"), (work.run.id, "test")]
        sets += [(each, "test") for each in work.run.sets.values()]
        sets += [(each, "train") for each in (work.run.outliers, *work.run.validation) if each]
        sets += [(work.run.reference.held_out, "test")] if work.run.reference.held_out else []
        for dataset, split in sets:
            found.add(("data", _data_key(pipeline, dataset, split, study)))
            found.add(("hash", digest(pipeline.library.hash_fields(dataset, split))))
        for run in (each for last in _resolved(work.run) for each in pipeline.encoders.course(last)):
            found.add(("train", pipeline.encoders.train_key(run)))
            found.add(("probe", digest(pipeline.banks.probe_fields(run))))
            found |= {
                ("bank", digest(pipeline.banks.bank_fields(run, piece)))
                for piece in pipeline.banks.pieces(run, work.ways)
            }
            measured = cluster_survey.artifacts(pipeline, dataclasses.replace(work, run=run))
            found |= {(cluster_survey.KIND, digest(each)) for each in measured.values()}
            if study.keep:
                followed = epoch_curve.followed(study.curve, dataclasses.replace(work, run=run))
                scored = epoch_curve.artifacts(runner, followed)
                found |= {(epoch_curve.KIND, digest(each)) for each in scored.values()}
    for one, other in audit.pairs(pipeline, (work.run for work in runner.plan.work)):
        found.add(("near", digest(pipeline.library.near_fields(one.dataset, one.split, other.dataset, other.split))))
    return found


def _resolved(run: Run) -> Iterator[Run]:
    if run.precision != "auto":
        yield run
        return
    yield dataclasses.replace(run, precision="float32")
    yield dataclasses.replace(run, precision="bf16")


def _data_key(pipeline: Pipeline, dataset: Dataset, split: Split, study: Study) -> str:
    key = digest(pipeline.library.data_fields(dataset, split))
    if not pipeline.store.has("data", key):
        raise UserError(
            f"{study.file}: {dataset.label} is not prepared, so what the study needs is unknown; run it first"
        )
    return key
