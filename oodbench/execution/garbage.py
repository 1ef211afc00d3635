"""Which artifacts of a store no study needs any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from oodbench.errors import UserError
from oodbench.execution import audit, cluster_survey, epoch_curve
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.store import scores
from oodbench.store.artifacts import Store, digest
from oodbench.store.memo import Fields, Watch
from oodbench.study.settings import Precision
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
    found = {each for study in studies for each in _needed(study)}

    def wanted(kind: str, key: str) -> bool:
        return ("train" if kind == KIND else kind, key.partition("-")[0]) in found

    return store, [(kind, key) for kind in store.kinds() for key in store.keys(kind) if not wanted(kind, key)]


def _needed(study: Study) -> Iterator[tuple[str, str]]:
    runner = Runner(study, Options(device="cpu"), Watch())
    for _, dataset, split in (side for work in runner.plan.work for side in audit.all_sides(work.run)):
        if not runner.pipeline.store.has("data", digest(runner.library.data_fields(dataset, split))):
            why = f"{dataset.label} is not prepared, so what the study needs is unknown; run it first"
            raise UserError(f"{study.file}: {why}")
    return ((kind, digest(fields)) for kind, fields in needed(runner))


def needed(runner: Runner) -> Iterator[tuple[str, Fields]]:
    """Yield kind and fields of each artifact that a study asks for: of a training its sets, itself, what is made of it.

    Where precision is `auto`, that is of trainings in either.
    """
    pipeline, library, banks = runner.pipeline, runner.library, runner.pipeline.banks
    for work in runner.plan.work:
        for _, dataset, split in audit.all_sides(work.run):
            yield "data", library.data_fields(dataset, split)
            yield "hash", library.hash_fields(dataset, split)
        auto = work.run.precision == "auto"
        precisions: tuple[Precision, ...] = ("float32", "bf16") if auto else (work.run.precision,)
        last = (dataclasses.replace(work.run, precision=each) for each in precisions)
        for at in (dataclasses.replace(work, run=run) for each in last for run in runner.encoders.course(each)):
            yield "train", runner.encoders.train_fields(at.run)
            yield from (("bank", banks.bank_fields(at.run, piece)) for piece in banks.pieces(at.run, at.ways))
            yield "probe", banks.probe_fields(at.run)
            if kept := (source := runner.source(at)).scores:
                wanted = (each.key for each in source.wanted if each.cell in kept.cells)
                yield from ((scores.KIND, scores.fields(key)) for key in wanted)
            yield from ((cluster_survey.KIND, each) for each in cluster_survey.artifacts(pipeline, at).values())
            if runner.study.keep:
                followed = at.of(runner.study.curve)
                yield from ((epoch_curve.KIND, each) for each in epoch_curve.artifacts(runner, followed).values())
    for one, other in audit.pairs(work.run for work in runner.plan.work):
        yield "near", library.near_fields(*one[1:], *other[1:])
